"""Widgets, layers, theme, icons and texts that every screen uses."""
