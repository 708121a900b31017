"""Towers as LiteRT (.tflite) files."""
