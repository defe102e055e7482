"""The answer step: one rule of each task; an answer is a span of the note or a checked transform of it."""
