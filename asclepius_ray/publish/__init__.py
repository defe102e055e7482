"""Dataset and model of a run → a Hugging Face repository, a folder or a bucket, whole or not at all."""
