"""Drains this machine's Ray nodes when its cloud says that it will be taken away."""
