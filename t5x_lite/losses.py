"""Cross entropy with label smoothing and z-loss, over the whole vocabulary at once or in chunks of it.

Everything comes as unnormalised sums over tokens in float32; who divides by what is the learner's business. Semantics
are T5X's (`compute_weighted_cross_entropy`): label smoothing subtracts the entropy of its own soft targets, so that a
perfect prediction costs 0, and z-loss adds `z_loss * log(Z)^2` (Chowdhery et al. 2022, section 5).

Every term is a function of three numbers per token: log(Z), the target's logit and the sum of all logits. So the
chunked form has to provide those and their gradients only, and the full `[B, L, V]` logits never exist, forward or
backward.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from t5x_lite.core import axes
from t5x_lite.core.logits import FactoredLogits
from t5x_lite.label_losses import LabelSums


@struct.dataclass
class LossSums:
  """Scalar float32 sums over a batch, each token counted with its weight.

  Attributes:
    loss: everything that is minimised: cross entropy (label smoothing included) plus z-loss.
    z_loss: the part of `loss` that is z-loss.
    nll: plain cross entropy, in nats, without smoothing and z-loss.
    correct: hits of the argmax (the lowest id wins a tie).
    weight: the weights themselves.
    labels: of the labels of examples, which are no part of the others; None where there are none.
  """

  loss: jax.Array
  z_loss: jax.Array
  nll: jax.Array
  correct: jax.Array
  weight: jax.Array
  labels: LabelSums | None = None

  def named(self) -> dict[str, jax.Array]:
    """The sums as metrics: `loss_sum`, `z_loss_sum`, `nll_sum`, `correct_sum`, `weight_sum`; those of labels, if there
    are any, as `label_loss_sum`, `label_correct_sum`, `label_weight_sum`.
    """
    names = [field.name for field in dataclasses.fields(self) if field.name != 'labels']
    sums = {f'{name}_sum': getattr(self, name) for name in names}
    if self.labels is not None:
      sums |= {f'label_{name}': value for name, value in self.labels.named().items()}
    return sums


@struct.dataclass
class TokenLosses:
  """The losses of every token, float32 `[B, L]`, not weighted. Fields as in `LossSums`."""

  loss: jax.Array
  z_loss: jax.Array
  nll: jax.Array
  correct: jax.Array

  def sums(self, weights: jax.Array, labels: LabelSums | None = None) -> LossSums:
    """Sums with weights `[B, L]`, together with those of the labels, if there are any."""
    weights = weights.astype(jnp.float32)
    total = jax.tree.map(lambda x: jnp.sum(x * weights), self)
    return LossSums(total.loss, total.z_loss, total.nll, total.correct, jnp.sum(weights), labels)


def cross_entropy(
  factored: FactoredLogits,
  targets: jax.Array,
  weights: jax.Array,
  *,
  z_loss: float = 0.0,
  label_smoothing: float = 0.0,
  vocab_chunk: int | None = None,
) -> LossSums:
  """Weighted sums of the cross entropy of `targets` int32 `[B, L]`. See `token_losses` for the arguments."""
  tokens = token_losses(factored, targets, z_loss=z_loss, label_smoothing=label_smoothing, vocab_chunk=vocab_chunk)
  return tokens.sums(weights)


def token_losses(
  factored: FactoredLogits,
  targets: jax.Array,
  *,
  z_loss: float = 0.0,
  label_smoothing: float = 0.0,
  vocab_chunk: int | None = None,
) -> TokenLosses:
  """Cross entropy of every token.

  Args:
    factored: logits as hidden states `[B, L, D]` and output kernel `[V, D]`.
    targets: int32 `[B, L]`, each in `[0, V)`.
    z_loss: coefficient of log(Z)^2.
    label_smoothing: probability mass taken from the target and spread evenly over the other V - 1 tokens; in [0, 1).
    vocab_chunk: largest number of vocabulary entries whose logits may exist at a time; None computes all at once.
  """
  vocab_size = factored.kernel.shape[0]
  if vocab_chunk is None or vocab_chunk >= vocab_size:
    log_z, target_logit, logit_sum, correct = _plain_statistics(factored, targets)
  else:
    num_chunks = math.ceil(vocab_size / vocab_chunk)
    log_z, target_logit, correct = _chunked_statistics(
      factored.hidden, factored.kernel, factored.bias, targets, num_chunks
    )
    logit_sum = _logit_sum(factored)
  nll = log_z - target_logit
  loss = nll
  if label_smoothing:
    confidence, low = 1.0 - label_smoothing, label_smoothing / max(vocab_size - 1, 1)
    entropy = -(confidence * math.log(confidence) + (vocab_size - 1) * low * math.log(low + 1e-20))
    # The soft targets sum to 1, so -sum(t * log_softmax) = log_z - sum(t * logit).
    loss = log_z - (confidence - low) * target_logit - low * logit_sum - entropy
  z_term = z_loss * jnp.square(log_z)
  return TokenLosses(loss + z_term, z_term, nll, correct.astype(jnp.float32))


def _constrain(logits: jax.Array) -> jax.Array:
  return nn.with_logical_constraint(logits, (axes.ACT_BATCH, axes.ACT_LENGTH, axes.ACT_VOCAB))


def _plain_statistics(factored: FactoredLogits, targets: jax.Array) -> tuple[jax.Array, ...]:
  """`(log_z, target_logit, logit_sum, correct)`, each `[B, L]`, from the full logits."""
  logits = _constrain(factored.logits())
  # A masked sum, not a gather: its transpose is no scatter, and it stays local when the vocabulary is sharded.
  ids = jnp.arange(logits.shape[-1], dtype=targets.dtype)
  target_logit = jnp.sum(jnp.where(ids == targets[..., None], logits, 0.0), axis=-1)
  correct = jnp.argmax(logits, axis=-1).astype(targets.dtype) == targets
  return jax.nn.logsumexp(logits, axis=-1), target_logit, jnp.sum(logits, axis=-1), correct


def _logit_sum(factored: FactoredLogits) -> jax.Array:
  """Sum of all logits `[B, L]` by linearity: the hidden state times the sum of the kernel's rows."""
  kernel = factored.kernel.astype(factored.hidden.dtype).astype(jnp.float32)
  total = jnp.einsum('bld,d->bl', factored.hidden.astype(jnp.float32), jnp.sum(kernel, axis=0))
  return total if factored.bias is None else total + jnp.sum(factored.bias.astype(jnp.float32))


