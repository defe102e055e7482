"""The page over all stages, read from their artefacts."""
