"""Tables of any known kind, here or in a bucket: found, read row by row, split, written."""
