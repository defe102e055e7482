"""What will not work, said before a long run begins: one finding a check, each with what to do."""
