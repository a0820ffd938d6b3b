"""t5x_lite: BERT, GPT and T5 in JAX, on one set of blocks, one train step and one data pipeline."""

__version__ = '0.1.0'
