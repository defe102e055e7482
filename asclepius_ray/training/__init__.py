"""Token blocks → checkpoints → model, with DeepSpeed on Ray Train."""
