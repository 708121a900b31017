"""`pocketclip train`: the training loop and its parts."""
