"""The photo grid: rows, tiles, sections and selection."""
