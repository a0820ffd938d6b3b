"""From lines of text to lines of JSON: what `python -m t5x_lite.infer` does between its input and its output.

Inputs are taken in windows; within a window they are grouped by length, so that only a few shapes are compiled, and
written in the order they came in.
"""

from __future__ import annotations

import collections
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from t5x_lite.core.batch import DECODER, ENCODER, INPUT_TOKENS, POSITIONS, SEGMENT_IDS, key
from t5x_lite.data.features import append_eos_after_trim
from t5x_lite.data.vocabularies.tokenizers import Tokenizer
from t5x_lite.decoding.generate import generate_from_encoder
from t5x_lite.partitioning import sharding
from t5x_lite.partitioning.rules import STANDARD_RULES
from t5x_lite.training import checkpoints

WINDOW_BATCHES = 16
_SMALLEST_BUCKET = 32

# From `encoder_input_tokens` and `encoder_segment_ids`, int32 [B, S], to written tokens, int32 [B, T].
Generate = Callable[[dict[str, np.ndarray]], np.ndarray]


class Generator:
  """The greedy output of a checkpoint, batch by batch, on a mesh.

  Args:
    module: the model.
    checkpoint: a run's folder, or the folder of one step.
    mesh: the devices.
    batch_size: rows of a batch.
    max_length: tokens written at most.
    tokenizer: of the model.
  """

  def __init__(
    self, module: nn.Module, checkpoint: str, mesh: Mesh, batch_size: int, *, max_length: int, tokenizer: Tokenizer
  ):
    self.batch_size = batch_size
    self._mesh, self._rules = mesh, STANDARD_RULES
    sharding.check_batch(batch_size, mesh, self._rules)
    zeros = {
      key(side, name): np.zeros((1, 1), np.int32)
      for side in (ENCODER, DECODER)
      for name in (INPUT_TOKENS, SEGMENT_IDS, POSITIONS)
    }
    with sharding.scope(mesh, self._rules):
      boxed = jax.eval_shape(module.init, {'params': jax.random.key(0)}, zeros)['params']
    places = sharding.param_shardings(boxed, mesh, self._rules)
    abstract = jax.tree.map(
      lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), nn.meta.unbox(boxed), places
    )
    self._params = checkpoints.restore_params(checkpoint, abstract)
    generate = functools.partial(
      generate_from_encoder, module, max_length=max_length, eos_id=tokenizer.eos_id, num_tokens=tokenizer.vocab_size
    )
    self._generate = jax.jit(generate, out_shardings=sharding.replicated(mesh))

  def __call__(self, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Written tokens, int32 `[B, T]`, for the encoder keys of a batch, int32 `[B, S]`."""
    rows = sharding.process_rows(self._mesh, self._rules, self.batch_size)
    own = {name: array[rows] for name, array in batch.items()}
    placed = sharding.shard_batch(own, self._mesh, self._rules, self.batch_size)
    with sharding.scope(self._mesh, self._rules):
      return np.asarray(self._generate(self._params, placed))


class Line(NamedTuple):
  """A line of the input.

  Attributes:
    number: counted from 1.
    text: the input of the model; None where the line is bad.
    error: what is wrong with it.
  """

  number: int
  text: str | None
  error: str | None = None


def read_lines(lines: Iterable[bytes], *, jsonl: bool) -> Iterator[Line]:
  """Reads UTF-8 lines: each is an input, or a JSON object with the input under "inputs" (T5X's name)."""
  for number, raw in enumerate(lines, start=1):
    try:
      text = raw.decode('utf-8-sig' if number == 1 else 'utf-8').rstrip('\r\n')
      yield Line(number, _inputs_of(text) if jsonl else text)
    except UnicodeDecodeError as error:
      yield Line(number, None, f'not UTF-8: byte {error.start + 1} is 0x{raw[error.start]:02x}')
    except ValueError as error:
      yield Line(number, None, str(error))


def _inputs_of(text: str) -> str:
  try:
    row = json.loads(text)
  except json.JSONDecodeError as error:
    raise ValueError(f'not JSON: {error}') from error
  if not isinstance(row, dict):
    raise ValueError(f'got a JSON {type(row).__name__}, expected an object with "inputs"')
  if 'inputs' not in row:
    raise ValueError(f'expected a string under "inputs", got the keys {sorted(row)}')
  if not isinstance(row['inputs'], str):
    raise ValueError(f'expected a string under "inputs", got {row["inputs"]!r}')
  return row['inputs']


def buckets(longest: int) -> list[int]:
  """The lengths that inputs are padded to: powers of two up to `longest`."""
  lengths = list(itertools.takewhile(lambda n: n < longest, (_SMALLEST_BUCKET << i for i in itertools.count())))
  return [*lengths, longest]


def predict(
  lines: Iterable[Line], generate: Generate, tokenizer: Tokenizer, *, longest: int, batch_size: int
) -> Iterator[dict[str, Any]]:
  """A row per line, in order: `{line, inputs, prediction}`, with `truncated` where tokens were cut off, or
  `{line, error}`.

  Args:
    lines: the input.
    generate: writes the output of a batch.
    tokenizer: of the model.
    longest: tokens of an input at most, EOS included; what is longer is cut.
    batch_size: rows of a batch.
  """
  source = iter(lines)
  while window := list(itertools.islice(source, batch_size * WINDOW_BATCHES)):
    good = [line for line in window if line.text is not None]
    predictions = dict(
      zip((line.number for line in good), _window(good, generate, tokenizer, longest, batch_size), strict=True)
    )
    for line in window:
      if line.text is None:
        yield {'line': line.number, 'error': line.error}
      else:
        prediction, truncated = predictions[line.number]
        row = {'line': line.number, 'inputs': line.text, 'prediction': prediction}
        yield row | ({'truncated': True} if truncated else {})


def _window(
  lines: Sequence[Line], generate: Generate, tokenizer: Tokenizer, longest: int, batch_size: int
) -> list[tuple[str, bool]]:
  """Prediction and whether the input was cut, for each line."""
  encoded = tokenizer.encode_batch([line.text or '' for line in lines])
  inputs = [append_eos_after_trim(ids, longest, tokenizer.eos_id) for ids in encoded]
  by_bucket = collections.defaultdict(list)
  for place, (ids, _) in enumerate(inputs):
    by_bucket[next(length for length in buckets(longest) if len(ids) <= length)].append(place)
  texts: dict[int, str] = {}
  for length, places in sorted(by_bucket.items()):
    for start in range(0, len(places), batch_size):
      chunk = places[start : start + batch_size]
      batch = _batch([inputs[place][0] for place in chunk], length, batch_size)
      for place, ids in zip(chunk, generate(batch)[: len(chunk)], strict=True):
        texts[place] = tokenizer.decode(ids.tolist())
  return [(texts[place], cut) for place, (_, cut) in enumerate(inputs)]


def _batch(rows: Sequence[np.ndarray], length: int, batch_size: int) -> dict[str, np.ndarray]:
  tokens = np.zeros((batch_size, length), np.int32)
  segments = np.zeros((batch_size, length), np.int32)
  for row, ids in enumerate(rows):
    tokens[row, : len(ids)] = ids
    segments[row, : len(ids)] = 1
  positions = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
  return {'encoder_input_tokens': tokens, 'encoder_segment_ids': segments, 'encoder_positions': positions}
