"""Folders, models, appearance and storage."""
