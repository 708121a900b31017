"""Choose a folder."""
