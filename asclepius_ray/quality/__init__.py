"""Pure checks on text."""
