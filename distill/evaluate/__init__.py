"""Accuracy, measured: retrieval, zero-shot classification and tagging. NumPy only, so that bundles need no torch."""
