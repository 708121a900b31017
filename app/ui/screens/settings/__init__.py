"""Settings: folders, appearance, the model and storage."""
