"""Analytic FLOPs of a training step: what model FLOPs utilisation (MFU) is measured against.

Counted are the multiply-adds (2 FLOPs) of matrix products, forward and backward (3 times forward), whatever is computed
again; look-ups, norms and softmax are not counted (Chowdhery et al. 2022, appendix B).
"""

from __future__ import annotations

from collections.abc import Mapping

import jax

from t5x_lite.models.t5 import T5Config


def attention_flops(queries: int, keys: int, config: T5Config, kv_projected: int) -> int:
  """Forward FLOPs of one attention layer for one row: four projections and two products over all T x S pairs."""
  joined = config.num_heads * config.head_dim
  projections = 2 * config.emb_dim * joined * (2 * queries + 2 * kv_projected)
  return projections + 2 * 2 * queries * keys * joined


def t5_flops_per_step(config: T5Config, spec: Mapping[str, jax.ShapeDtypeStruct]) -> float:
  """FLOPs of one training step of a T5.

  Args:
    config: of the model.
    spec: global shapes `[B, L]` of a batch (see `core.batch`).
  """
  batch, inputs = spec['encoder_input_tokens'].shape
  _, targets = spec['decoder_input_tokens'].shape
  mlp = 2 * config.emb_dim * config.mlp_dim * (len(config.mlp_activations) + 1)
  encoder_layer = attention_flops(inputs, inputs, config, inputs) + mlp * inputs
  decoder_layer = (
    attention_flops(targets, targets, config, targets)
    + attention_flops(targets, inputs, config, inputs)
    + mlp * targets
  )
  logits = 2 * targets * config.emb_dim * config.vocab_size
  row = config.num_encoder_layers * encoder_layer + config.num_decoder_layers * decoder_layer + logits
  return float(3 * batch * row)
