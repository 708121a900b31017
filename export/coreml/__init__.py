"""Towers as Core ML packages."""
