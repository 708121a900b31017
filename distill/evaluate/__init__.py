"""Measure retrieval, zero-shot classification and tagging, with NumPy only, so that bundles need no torch."""
