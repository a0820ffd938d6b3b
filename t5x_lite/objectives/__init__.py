"""Pretraining objectives: NumPy functions from tokens and a random generator to an example of inputs and targets."""
