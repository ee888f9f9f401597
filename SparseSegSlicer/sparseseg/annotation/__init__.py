"""Strokes and complete slices -> labels y, weights w and a summary; what changed between revisions. Numpy only."""
