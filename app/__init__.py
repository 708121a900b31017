"""What a person touches: the gallery library, its command line and its screens."""
