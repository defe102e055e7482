"""Examples → token ids and loss mask → rows of the sequence length."""
