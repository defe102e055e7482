"""The engines: token ids in, a stream of token ids out."""
