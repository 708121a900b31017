"""Measure exported towers beside float32 torch: accuracy, size, time and memory."""
