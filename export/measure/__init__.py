"""Exported towers compared with float32 PyTorch: accuracy, size, time and memory."""
