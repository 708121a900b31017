"""Decide which labels a photo gets; corrections, custom labels and albums."""
