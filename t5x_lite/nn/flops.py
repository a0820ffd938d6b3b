"""Analytic FLOPs of the blocks: what model FLOPs utilisation (MFU) is measured against.

Counted are the multiply-adds (2 FLOPs) of matrix products; look-ups, norms and softmax are not (Chowdhery et al. 2022,
appendix B). A training step costs 3 times its forward pass, whatever is computed again.
"""

from __future__ import annotations

from t5x_lite.nn.transformer import BlockConfig

BACKWARD_TOO = 3


def attention_flops(config: BlockConfig, queries: int, keys: int, *, cross: bool = False) -> int:
  """Forward FLOPs of an attention layer for one row: four projections, and two products over all T x S pairs."""
  joined = config.num_heads * config.head_dim
  shared = joined if cross or config.num_kv_heads is None else config.num_kv_heads * config.head_dim
  projections = 2 * config.features * (joined * 2 * queries + shared * 2 * keys)
  return projections + 2 * 2 * queries * keys * joined


def block_flops(config: BlockConfig, length: int, encoder_length: int = 0) -> int:
  """Forward FLOPs of a block for one row of `length` positions, which attends to `encoder_length` encoded ones."""
  total = attention_flops(config, length, length)
  if config.cross_attention:
    total += attention_flops(config, length, encoder_length, cross=True)
  mlp = 2 * length * config.features * config.mlp_dim * (len(config.activations) + 1)
  if config.routing is not None:  # what is computed of it: every token by its experts, and the router
    mlp = mlp * config.routing.experts_per_token + 2 * length * config.features * config.routing.num_experts
  adapters = (2 + config.cross_attention) * 2 * 2 * length * config.features * config.adapter_dim
  return total + mlp + adapters


def logits_flops(length: int, features: int, vocab_size: int) -> int:
  """Forward FLOPs of the output projection for one row."""
  return 2 * length * features * vocab_size
