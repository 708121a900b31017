"""View-models: what the screens show and what a touch does to it, without a window and without Kivy."""

PLACES = ("photos", "search", "albums", "review", "settings")
"""Where the navigation leads."""
