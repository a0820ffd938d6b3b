"""Calling a module as one calls its counterpart in transformers: arguments to batch keys, outputs to names, losses.

Which keys a family reads follows from the sides that it has (see `core.batch`): T5 both, BERT the encoder, GPT and
XLNet the decoder, whose input is not shifted here: the caller of transformers passes what the model reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5x_lite.core.batch import (
  DECODER,
  ENCODER,
  INPUT_TOKENS,
  POOL_POSITION,
  POSITIONS,
  SEGMENT_IDS,
  TOKEN_TYPE_IDS,
  key,
)
from t5x_lite.core.errors import UsageError, unknown
from t5x_lite.interop import call_checks
from t5x_lite.interop.call_checks import IGNORED

_SIDES = {'T5': (ENCODER, DECODER), 'Bert': (ENCODER,), 'Gpt': (DECODER,), 'Xlnet': (DECODER,)}
_INPUTS = {
  'T5': ('input_ids', 'attention_mask', 'decoder_input_ids', 'decoder_attention_mask'),
  'Bert': ('input_ids', 'attention_mask', 'token_type_ids', 'position_ids'),
  'Gpt': ('input_ids', 'attention_mask', 'position_ids'),
  'Xlnet': ('input_ids', 'attention_mask', 'token_type_ids', 'perm_mask', 'target_mapping', 'mems'),
}
# Of heads with one output: ours, which is `logits` there.
_SINGLE = {
  'lm': 'lm_logits',
  'mlm': 'lm_logits',
  'nsp': 'nsp_logits',
  'classification': 'classification_logits',
  'multiple_choice': 'choice_logits',
  'tagging': 'tagging_logits',
}
# What transformers' models return under the names that we have, too.
_SHARED = ('last_hidden_state', 'encoder_last_hidden_state', 'pooler_output')


def split_arguments(
  module: Any, arguments: Mapping[str, Any], config: Mapping[str, Any] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """What a call passes, as `(inputs, targets)` in NumPy, int32 or float32; None is as if not passed.

  Args:
    module: ours.
    arguments: by the names of transformers.
    config: theirs, for the kind of classification; None: it says nothing of it.

  Raises:
    UsageError: an argument that this family does not have, whose shape, dtype or range is not what the model reads, or
      a target that no head has.
  """
  family = type(module).__name__
  if family not in _INPUTS:
    raise UsageError(f'{family} has no counterpart in Hugging Face, whose arguments it could be called with')
  known = (*_INPUTS[family], *call_checks.TARGETS)
  if not getattr(module.config, 'num_decoder_layers', 1):
    known = tuple(name for name in known if not name.startswith('decoder_'))
  given = {name: value for name, value in arguments.items() if value is not None}
  for name in given:
    if name not in known:
      raise unknown(f'argument of {family}', name, known)
  if 'input_ids' not in given:
    raise UsageError('input_ids is missing')
  arrays = {name: call_checks.as_array(name, value) for name, value in given.items()}
  call_checks.check_inputs(module, arrays)
  call_checks.check_targets(module, config or {}, arrays)
  cast = {name: value.astype(np.float32 if value.dtype.kind == 'f' else np.int32) for name, value in arrays.items()}
  inputs = {name: value for name, value in cast.items() if name not in call_checks.TARGETS}
  return inputs, {name: value for name, value in cast.items() if name in call_checks.TARGETS}


def batch_of(
  module: Any, config: Mapping[str, Any], inputs: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """The batch that a module reads, for the inputs of its counterpart.

  Args:
    module: ours.
    config: theirs, for the ids of special tokens.
    inputs: from `split_arguments`.
    targets: from `split_arguments`; T5 makes its decoder's input of the labels where there is none.
  """
  sides = _SIDES[type(module).__name__]
  inputs = {name: _flattened(name, value) for name, value in inputs.items()}
  batch = _side(sides[0], inputs, '')
  if sides == (ENCODER, DECODER):
    if not module.config.num_decoder_layers:
      return batch
    return batch | _side(DECODER, _with_decoder_inputs(module, inputs, targets, config), 'decoder_')
  tokens = inputs['input_ids']
  if 'position_ids' in inputs:
    positions = inputs['position_ids'] - getattr(module.config, 'first_position', 0)
    batch[key(sides[0], POSITIONS)] = np.broadcast_to(positions, tokens.shape).astype(np.int32)
  elif getattr(module.config, 'first_position', 0):
    # RoBERTa counts what is not the padding token, and leaves padding on the row before the first position.
    real = (tokens != config.get('pad_token_id', 1)).astype(np.int32)
    batch[key(sides[0], POSITIONS)] = np.cumsum(real, axis=1, dtype=np.int32) * real - 1
  if 'token_type_ids' in inputs:
    batch[key(sides[0], TOKEN_TYPE_IDS)] = inputs['token_type_ids']
  for name in ('perm_mask', 'target_mapping'):
    if name in inputs:
      batch[key(sides[0], name)] = inputs[name]
  if sides == (DECODER,) and {'classification', 'multiple_choice'} & set(module.config.heads):
    batch[key(DECODER, POOL_POSITION)] = _pool_position(module, config, inputs)
  return batch


def _pool_position(module: Any, config: Mapping[str, Any], inputs: Mapping[str, np.ndarray]) -> np.ndarray:
  """The position that a classifier reads of every row, int32 `[B]`; no attention mask changes it."""
  tokens = inputs['input_ids']
  rows, length = tokens.shape
  pad = config.get('pad_token_id')
  if type(module).__name__ == 'Xlnet':  # the last, be it padding: XLNet is padded on the left
    last = inputs['target_mapping'].shape[1] if 'target_mapping' in inputs else length
    return np.full(rows, last - 1, np.int32)
  if pad is None:
    if rows > 1:
      raise UsageError(
        f'input_ids has {rows} rows: expected one, or a pad_token_id in config.json, by which to find their ends'
      )
    return np.full(rows, length - 1, np.int32)
  return np.max(np.where(tokens != pad, np.arange(length), 0), axis=1).astype(np.int32)


def _flattened(name: str, value: np.ndarray) -> np.ndarray:
  """`[batch, choices, length]` as `[batch * choices, length]`."""
  three = value.ndim == 3 and name not in ('perm_mask', 'target_mapping')
  return value.reshape(-1, value.shape[-1]) if three else value


def _side(side: str, inputs: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
  tokens = inputs[f'{prefix}input_ids']
  mask = inputs.get(f'{prefix}attention_mask')
  places = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
  return {
    key(side, INPUT_TOKENS): tokens.astype(np.int32),
    key(side, SEGMENT_IDS): np.ones(tokens.shape, np.int32) if mask is None else (mask != 0).astype(np.int32),
    key(side, POSITIONS): places,
  }


def _with_decoder_inputs(
  module: Any, inputs: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """`inputs` with those of the decoder.

  Where they are not given they are the labels, shifted right; with a task head, the inputs, of which a classifier reads
  up to the last end of sequence.
  """
  with_lm = 'lm' in module.config.heads
  following = targets.get('labels') if with_lm else inputs['input_ids']
  out = dict(inputs)
  if 'decoder_input_ids' not in inputs:
    if following is None:
      raise UsageError('decoder_input_ids is missing: expected it, or labels')
    pad = config.get('pad_token_id') or 0
    start = config.get('decoder_start_token_id')
    first = np.full((following.shape[0], 1), pad if start is None else start, np.int32)
    shifted = np.concatenate([first, following[:, :-1]], axis=1)
    out['decoder_input_ids'] = np.where(shifted == IGNORED, pad, shifted)
  if 'classification' in module.config.heads and 'decoder_attention_mask' not in inputs:
    ends = inputs['input_ids'] == config.get('eos_token_id', 1)
    if not ends.any(axis=1).all():
      raise UsageError('input_ids has rows without an end of sequence, which is what the classifier reads')
    out['decoder_attention_mask'] = np.cumsum(ends[:, ::-1], axis=1)[:, ::-1] > 0
  return out


def named_outputs(module: Any, outputs: Mapping[str, jax.Array], choices: int | None = None) -> dict[str, jax.Array]:
  """Outputs of a module by the names of transformers; traceable.

  One head's output is `logits`; of span answering it is `start_logits` and `end_logits`, of BERT's pretraining
  `prediction_logits` and `seq_relationship_logits`. The last hidden states are there always.

  Args:
    module: ours.
    outputs: of its method of that name.
    choices: rows that belong to one question of multiple choice.
  """
  named = {name: outputs[name] for name in _SHARED if name in outputs}
  heads = module.config.heads
  head = call_checks.labelled_head(heads)
  if call_checks.is_pretraining(heads):
    named['prediction_logits'] = outputs['lm_logits']
    named['seq_relationship_logits'] = outputs['nsp_logits']
  elif head is not None:
    named['logits'] = outputs[_SINGLE[head]]
  if 'span' in heads:
    named['start_logits'], named['end_logits'] = outputs['span_logits'][..., 0], outputs['span_logits'][..., 1]
  if head == 'multiple_choice' and choices is not None:
    named['logits'] = named['logits'].reshape(-1, choices)
  if 'mems' in outputs:
    # Theirs are a tuple over layers of [length, batch, D].
    named['mems'] = jnp.swapaxes(outputs['mems'], 1, 2)
  return named


# --- Losses, as the classes of transformers compute them --------------------------------------------------------------


def loss_of(
  module: Any, config: Mapping[str, Any], named: Mapping[str, jax.Array], targets: Mapping[str, jax.Array]
) -> jax.Array | None:
  """The loss for the targets, a float32 scalar; None where there are none. Traceable."""
  if 'start_positions' in targets:
    return _span_loss(named, targets)
  if 'labels' not in targets:
    return None
  labels, head = targets['labels'], call_checks.labelled_head(module.config.heads)
  if call_checks.is_pretraining(module.config.heads):
    masked = cross_entropy(named['prediction_logits'], labels)
    return masked + cross_entropy(named['seq_relationship_logits'], targets['next_sentence_label'].reshape(-1))
  logits = named['logits']
  if head == 'classification':
    return _classification_loss(logits, labels, config, module.config.num_labels)
  if type(module).__name__ == 'Gpt' and head == 'lm':  # its labels are its inputs, not shifted
    return cross_entropy(logits[:, :-1], labels[:, 1:])
  return cross_entropy(logits, labels)


def cross_entropy(logits: jax.Array, labels: jax.Array, ignored: jax.Array | int = IGNORED) -> jax.Array:
  """Mean negative log-likelihood of the labels that are not ignored; NaN where all are."""
  logits = logits.astype(jnp.float32).reshape(-1, logits.shape[-1])
  labels = labels.reshape(-1)
  counted = labels != ignored
  wanted = jnp.where(counted, labels, 0)
  likelihood = jnp.take_along_axis(jax.nn.log_softmax(logits), wanted[:, None], axis=1)[:, 0]
  return -jnp.sum(jnp.where(counted, likelihood, 0.0)) / jnp.sum(counted.astype(jnp.float32))


def _span_loss(named: Mapping[str, jax.Array], targets: Mapping[str, jax.Array]) -> jax.Array:
  length = named['start_logits'].shape[1]
  losses = [
    # A position beyond the input is not counted.
    cross_entropy(named[f'{end}_logits'], jnp.clip(targets[f'{end}_positions'].reshape(-1), 0, length), length)
    for end in ('start', 'end')
  ]
  return (losses[0] + losses[1]) / 2.0


def _classification_loss(logits: jax.Array, labels: jax.Array, config: Mapping[str, Any], num_labels: int) -> jax.Array:
  problem = call_checks.problem_type(config, num_labels, whole=jnp.issubdtype(labels.dtype, jnp.integer))
  if problem == 'regression':
    return jnp.mean(jnp.square(logits.reshape(-1) - labels.astype(jnp.float32).reshape(-1)))
  if problem == 'single_label_classification':
    return cross_entropy(logits, labels)
  truth = labels.astype(jnp.float32).reshape(logits.shape)
  return -jnp.mean(truth * jax.nn.log_sigmoid(logits) + (1.0 - truth) * jax.nn.log_sigmoid(-logits))
