"""Make or edit a custom label."""
