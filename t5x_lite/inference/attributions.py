"""`infer --mode=attributions`: how much each token of a line adds to what a model says of it.

What a model says: a classifier the logit of its class (or of `target`); BERT's masked language model the
log-probability of the likeliest token at each mask; a span head the logits of start and end; T5, GPT and XLNet the
log-probability of each of the targets, and where there are none of what T5 writes greedily, of the likeliest token that
GPT goes on with, or of the last word of what XLNet reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from t5x_lite.core import errors
from t5x_lite.core.batch import DECODER, ENCODER, INPUT_TOKENS, SEGMENT_IDS, Batch, key
from t5x_lite.inference import heads
from t5x_lite.inference.modes import Item, Options
from t5x_lite.inference.readings import TextReader
from t5x_lite.models import heads as model_heads
from t5x_lite.nn.intermediates import VECTORS
from t5x_lite.pretrained import Pretrained
from t5x_lite.research import attribution_page, attributions

PADDING, MEAN, ZERO = BASELINES = ('padding', 'mean', 'zero')
_OF_TOKENS = ('lm', 'mlm')
_OF_LABELS = ('classification', 'nsp', 'span')
_NEXT = ('is next', 'is not next')
_MOST_STEPS = 10_000
_LIKELIEST = -1


class Target(NamedTuple):
  """One thing that is asked of a line.

  Attributes:
    position: in the row that predicts.
    number: of the token or class.
    place: position that it is about, for the page; -1: the line.
  """

  position: int
  number: int
  place: int


class Attributions:
  """See `modes.Mode`. Raises UsageError where the model has no head that can be asked."""

  field = TextReader.field
  kinds = ('html',)
  columns = ('line', 'text', 'pair', 'targets', 'tokens', 'method', 'baseline', 'attributions', 'error')

  def __init__(self, model: Pretrained, options: Options):
    self._head = _head_of(model)
    choices = (('method', options.method, attributions.METHODS), ('baseline', options.baseline, BASELINES))
    for name, value, known in choices:
      if value not in known:
        raise errors.unknown(name, value, known)
    if not 1 <= options.steps <= _MOST_STEPS:
      raise errors.UsageError(f'steps is {options.steps}: expected from 1 to {_MOST_STEPS}')
    self._reader, self._options, self._model = TextReader(model, writes=True), options, model
    self._labels = _NEXT if self._head == 'nsp' else heads.label_names(model.config, model.module.config.num_labels)
    self._wanted = _LIKELIEST if options.target is None else self._number(options.target)
    question = _Question(model.module, self._head, options, self._reader.tokenizer.vocab_size)
    self._answers, self._attribute = model.jitted(question.answers), model.jitted(question.attributed)

  def _number(self, target: str) -> int:
    if self._head not in ('classification', 'nsp'):
      raise errors.UsageError(f'target={target!r} of a model with the head {self._head}: expected targets in the lines')
    if str(target) not in self._labels:
      raise errors.unknown('target', str(target), self._labels)
    return self._labels.index(str(target))

  def read(self, fields: Mapping[str, Any]) -> Item:
    """See `readings.TextReader`; of a masked language model with at least one mask.

    XLNet goes on with nothing by itself: without targets, it is asked for the last word.
    """
    item = self._reader.read(fields)
    is_xlnet = type(self._model.module).__name__ == 'Xlnet' and self._head == 'lm'
    if is_xlnet and not len(item.more.written):
      before, space, last = item.shown['text'].rstrip().rpartition(' ')
      item = self._reader.read({'text': before, 'targets': space + last}) if before else item
    if self._head == 'mlm' and not (item.ids == self._reader.tokenizer.mask_id).any():
      mask = self._reader.tokenizer.role_tokens().get('mask', '[MASK]')
      raise ValueError(f'no mask to ask for: expected {mask} in the text')
    if is_xlnet and not len(item.more.written):
      raise ValueError('one word: expected several, or "targets", which XLNet is asked for')
    if self._reader.is_pair and not len(item.more.written):
      raise ValueError('the model writes nothing for it: expected "targets"')
    return item

  def run(self, items: Sequence[Item], length: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Of each target of each line its score, and what every token adds to it."""
    each, size = heads.each_once(items), len(items)
    batch = self._reader.batch([item.more for item in items], length)
    answers = None if self._knows_targets else self._answers(batch, *self._asked_first(batch, items))
    asked = [
      (row, target)
      for row, item in enumerate(each)
      for target in self._targets(item, None if answers is None else answers[row])
    ]
    found: list[dict[str, Any]] = [{**item.shown, **self._described(batch, row)} for row, item in enumerate(each)]
    for start in range(0, len(asked), size):
      chunk = asked[start : start + size]
      filled = [*chunk, *[chunk[0]] * (size - len(chunk))]
      rows = np.asarray([row for row, _ in filled])
      own = {name: value[rows] for name, value in batch.items()}
      position, number = (np.asarray([target[i] for _, target in filled], np.int32) for i in (0, 1))
      made = self._attribute(own, self._without_content(own), position, number)
      for at, (row, target) in enumerate(chunk):
        found[row]['attributions'].append(self._told(found[row]['tokens'], target, made, at))
    by_item = {id(item): row for item, row in zip(each, found, strict=True)}
    return [by_item[id(item)] for item in items]

  @property
  def _knows_targets(self) -> bool:
    return self._head == 'lm' and type(self._model.module).__name__ != 'Gpt'

  def _asked_first(self, batch: Batch, items: Sequence[Item]) -> tuple[np.ndarray]:
    """Where tokens are predicted whose likeliest is to be found first: int32 `[B, P]`."""
    places = [self._places(item) for item in items]
    width = 1 << (max(map(len, places)) - 1).bit_length()
    return (np.asarray([[*own, *[own[0]] * (width - len(own))] for own in places], np.int32),)

  def _places(self, item: Item) -> list[int]:
    """Positions that predict."""
    reading = item.more
    if self._head == 'mlm':
      return np.flatnonzero(reading.ids == self._reader.tokenizer.mask_id).tolist()
    if self._head != 'lm':
      return [0]
    if self._reader.is_pair:
      return list(range(len(reading.written)))
    first = len(reading.ids) - (1 if type(self._model.module).__name__ == 'Gpt' else 0)
    return list(range(first, first + max(len(reading.written), 1)))

  def _targets(self, item: Item, answers: np.ndarray | None) -> list[Target]:
    places, written = self._places(item), item.more.written
    if self._head == 'span':
      assert answers is not None
      return [Target(int(answers[end]), end, int(answers[end])) for end in (0, 1)]
    if self._head in _OF_LABELS:
      assert answers is not None
      return [Target(0, int(answers[0]) if self._wanted == _LIKELIEST else self._wanted, -1)]
    if self._head == 'lm' and len(written):
      return [Target(place, int(token), place) for place, token in zip(places, written, strict=True)]
    assert answers is not None
    return [Target(place, int(token), place) for place, token in zip(places, answers, strict=False)]

  def _without_content(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The batch with padding in the place of all tokens but those of the frame around texts."""
    frame = list(self._reader.frame_ids)
    changed = dict(batch)
    for name in (key(ENCODER, INPUT_TOKENS), key(DECODER, INPUT_TOKENS)):
      if name in batch:
        kept = np.isin(batch[name], frame)
        changed[name] = np.where(kept, batch[name], self._reader.tokenizer.pad_id).astype(np.int32)
    return changed

  def _described(self, batch: Batch, row: int) -> dict[str, Any]:
    options = self._options
    told: dict[str, Any] = {'tokens': self._reader.tokens_of(batch, row), 'method': options.method}
    if options.method == attributions.INTEGRATED:
      told['baseline'] = options.baseline
    return {**told, 'attributions': []}

  def _told(self, tokens: Mapping[str, Sequence[str]], target: Target, made: Any, at: int) -> dict[str, Any]:
    if self._head in _OF_TOKENS:
      name = self._reader.tokens([target.number])[0]
    elif self._head == 'span':
      (only,) = tokens.values()
      name = f'{("start", "end")[target.number]}:{only[target.position]}'
    else:
      name = self._labels[target.number]
    own = {side: made.attributions[side][at, : len(texts)] for side, texts in tokens.items()}
    told = {'target': name, 'position': target.place, 'score': float(made.score[at])}
    if self._options.method == attributions.INTEGRATED:
      told |= {'baseline_score': float(made.baseline_score[at]), 'completeness_gap': float(made.gap[at])}
    return {**told, 'values': own}

  def render(self, rows: Sequence[Mapping[str, Any]], kind: str, title: str) -> str:
    """The page of all lines."""
    return attribution_page.render(title, rows)


def _head_of(model: Pretrained) -> str:
  """The head that is asked."""
  own = tuple(model.module.config.heads)
  found = next((head for head in own if head in (*_OF_TOKENS, *_OF_LABELS)), None)
  if found is None:
    raise errors.UsageError(
      f'model {type(model.module).__name__} has the heads {", ".join(own) or "(none)"}, which say nothing that could '
      f'be attributed: expected one of {", ".join((*_OF_TOKENS, *_OF_LABELS))}'
    )
  fresh = [each for each in model.report.fresh if each.startswith('heads/')]
  if found in _OF_LABELS and fresh:
    raise errors.UsageError(f'nobody has trained the head {found}: {", ".join(fresh)} are newly initialised')
  return found


@dataclasses.dataclass(frozen=True)
class _Question:
  """What is computed of a model: its answers, and what adds to them.

  Attributes:
    module: the model.
    head: that is asked.
    options: method, baseline and steps.
    num_tokens: of the vocabulary.
  """

  module: Any
  head: str
  options: Options
  num_tokens: int

  def answers(self, params: Any, batch: Batch, position: jax.Array) -> jax.Array:
    """What is likeliest there, int32 `[B, P]`: tokens; the class; positions of start and end."""
    logits = self._logits({'params': params}, batch, position)
    if self.head == 'span':
      side = next(side for side in (DECODER, ENCODER) if key(side, SEGMENT_IDS) in batch)
      logits = jnp.where(batch[key(side, SEGMENT_IDS)][:, None] > 0, logits, -jnp.inf)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)

  def attributed(
    self, params: Any, batch: Batch, empty: Batch, position: jax.Array, number: jax.Array
  ) -> attributions.Attributed:
    """Attributions, `[B, L]` by side.

    Args:
      params: of the model.
      batch: the input.
      empty: the same without content.
      position: int32 `[B]` of the target of each row.
      number: int32 `[B]`, its token or class.
    """

    def score(given: Any) -> jax.Array:
      logits = self._logits({'params': params, VECTORS: given}, batch, position[:, None])
      if self.head == 'span':
        return logits[jnp.arange(len(number)), number, position]
      chosen = jnp.take_along_axis(logits[:, 0], number[:, None], axis=-1)[:, 0]
      return chosen - jax.nn.logsumexp(logits[:, 0], axis=-1) if self.head in _OF_TOKENS else chosen

    def emptied(path: tuple[Any, ...], own: jax.Array, other: jax.Array) -> jax.Array:
      name = key(path[-1].key.removeprefix('of_'), INPUT_TOKENS)
      return jnp.where((batch[name] == empty[name])[..., None], own, other)

    own = self._vectors(params, batch)
    if self.options.baseline == PADDING:
      base = self._vectors(params, empty)
    else:
      mean = self._mean_vectors(params, batch)
      other = mean if self.options.baseline == MEAN else jax.tree.map(jnp.zeros_like, mean)
      base = jax.tree_util.tree_map_with_path(emptied, own, other)
    found = attributions.attribute(self.options.method, score, own, base, self.options.steps)
    leaves = jax.tree_util.tree_leaves_with_path(found.attributions)
    sides = {path[-1].key.removeprefix('of_'): leaf for path, leaf in leaves}
    return found._replace(attributions=sides)

  def _vectors(self, params: Any, batch: Batch) -> Any:
    """Of the tokens of a batch, `[B, L, D]` by side; the rest of the model is not computed."""
    variables = {'params': params}
    return self.module.apply(variables, batch, deterministic=True, method='outputs', mutable=(VECTORS,))[1][VECTORS]

  def _mean_vectors(self, params: Any, batch: Batch) -> Any:
    """The mean of the vectors of all tokens of the vocabulary, `[1, 1, D]` by side."""
    every = {name: jnp.zeros((self.num_tokens, 1), value.dtype) for name, value in batch.items()}
    for side in (ENCODER, DECODER):
      if key(side, INPUT_TOKENS) in batch:
        every[key(side, INPUT_TOKENS)] = jnp.arange(self.num_tokens, dtype=jnp.int32)[:, None]
        every[key(side, SEGMENT_IDS)] = jnp.ones((self.num_tokens, 1), jnp.int32)
    found = self._vectors(params, every)
    return jax.tree.map(lambda own: jnp.mean(own, axis=0, keepdims=True, dtype=jnp.float32).astype(own.dtype), found)

  def _logits(self, variables: Any, batch: Batch, position: jax.Array) -> jax.Array:
    """float32 `[B, P, C]`: of tokens at positions `[B, P]`; of labels `[B, 1, C]`; of spans `[B, 2, L]`."""
    if self.head in _OF_TOKENS:
      factored = self.module.apply(variables, batch, deterministic=True, method='factored_logits')
      hidden = jnp.take_along_axis(factored.hidden, position[..., None], axis=1)
      return factored.replace(hidden=hidden).logits()
    outputs = self.module.apply(variables, batch, deterministic=True, method='outputs')
    logits = outputs[model_heads.OUTPUTS[self.head]]
    return logits.swapaxes(1, 2) if self.head == 'span' else logits[:, None]
