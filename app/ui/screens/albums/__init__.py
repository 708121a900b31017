"""One album for each label."""
