"""One screen a file, with its layout beside it."""
