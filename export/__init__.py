"""From a checkpoint to a bundle that a phone can run."""
