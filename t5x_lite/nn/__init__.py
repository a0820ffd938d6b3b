"""Blocks that every model is composed of: linear maps, norms, positions, masks, attention, MLP, stacks."""
