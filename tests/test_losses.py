"""Cross entropy: T5X's numbers, and chunks that change nothing but memory."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from t5x_lite import losses
from t5x_lite.core.logits import FactoredLogits
from t5x_lite.partitioning import mesh as mesh_lib
from t5x_lite.partitioning import rules, sharding

ROWS, LENGTH, WIDTH, VOCAB = 4, 6, 5, 37


def make(bias=True, dtype=jnp.float32, vocab=VOCAB):
  rng = np.random.default_rng(0)
  hidden = jnp.asarray(2 * rng.normal(size=(ROWS, LENGTH, WIDTH)), dtype)
  kernel = jnp.asarray(rng.normal(size=(vocab, WIDTH)), jnp.float32)
  factored = FactoredLogits(hidden, kernel, jnp.asarray(rng.normal(size=vocab), jnp.float32) if bias else None)
  targets = jnp.asarray(rng.integers(0, vocab, (ROWS, LENGTH)), jnp.int32)
  weights = jnp.asarray(rng.choice([0.0, 0.5, 1.0], (ROWS, LENGTH)), jnp.float32)
  return factored, targets, weights


def assert_close(found, expected):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), found, expected)


def oracle(factored, targets, weights, z_loss, label_smoothing):
  """T5X's compute_weighted_cross_entropy with explicit soft targets, in float64."""
  hidden, kernel = np.asarray(factored.hidden, np.float64), np.asarray(factored.kernel, np.float64)
  logits = hidden @ kernel.T + np.asarray(factored.bias, np.float64)
  log_z = np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
  confidence, low = 1 - label_smoothing, label_smoothing / (VOCAB - 1)
  one_hot = np.asarray(targets)[..., None] == np.arange(VOCAB)
  soft = np.where(one_hot, confidence, low)
  constant = -(confidence * np.log(confidence) + (VOCAB - 1) * low * np.log(low + 1e-20))
  weights = np.asarray(weights, np.float64)
  z_term = z_loss * log_z[..., 0] ** 2
  return {
    'loss': np.sum(weights * (-np.sum(soft * (logits - log_z), axis=-1) - constant + z_term)),
    'z_loss': np.sum(weights * z_term),
    'nll': np.sum(weights * -np.sum(one_hot * (logits - log_z), axis=-1)),
    'correct': np.sum(weights * (np.argmax(logits, axis=-1) == np.asarray(targets))),
    'weight': np.sum(weights),
  }


