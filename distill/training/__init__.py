"""`pocketclip train`: the trainer and everything that serves it."""
