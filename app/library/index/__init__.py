"""Bring the index up to date with the folders of photos."""
