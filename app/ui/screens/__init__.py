"""One folder per screen; what screens with a photo grid share is in grid_screen.py."""