# --- The chunked form -------------------------------------------------------------------------------------------------
# Chunk c of C holds the ids c, C + c, 2C + c, ...: strided, so that every chunk spreads over all shards of a vocabulary
# that is sharded over `tensor`. Ids at V and above are padding and get a logit of -inf.


def _chunks(kernel: jax.Array, bias: jax.Array | None, num_chunks: int, dtype: jnp.dtype) -> tuple:
  """What the scan runs over: kernels `[C, V/C, D]`, biases `[C, V/C]` or None, chunk numbers int32 `[C]`."""
  padding = -kernel.shape[0] % num_chunks
  kernel = jnp.pad(kernel.astype(dtype), ((0, padding), (0, 0)))
  kernels = kernel.reshape(-1, num_chunks, kernel.shape[-1]).swapaxes(0, 1)
  if bias is not None:
    bias = jnp.pad(bias.astype(jnp.float32), (0, padding)).reshape(-1, num_chunks).swapaxes(0, 1)
  return kernels, bias, jnp.arange(num_chunks, dtype=jnp.int32)


def _chunk_logits(hidden: jax.Array, chunk: tuple, num_chunks: int, vocab_size: int) -> tuple[jax.Array, jax.Array]:
  """float32 logits `[B, L, V/C]` of one chunk, and the vocabulary ids int32 `[V/C]` they belong to."""
  kernel, bias, number = chunk
  logits = FactoredLogits(hidden, kernel, bias).logits()
  ids = jnp.arange(kernel.shape[0], dtype=jnp.int32) * num_chunks + number
  return _constrain(jnp.where(ids < vocab_size, logits, -jnp.inf)), ids


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _chunked_statistics(
  hidden: jax.Array, kernel: jax.Array, bias: jax.Array | None, targets: jax.Array, num_chunks: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """`(log_z, target_logit, correct)`, each `[B, L]`, by a running logsumexp over the chunks."""

  def add_chunk(carry: tuple, chunk: tuple) -> tuple[tuple, None]:
    top, exp_sum, target_logit, best_id = carry
    logits, ids = _chunk_logits(hidden, chunk, num_chunks, kernel.shape[0])
    chunk_top, chunk_best = jnp.max(logits, axis=-1), ids[jnp.argmax(logits, axis=-1)]
    better = (chunk_top > top) | ((chunk_top == top) & (chunk_best < best_id))
    new_top = jnp.maximum(top, chunk_top)
    exp_sum = exp_sum * jnp.exp(top - new_top) + jnp.sum(jnp.exp(logits - new_top[..., None]), axis=-1)
    target_logit += jnp.sum(jnp.where(ids == targets[..., None], logits, 0.0), axis=-1)
    return (new_top, exp_sum, target_logit, jnp.where(better, chunk_best, best_id)), None

  zeros = jnp.zeros(targets.shape, jnp.float32)
  start = (jnp.full_like(zeros, -jnp.inf), zeros, zeros, jnp.zeros(targets.shape, jnp.int32))
  chunks = _chunks(kernel, bias, num_chunks, hidden.dtype)
  (top, exp_sum, target_logit, best_id), _ = jax.lax.scan(add_chunk, start, chunks)
  return top + jnp.log(exp_sum), target_logit, best_id == targets


def _chunked_forward(
  hidden: jax.Array, kernel: jax.Array, bias: jax.Array | None, targets: jax.Array, num_chunks: int
) -> tuple[tuple, tuple]:
  out = _chunked_statistics(hidden, kernel, bias, targets, num_chunks)
  return out, (hidden, kernel, bias, targets, out[0])


def _chunked_backward(num_chunks: int, residuals: tuple, cotangents: tuple) -> tuple:
  """Computes each chunk's logits a second time: d logits = d log_z * softmax + d target_logit * one_hot(target)."""
  hidden, kernel, bias, targets, log_z = residuals
  d_log_z, d_target, _ = cotangents
  vocab_size = kernel.shape[0]

  def add_chunk(d_hidden: jax.Array, chunk: tuple) -> tuple[jax.Array, tuple]:
    logits, ids = _chunk_logits(hidden, chunk, num_chunks, vocab_size)
    d_logits = d_log_z[..., None] * jnp.exp(logits - log_z[..., None])
    d_logits += jnp.where(ids == targets[..., None], d_target[..., None], 0.0)
    d_bias = None if bias is None else jnp.sum(d_logits, axis=(0, 1))
    # In half precision the products take half-precision operands, as forward, and accumulate in float32.
    d_logits = _constrain(d_logits).astype(hidden.dtype)
    d_hidden += jnp.einsum('blv,vd->bld', d_logits, chunk[0], preferred_element_type=jnp.float32)
    d_kernel = jnp.einsum('blv,bld->vd', d_logits, hidden, preferred_element_type=jnp.float32)
    return d_hidden, (d_kernel, d_bias)

  chunks = _chunks(kernel, bias, num_chunks, hidden.dtype)
  d_hidden, (d_kernel, d_bias) = jax.lax.scan(add_chunk, jnp.zeros(hidden.shape, jnp.float32), chunks)
  d_kernel = d_kernel.swapaxes(0, 1).reshape(-1, kernel.shape[-1])[:vocab_size].astype(kernel.dtype)
  if bias is not None:
    d_bias = d_bias.swapaxes(0, 1).reshape(-1)[:vocab_size].astype(bias.dtype)
  return d_hidden.astype(hidden.dtype), d_kernel, d_bias, None


_chunked_statistics.defvjp(_chunked_forward, _chunked_backward)
