"""First start, and an index that cannot be opened."""
