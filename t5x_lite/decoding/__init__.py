"""Turning next-token logits into sequences; knows callables and caches, not models."""
