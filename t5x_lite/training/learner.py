"""What is learned and how: the module, its loss and normaliser, and the gradient over microbatches."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from t5x_lite import label_losses, losses
from t5x_lite.core import axes, errors, tree
from t5x_lite.core import batch as batch_lib
from t5x_lite.core.batch import Batch
from t5x_lite.core.logits import LABEL_LOGITS, LAYER_LOSSES
from t5x_lite.training import adaptation
from t5x_lite.training.adaptation import Lora
from t5x_lite.training.predicted import losses_of_predicted
from t5x_lite.training.schedules import Schedule


class LossNormalizer(enum.StrEnum):
  """What T5X's loss_normalizing_factor may say in words.

  Attributes:
    NUM_REAL_TARGET_TOKENS: divide by the sum of the loss weights of the batch.
    NUM_TOTAL_TARGET_TOKENS: divide by batch size times target length, padding included.
    AVERAGE_PER_SEQUENCE: the mean of each sequence first (each example of a packed row is one), then the mean of those.
  """

  NUM_REAL_TARGET_TOKENS = 'NUM_REAL_TARGET_TOKENS'
  NUM_TOTAL_TARGET_TOKENS = 'NUM_TOTAL_TARGET_TOKENS'
  AVERAGE_PER_SEQUENCE = 'AVERAGE_PER_SEQUENCE'


def parse_normalizer(value: float | str | None) -> float | LossNormalizer | None:
  """A loss_normalizing_factor as given by a user.

  Raises:
    UsageError: for an unknown word or a constant that is not positive.
  """
  if isinstance(value, str):
    if value.upper() not in LossNormalizer.__members__:
      raise errors.unknown('loss_normalizing_factor', value, LossNormalizer.__members__)
    return LossNormalizer[value.upper()]
  if value is not None and not value > 0:
    raise errors.UsageError(f'loss_normalizing_factor={value}: expected a positive number, None or a name')
  return value


def objective_weights(
  batch: Batch, factor: float | str | None, class_weights: Sequence[float] | None = None
) -> tuple[jax.Array, jax.Array]:
  """`(weights float32 [B, L], normalizer float32 scalar)`: the objective is sum(weights * loss) / normalizer.

  Must see the whole batch: a microbatch with its own normaliser would weigh its tokens unlike the others'. Where labels
  are all that is learned they are the targets, and `class_weights` count.
  """
  if batch_lib.is_labelled(batch):
    side, weights = batch_lib.labelled_side(batch), label_losses.weights_of_batch(batch, class_weights)
  else:
    side, weights = batch_lib.predicting_side(batch), batch_lib.targets(batch)[1].astype(jnp.float32)
  factor = parse_normalizer(factor)
  match factor:
    case None:
      return weights, jnp.ones((), jnp.float32)
    case LossNormalizer.NUM_REAL_TARGET_TOKENS:
      total = jnp.sum(weights)
    case LossNormalizer.NUM_TOTAL_TARGET_TOKENS:
      return weights, jnp.full((), weights.size, jnp.float32)
    case LossNormalizer.AVERAGE_PER_SEQUENCE:
      segments = batch[batch_lib.key(side, batch_lib.SEGMENT_IDS)]
      per_sequence = _sum_within_segments(weights, segments)
      weights = jnp.where(per_sequence > 0, weights / jnp.where(per_sequence > 0, per_sequence, 1.0), 0.0)
      total = jnp.sum(weights)
    case _:
      return weights, jnp.full((), factor, jnp.float32)
  return weights, jnp.where(total > 0, total, 1.0)  # a batch of nothing but padding costs nothing


def label_weights(batch: Batch, weights: jax.Array) -> jax.Array | None:
  """The objective's weights of the labels of examples, float32 `[B, L]`; None where there are none.

  In BERT the loss is the mean over the predicted tokens plus the mean over the pairs (`run_pretraining.py`). So labels
  together weigh as much as all targets do, whatever the normaliser. Must see the whole batch, as `objective_weights`.

  Args:
    batch: the rows.
    weights: the objective's weights of the targets.
  """
  if batch_lib.is_labelled(batch) or not batch_lib.has_labels(batch):
    return None
  own = batch_lib.labels(batch)[1].astype(jnp.float32)
  total = jnp.sum(own)
  return own * (jnp.sum(weights) / jnp.where(total > 0, total, 1.0))


def _sum_within_segments(weights: jax.Array, segments: jax.Array) -> jax.Array:
  """For every position of `[B, L]`, the sum of the weights of its segment."""

  def row(weights: jax.Array, segments: jax.Array) -> jax.Array:
    return jax.ops.segment_sum(weights, segments, num_segments=weights.shape[0] + 1)[segments]

  return jax.vmap(row)(weights, segments)


@dataclasses.dataclass(frozen=True)
class Learner:
  """A module, its loss and its optimiser.

  Attributes:
    module: a linen module of the language model protocol (`factored_logits`); where the labels of examples are all
      that is learned, one with a head for them (`label_logits`).
    optimizer: turns gradients into updates.
    learning_rate: the schedule inside `optimizer`, for the log.
    z_loss: coefficient of log(Z)^2; T5 uses 1e-4.
    label_smoothing: probability mass spread over the wrong tokens, classes or choices.
    loss_normalizing_factor: what the summed loss is divided by before its gradient is taken: nothing (None), a
      constant, or a member of `LossNormalizer`. The reported loss is always per weighted token.
    num_microbatches: the gradient is accumulated over this many parts of the batch.
    vocab_chunk: most vocabulary entries whose logits exist at a time; None: all.
    similarity_scale: where texts are compared, what their cosines are multiplied by: one over the temperature (see
      `label_losses.alike`).
    max_predictions: most predicted positions of a row in training (see `training.predicted`); None: not known. A run
      takes it from its objective, where that tells.
    class_weights: what the examples of each class, or words of each tag, count in the objective; None: 1. With the
      normaliser NUM_REAL_TARGET_TOKENS it is torch's weighted mean. The reported loss is without them.
    lora: low-rank updates instead of training all parameters; None: none.
    trained: regular expressions, looked for in the names of parameters: with them, those parameters are all that is
      trained (beside `lora`): adapters, a soft prompt, a head. None: all are.
    frozen: regular expressions, looked for in the names of parameters, of those that are not trained.
    skip_nonfinite: leave parameters and optimiser state as they are where the loss or its gradient is not finite, all
      but the count of the optimiser's schedule: the learning rate goes on with the step.
  """

  module: nn.Module
  optimizer: optax.GradientTransformation
  learning_rate: Schedule | float
  z_loss: float = 0.0
  label_smoothing: float = 0.0
  similarity_scale: float = 20.0
  loss_normalizing_factor: float | str | None = None
  num_microbatches: int = 1
  vocab_chunk: int | None = None
  max_predictions: int | None = None
  class_weights: tuple[float, ...] | None = None
  lora: Lora | None = None
  trained: tuple[str, ...] | None = None
  frozen: tuple[str, ...] = ()
  skip_nonfinite: bool = False

  def __post_init__(self):
    parse_normalizer(self.loss_normalizing_factor)
    if not 0.0 <= self.label_smoothing < 1.0:
      raise errors.UsageError(f'label_smoothing={self.label_smoothing}: expected at least 0 and less than 1')
    if not self.similarity_scale > 0.0:
      raise errors.UsageError(f'similarity_scale={self.similarity_scale}: expected more than 0')
    if not self.z_loss >= 0.0:
      raise errors.UsageError(f'z_loss={self.z_loss}: expected at least 0')
    for name in ('num_microbatches', 'vocab_chunk', 'max_predictions'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise errors.UsageError(f'{name}={value}: expected at least 1')
    for pattern in (*self.frozen, *(self.trained or ())):
      adaptation.check_pattern(pattern)

  def init(self, params_key: jax.Array, batch: Batch) -> Any:
    """Parameters, boxed with the logical names of their axes."""
    boxed = self.module.init({'params': params_key}, batch)['params']
    adaptation.check_found(self.trained, tree.named_leaves(nn.meta.unbox(boxed)))
    return boxed if self.lora is None else self.lora.add(boxed, params_key)

  def is_trained(self, name: str) -> bool:
    """Whether the parameter of a name is trained."""
    if adaptation.matches(name, self.frozen):
      return False
    if self.lora is None and self.trained is None:
      return True
    if adaptation.is_update(name):
      return not name.endswith(adaptation.SCALE)
    return adaptation.matches(name, (*(self.trained or ()), *(() if self.lora is None else self.lora.trained)))

  @property
  def trains_all(self) -> bool:
    """Whether every parameter is trained."""
    return self.lora is None and self.trained is None and not self.frozen

  @property
  def transformation(self) -> optax.GradientTransformation:
    """The optimiser, of what is trained."""
    return self.optimizer if self.trains_all else adaptation.of_trained(self.optimizer, self.is_trained)

  def learning_rate_at(self, step: Any) -> jax.Array:
    """The learning rate of a step, a float32 scalar."""
    rate = self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate
    return jnp.asarray(rate, jnp.float32)

  def full_params(self, params: Any) -> Any:
    """What the module itself takes for parameters: updates merged, and no gradient of what is not trained."""
    if self.trains_all:
      return params
    held = adaptation.held_back(params, self.is_trained)
    return held if self.lora is None else adaptation.merged(held)

  def apply(self, params: Any, batch: Batch, **options: Any) -> Any:
    """`module.apply` with parameters as the train state has them."""
    return self.module.apply({'params': self.full_params(params)}, batch, **options)

  def token_losses(
    self, params: Any, batch: Batch, dropout_key: jax.Array | None = None
  ) -> tuple[losses.TokenLosses, jax.Array, jax.Array | None]:
    """The losses of every target of the batch; what the layers add (mixtures of experts: see `nn.moe`), a scalar; and
    float32 logits `[B, L, C]` of the labels of examples, None where there are none.

    With a key in training mode, without deterministic.

    Raises:
      UsageError: the batch has labels, and the model no head for them.
    """
    rngs = {} if dropout_key is None else {'dropout': dropout_key}
    factored, left = self.apply(
      params,
      batch,
      deterministic=dropout_key is None,
      rngs=rngs,
      mutable=(LAYER_LOSSES, LABEL_LOGITS),
      method='factored_logits',
    )
    loss = functools.partial(
      losses.token_losses, z_loss=self.z_loss, label_smoothing=self.label_smoothing, vocab_chunk=self.vocab_chunk
    )
    # Held-out data may be of another objective: what bounds the predictions of a row is known in training only.
    most = None if dropout_key is None else self.max_predictions
    tokens = losses_of_predicted(loss, factored, *batch_lib.targets(batch), most)
    of_layers = jax.tree.leaves(left.get(LAYER_LOSSES, {}))
    logits = jax.tree.leaves(left.get(LABEL_LOGITS, {}))
    if batch_lib.has_labels(batch) and not logits:
      raise errors.UsageError(f'examples have labels, and {type(self.module).__name__} no head for them: expected nsp')
    return tokens, sum(map(jnp.sum, of_layers), jnp.zeros((), jnp.float32)), logits[0] if logits else None

  def losses_of_labels(
    self, params: Any, batch: Batch, dropout_key: jax.Array | None = None
  ) -> tuple[label_losses.LabelLosses, jax.Array]:
    """The losses of labels that are all that a batch has, and what the layers add. With a key in training mode."""
    rngs = {} if dropout_key is None else {'dropout': dropout_key}
    logits, left = self.apply(
      params,
      batch,
      deterministic=dropout_key is None,
      rngs=rngs,
      mutable=(LAYER_LOSSES,),
      method='label_logits',
    )
    of_layers = jax.tree.leaves(left.get(LAYER_LOSSES, {}))
    added = sum(map(jnp.sum, of_layers), jnp.zeros((), jnp.float32))
    return label_losses.of_batch(logits, batch, self.label_smoothing, self.similarity_scale), added

  def sums(self, params: Any, batch: Batch) -> losses.LossSums | label_losses.LabelSums:
    """Loss sums of a batch, deterministic."""
    if batch_lib.is_labelled(batch):
      return self.losses_of_labels(params, batch)[0].sums(label_losses.weights_of_batch(batch))
    tokens, _, logits = self.token_losses(params, batch)
    return _sums(tokens, logits, batch)

  def loss(
    self,
    params: Any,
    batch: Batch,
    weights: tuple[jax.Array, jax.Array | None],
    normalizer: jax.Array,
    dropout_key: jax.Array,
  ) -> tuple[jax.Array, losses.LossSums | label_losses.LabelSums]:
    """`(objective, sums)` of a batch or a microbatch, in training mode.

    What layers add counts once for every target, as the loss of a target does, whatever the normaliser.

    Args:
      params: the parameters.
      batch: the rows.
      weights: the objective's weights of the targets of these rows and of their labels, float32 `[B, L]`.
      normalizer: what the whole batch's objective is divided by.
      dropout_key: the key of these rows.
    """
    of_targets, of_labels = weights
    if batch_lib.is_labelled(batch):
      each, of_layers = self.losses_of_labels(params, batch, dropout_key)
      objective = jnp.sum(each.loss * of_targets) + of_layers * jnp.sum(of_targets)
      return objective / normalizer, each.sums(label_losses.weights_of_batch(batch))
    tokens, of_layers, logits = self.token_losses(params, batch, dropout_key)
    objective = jnp.sum(tokens.loss * of_targets) + of_layers * jnp.sum(of_targets)
    if logits is not None and of_labels is not None:
      objective += label_losses.label_sums(logits, batch_lib.labels(batch)[0], of_labels).loss
    return objective / normalizer, _sums(tokens, logits, batch)

  def gradients(
    self, params: Any, batch: Batch, dropout_key: jax.Array
  ) -> tuple[Any, jax.Array, losses.LossSums | label_losses.LabelSums]:
    """`(gradients, objective, sums)` over the whole batch; the same for any number of microbatches, dropout aside.

    Microbatch i draws its dropout from `fold_in(dropout_key, i)`.
    """
    if self.num_microbatches > 1 and batch_lib.compares_texts(batch):
      raise errors.UsageError(
        f'num_microbatches is {self.num_microbatches}, and every text is told from all others of the batch: expected '
        'NUM_MICROBATCHES = 1, with remat_policy for less memory'
      )
    of_targets, normalizer = objective_weights(batch, self.loss_normalizing_factor, self.class_weights)
    weights = (of_targets, label_weights(batch, of_targets))

    def step(part: tuple[dict, Any, jax.Array]) -> tuple[Any, jax.Array, Any]:
      batch, weights, index = part
      key = jax.random.fold_in(dropout_key, index)
      (objective, sums), grads = jax.value_and_grad(self.loss, has_aux=True)(params, batch, weights, normalizer, key)
      return grads, objective, sums

    if self.num_microbatches == 1:
      return step((dict(batch), weights, jnp.zeros((), jnp.int32)))
    parts = (*split_microbatches((dict(batch), weights), self.num_microbatches), jnp.arange(self.num_microbatches))
    shapes = jax.eval_shape(step, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), shapes)
    total, _ = jax.lax.scan(lambda carry, part: (jax.tree.map(_add, carry, step(part)), None), zeros, parts)
    return total


def _sums(tokens: losses.TokenLosses, logits: jax.Array | None, batch: Batch) -> losses.LossSums:
  """Sums over the targets of a batch, and over the labels of its examples."""
  labels = None if logits is None else label_losses.label_sums(logits, *batch_lib.labels(batch))
  return tokens.sums(batch_lib.targets(batch)[1], labels)


def _add(total: jax.Array, part: jax.Array) -> jax.Array:
  return total + part.astype(jnp.float32)


def split_microbatches(batch: Any, num_microbatches: int) -> Any:
  """Cuts arrays `[B, ...]` into `[G, B / G, ...]`, row r into microbatch r mod G.

  Interleaved, so that a device that holds a run of rows has its share of every microbatch, and none has to move.
  """

  def split(x: jax.Array) -> jax.Array:
    if x.shape[0] % num_microbatches:
      raise errors.UsageError(f'num_microbatches={num_microbatches} does not divide a batch of {x.shape[0]} rows')
    parts = x.reshape(-1, num_microbatches, *x.shape[1:]).swapaxes(0, 1)
    return nn.with_logical_constraint(parts, (None, axes.ACT_BATCH) + (None,) * (x.ndim - 1))

  return jax.tree.map(split, batch)
