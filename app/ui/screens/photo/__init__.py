"""One photo, full size, with its labels and details."""
