"""A gallery without any screen: scan, decode, index, search and tag a folder of photos.

Needs the standard library, NumPy and Pillow; the paths of the index and of the photos come from the caller.
"""
