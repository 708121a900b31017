"""Thumbnails on disk and decoded pictures in memory."""
