"""JAX's splash attention for TPUs, under our masks: causal, local, and by segment; it has no bias and no dropout.

Segments must be equal there, and padding sees padding; with us it sees everything else. Nothing depends on either.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel_lib
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as mask_lib

from t5x_lite.core.products import ATTENTION
from t5x_lite.nn.attention_inputs import Inputs, Settings
from t5x_lite.nn.masks import Mask

_LANES = 128
_BLOCKS = (512, 384, 256, 128)  # queries or keys of a block; the largest that divides is taken
_BEYOND = -1  # segment of what fills a row up to whole blocks


def splash_attention(inputs: Inputs, settings: Settings) -> jax.Array:
  """Softmax attention, `[B, T, N, H]` in the dtype of the query; 0 where a query sees nothing."""
  assert inputs.bias is None and inputs.places.seed is None
  batch, queries, heads, _ = inputs.query.shape
  keys, mask = inputs.key.shape[1], inputs.places.mask
  padded = (-(-queries // _LANES) * _LANES, -(-keys // _LANES) * _LANES)
  kernel = kernel_lib.make_splash_mha(
    mask_lib.MultiHeadMask([_static_mask(mask, padded)] * heads),
    head_shards=1,
    q_seq_shards=1,
    block_sizes=_block_sizes(*padded),
    residual_checkpoint_name=ATTENTION,
    interpret=settings.interpret,
  )
  query_segments, key_segments = mask.query_segments, mask.key_segments
  segments = None
  if query_segments is not None and key_segments is not None:
    segments = kernel_lib.SegmentIds(_fill(query_segments, padded[0]), _fill(key_segments, padded[1]))
  elif padded != (queries, keys):
    ones = functools.partial(jnp.ones, dtype=jnp.int32)
    segments = kernel_lib.SegmentIds(_fill(ones((batch, queries)), padded[0]), _fill(ones((batch, keys)), padded[1]))
  scaled = inputs.query * jnp.asarray(settings.scale, inputs.query.dtype)
  by_head = [
    jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, length - x.shape[1]), (0, 0)))
    for x, length in ((scaled, padded[0]), (inputs.key, padded[1]), (inputs.value, padded[1]))
  ]
  # Its own code promotes bfloat16 to float32 implicitly.
  with jax.numpy_dtype_promotion('standard'):
    out = jax.vmap(kernel)(*by_head, segments).swapaxes(1, 2)[:, :queries]
  if query_segments is None or key_segments is None:
    return out
  # Where nothing is seen, it gives a mean of what must not be.
  visible = mask.materialise(queries, keys)
  assert visible is not None
  informed = jnp.any(visible, axis=-1)[:, 0]
  return jnp.where(informed[:, :, None, None], out, jnp.zeros((), out.dtype))


def _static_mask(mask: Mask, shape: tuple[int, int]) -> mask_lib.Mask:
  """What is known of a mask when the program is traced."""
  if mask.window is not None:
    return mask_lib.LocalMask(shape, (mask.window - 1, 0 if mask.causal else mask.window - 1), 0)
  return mask_lib.CausalMask(shape) if mask.causal else mask_lib.FullMask(shape)


def _block_sizes(queries: int, keys: int) -> kernel_lib.BlockSizes:
  q, k = (next(block for block in _BLOCKS if length % block == 0) for length in (queries, keys))
  return kernel_lib.BlockSizes(
    block_q=q,
    block_kv=k,
    block_kv_compute=k,
    block_q_dkv=q,
    block_kv_dkv=k,
    block_kv_dkv_compute=k,
    block_q_dq=q,
    block_kv_dq=k,
  )


def _fill(segments: jax.Array, length: int) -> jax.Array:
  return jnp.pad(segments, ((0, 0), (0, length - segments.shape[1])), constant_values=_BEYOND)
