"""The catalogue of tasks and mixtures: values, little code."""
