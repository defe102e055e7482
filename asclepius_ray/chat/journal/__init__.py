"""The journal of paid answers: immutable segments in a folder or a bucket."""
