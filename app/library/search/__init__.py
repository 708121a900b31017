"""Rank and filter the photos of the index."""
