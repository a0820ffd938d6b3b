"""What `python -m t5x_lite.infer` does between its input and its output: a file for each mode, and what they share."""
