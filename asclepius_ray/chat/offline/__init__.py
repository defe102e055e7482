"""The offline teacher: an OpenAI-compatible server that answers by rules and is no language model."""
