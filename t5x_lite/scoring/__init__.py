"""Predictions for whole splits, scored as the official scorers do, and written as the benchmarks take them."""
