"""All photos by day."""
