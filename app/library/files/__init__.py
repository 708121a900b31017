"""What is on disk: walk folders, hash contents, read EXIF."""
