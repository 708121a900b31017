"""The first start, and an index that can't be opened."""
