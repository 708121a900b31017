"""The index on disk: an SQLite database, and a file of vectors for each model."""
