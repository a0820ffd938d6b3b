"""Weights of other libraries in and out: one table of names per model family, one reader per kind of file."""