@pytest.mark.parametrize('chunk', [None, 8])
@pytest.mark.parametrize(('z_loss', 'label_smoothing'), [(0.0, 0.0), (1e-2, 0.0), (1e-2, 0.1)])
def test_sums_are_those_of_t5x(chunk, z_loss, label_smoothing):
  batch = make()
  sums = losses.cross_entropy(*batch, z_loss=z_loss, label_smoothing=label_smoothing, vocab_chunk=chunk)
  for name, value in oracle(*batch, z_loss, label_smoothing).items():
    assert getattr(sums, name).dtype == jnp.float32
    np.testing.assert_allclose(getattr(sums, name), value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_perfect_prediction_costs_nothing_under_label_smoothing():
  smoothing = 0.1
  wrong = np.log(smoothing / (VOCAB - 1))
  kernel = np.full((VOCAB, VOCAB), wrong) + (np.log(1 - smoothing) - wrong) * np.eye(VOCAB)
  hidden = jnp.eye(VOCAB, dtype=jnp.float32)[None]
  targets = jnp.arange(VOCAB, dtype=jnp.int32)[None]
  sums = losses.cross_entropy(
    FactoredLogits(hidden, jnp.asarray(kernel, jnp.float32)), targets, jnp.ones((1, VOCAB)), label_smoothing=smoothing
  )
  np.testing.assert_allclose(sums.loss / VOCAB, 0.0, atol=1e-6)
  assert sums.nll > 1.0


@pytest.mark.parametrize(('chunk', 'bias'), [(1, True), (8, True), (8, False), (36, True)])
def test_chunked_equals_plain_with_gradients(chunk, bias):
  factored, targets, weights = make(bias)

  def objective(factored, chunk):
    sums = losses.cross_entropy(factored, targets, weights, z_loss=1e-2, label_smoothing=0.1, vocab_chunk=chunk)
    return sums.loss, sums

  grad = jax.jit(jax.value_and_grad(objective, has_aux=True), static_argnums=1)
  (_, plain), plain_grads = grad(factored, None)
  (_, chunked), chunked_grads = grad(factored, chunk)
  assert_close(chunked, plain)
  assert_close(chunked_grads, plain_grads)
  assert float(jnp.max(jnp.abs(plain_grads.kernel))) > 0.1


def test_chunked_never_has_the_full_logits():
  factored, targets, weights = make()

  def objective(factored, chunk):
    return losses.cross_entropy(factored, targets, weights, label_smoothing=0.1, vocab_chunk=chunk).loss

  for chunk, present in ((None, True), (8, False)):
    text = jax.jit(jax.grad(objective), static_argnums=1).lower(factored, chunk).as_text()
    sizes = (f'{ROWS}x{LENGTH}x{size}x' for size in range(VOCAB, VOCAB + 8))
    assert any(size in text for size in sizes) == present


def test_ties_go_to_the_lowest_id_in_both_forms():
  factored, _, weights = make(bias=False)
  factored = factored.replace(kernel=jnp.zeros_like(factored.kernel))
  for target in (0, 5):
    targets = jnp.full(weights.shape, target, jnp.int32)
    for chunk in (None, 8):
      sums = losses.cross_entropy(factored, targets, weights, vocab_chunk=chunk)
      assert sums.correct == (sums.weight if target == 0 else 0)


def test_weight_zero_tokens_have_no_gradient():
  factored, targets, weights = make()
  gradient = jax.grad(lambda f, chunk: losses.cross_entropy(f, targets, weights, vocab_chunk=chunk).loss)
  for chunk in (None, 8):
    grads = jax.jit(gradient, static_argnums=1)(factored, chunk)
    moved = jnp.any(grads.hidden != 0, axis=-1)
    np.testing.assert_array_equal(moved, weights > 0)


def test_half_precision_hidden_states_give_float32_losses_and_the_same_gradients():
  factored, targets, weights = make(dtype=jnp.bfloat16)
  grad = jax.value_and_grad(lambda f, chunk: losses.cross_entropy(f, targets, weights, vocab_chunk=chunk).loss)
  grad = jax.jit(grad, static_argnums=1)
  plain, plain_grads = grad(factored, None)
  chunked, chunked_grads = grad(factored, 8)
  assert plain.dtype == chunked.dtype == jnp.float32
  np.testing.assert_allclose(chunked, plain, rtol=1e-5)
  assert chunked_grads.hidden.dtype == jnp.bfloat16
  assert chunked_grads.kernel.dtype == jnp.float32
  np.testing.assert_allclose(chunked_grads.kernel, plain_grads.kernel, atol=0.05, rtol=0.02)


@pytest.mark.parametrize('chunk', [None, 10])
def test_vocabulary_sharded_over_tensor(chunk):
  factored, targets, weights = make(vocab=40)
  mesh = mesh_lib.make_mesh(mesh_lib.MeshShape(data=2, fsdp=2, tensor=2))

  def objective(factored, targets, weights, chunk):
    sums = losses.cross_entropy(factored, targets, weights, z_loss=1e-2, label_smoothing=0.1, vocab_chunk=chunk)
    return sums.loss, sums

  grad = jax.value_and_grad(objective, has_aux=True)
  rows, columns = NamedSharding(mesh, PartitionSpec(('data', 'fsdp'))), NamedSharding(mesh, PartitionSpec('tensor'))
  table = FactoredLogits(rows, columns, columns)
  with sharding.scope(mesh, rules.STANDARD_RULES):
    sharded = jax.jit(
      functools.partial(grad, chunk=chunk), in_shardings=(table, rows, rows), out_shardings=((None, None), table)
    )
    compiled = sharded.lower(factored, targets, weights).compile()
  assert_close(compiled(factored, targets, weights), jax.jit(grad, static_argnums=3)(factored, targets, weights, None))
  # Every device works on its own half of the vocabulary: sums and maxima cross the mesh, rows of the kernel never do.
  moves = re.findall(r'= (.*?) (?:all-gather|all-to-all|collective-permute)\(', compiled.as_text())
  assert 'all-reduce(' in compiled.as_text()
  assert not [shapes for shapes in moves if f',{WIDTH}]' in shapes]
