"""Text in, text out: prompts to ids, programs compiled once for each shape, ids to text."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from t5x_lite import prompts, stored_models
from t5x_lite.core import errors, tree
from t5x_lite.core.batch import ENCODER, INPUT_TOKENS, POSITIONS, SEGMENT_IDS, key
from t5x_lite.core.products import ByOutput
from t5x_lite.data.vocabularies.tokenizers import Tokenizer
from t5x_lite.decoding.config import Decoding, GenerationConfig, check_ids
from t5x_lite.decoding.engine import Written
from t5x_lite.decoding.generate import Assistant, row_keys, write_from_encoder, write_from_prompt
from t5x_lite.decoding.stopping import StopTable, stop_table
from t5x_lite.nn.attend import platform
from t5x_lite.partitioning import rules as rules_lib
from t5x_lite.partitioning import sharding
from t5x_lite.partitioning.rules import STANDARD_RULES

_SMALLEST_BUCKET = 32
_DRAFTED = ('T5', 'Gpt')  # whose caches can go back to where a draft was right


@dataclasses.dataclass(frozen=True)
class Generated:
  """What was written, `num_return_sequences` rows for each input.

  Attributes:
    ids: int32 `[R, L]`, as transformers returns them: the prompt first, which of an encoder-decoder is the start token.
    new_ids: of each row what was written, without what fills it up; its end is part of it.
    texts: the text of what was written; None without a tokenizer.
    scores: float32 `[R]`: of a beam search the score of the row, else the log-probability of what was written, if
      `output_scores` is set; None where neither is.
    token_scores: float32 `[R, T]`, if `output_scores` is set: with which log-probability each token was chosen.
  """

  ids: np.ndarray
  new_ids: list[np.ndarray]
  texts: list[str] | None
  scores: np.ndarray | None = None
  token_scores: np.ndarray | None = None


class Writer:
  """Writes with one model; its programs are kept.

  Args:
    module: the model.
    params: its parameters.
    mesh: where they are; None: on one device.

  Raises:
    UsageError: the model writes nothing.
  """

  def __init__(self, module: Any, params: Any, mesh: Mesh | None = None):
    check_writes(module)
    self.module, self._params = for_decoding(module, params, mesh)
    self.mesh = mesh
    self._stops: dict[Any, StopTable] = {}
    out = {} if mesh is None else {'out_shardings': sharding.replicated(mesh)}
    self._program = functools.partial(jax.jit, static_argnames='decoding', **out)
    self._write = self._program(functools.partial(_write, self.module, None))
    self._assisted: dict[Any, Any] = {}

  @property
  def encodes(self) -> bool:
    """Whether it is an encoder-decoder."""
    return hasattr(self.module, 'encode')

  @property
  def max_positions(self) -> int | None:
    """Tokens that a row may have, None for any number."""
    config = self.module.config
    return config.max_length - config.prompt_length if getattr(config, 'positions', None) == 'learned' else None

  def __call__(
    self,
    inputs: Sequence[np.ndarray],
    config: GenerationConfig,
    *,
    seed: int = 0,
    tokenizer: Tokenizer | None = None,
    num_tokens: int | None = None,
    width: int = 0,
    numbers: Sequence[int] | None = None,
    assistant: Writer | None = None,
    starts: np.ndarray | None = None,
  ) -> tuple[Written, Decoding]:
    """What is written for inputs of any lengths, on the host, and by what options.

    Args:
      inputs: int32 `[L]` each, none empty.
      config: the options.
      seed: of what is drawn.
      tokenizer: of stop strings.
      num_tokens: ids from here on are never written.
      width: the prompts count as this long at least, as those of a padded batch do.
      numbers: of the rows, by which they draw; None: their places.
      assistant: a smaller model that passes `check_assists`, which drafts what this one judges; None: none does.
      starts: what the decoder of an encoder-decoder starts from, int32 `[B, P]` (see `prompts.decoder_prompts`);
        None: the start token.

    Raises:
      UsageError: options that do not go together.
    """
    longest = max(max(map(len, inputs)), width)
    rows = len(inputs)
    positions = self.max_positions
    if assistant is not None:
      positions = min((n for n in (positions, assistant.max_positions) if n is not None), default=None)
    if self.encodes:
      if starts is None:
        starts = prompts.decoder_prompts(None, rows, config, self.module.config.vocab_size)
      decoding = config.complete(starts.shape[1])
      padded = bucket(longest)
    else:
      decoding = config.complete(longest, positions)
      room = None if positions is None else positions - decoding.max_new
      padded = max(longest, bucket(longest) if room is None else min(bucket(longest), room))
    decoding = dataclasses.replace(decoding, num_tokens=num_tokens, options=_without_texts(decoding.options))
    check_ids(config, self.module.config.vocab_size)
    if decoding.branches > self.module.config.vocab_size // 2:
      raise errors.UsageError(
        f'{decoding.branches} beams or results: the model has only {self.module.config.vocab_size} tokens'
      )
    batch = _padded(inputs, padded, left=not self.encodes, rows=self._rows(rows))
    if starts is not None:
      batch['start'] = np.concatenate([starts, np.repeat(starts[:1], len(batch['tokens']) - rows, axis=0)])
    own = list(range(rows) if numbers is None else numbers)
    batch['rows'] = np.asarray(own + [0] * (len(batch['tokens']) - rows), np.int32)
    written = self._run(batch, seed, decoding, self._stop_table(config.stop_strings, tokenizer), assistant)
    return jax.tree.map(lambda x: np.asarray(x)[:rows], written), decoding

  def _rows(self, rows: int) -> int:
    """Rows of the batch: as many as divide over the devices."""
    if self.mesh is None:
      return rows
    over = rules_lib.as_tuple(sharding.batch_sharding(self.mesh, STANDARD_RULES).spec[0])
    return rows + -rows % rules_lib.size(over, self.mesh)

  def _run(
    self,
    batch: dict[str, np.ndarray],
    seed: int,
    decoding: Decoding,
    stop: StopTable | None,
    assistant: Writer | None,
  ) -> Written:
    random_key = jax.random.key(seed)
    write, drafting = self._write, None
    if assistant is not None:
      drafting = assistant._params
      if assistant.module not in self._assisted:
        self._assisted[assistant.module] = self._program(functools.partial(_write, self.module, assistant.module))
      write = self._assisted[assistant.module]
    if self.mesh is None:
      return write(self._params, drafting, batch, random_key, stop, decoding=decoding)
    rows = len(batch['tokens'])
    own = sharding.process_rows(self.mesh, STANDARD_RULES, rows)
    placed = sharding.shard_batch({name: array[own] for name, array in batch.items()}, self.mesh, STANDARD_RULES, rows)
    with sharding.scope(self.mesh, STANDARD_RULES):
      return write(self._params, drafting, placed, random_key, stop, decoding=decoding)

  def _stop_table(self, stops: str | tuple[str, ...] | None, tokenizer: Tokenizer | None) -> StopTable | None:
    if not stops:
      return None
    if tokenizer is None:
      raise errors.UsageError(f'stop_strings is {stops!r}, and the model has no tokenizer to tell their ids')
    from t5x_lite.data.vocabularies.token_bytes import token_bytes

    texts = (stops,) if isinstance(stops, str) else stops
    if texts not in self._stops:
      self._stops[texts] = jax.tree.map(jax.numpy.asarray, stop_table(texts, token_bytes(tokenizer)))
    return self._stops[texts]


def _write(
  module: Any,
  drafts: Any,
  params: Any,
  draft_params: Any,
  batch: Mapping[str, jax.Array],
  random_key: jax.Array,
  stop: Any,
  *,
  decoding: Decoding,
) -> Written:
  tokens, segments = batch['tokens'], batch['segments']
  keys = row_keys(random_key, batch['rows']) if decoding.options.do_sample else None
  assistant = None if drafts is None else Assistant(drafts, draft_params)
  more = {'keys': keys, 'stop': stop, 'assistant': assistant}
  if 'start' not in batch:
    return write_from_prompt(module, params, tokens, segments, decoding, **more)
  positions = jax.numpy.broadcast_to(jax.numpy.arange(tokens.shape[1], dtype='int32'), tokens.shape)
  sides = {INPUT_TOKENS: tokens, SEGMENT_IDS: segments, POSITIONS: positions}
  encoder = {key(ENCODER, name): value for name, value in sides.items()}
  return write_from_encoder(module, params, encoder, batch['start'], decoding, **more)


def _without_texts(options: GenerationConfig) -> GenerationConfig:
  """Stop strings are told by a table, and lengths by numbers of tokens: programs need not differ for them."""
  return dataclasses.replace(
    options, stop_strings=None, max_length=None, min_length=None, max_new_tokens=None, min_new_tokens=None
  )


def bucket(length: int) -> int:
  """The length that a prompt is padded to: a power of two, so that few programs are compiled."""
  return next(size for size in (_SMALLEST_BUCKET << i for i in itertools.count()) if size >= length)


def _padded(inputs: Sequence[np.ndarray], length: int, *, left: bool, rows: int) -> dict[str, np.ndarray]:
  """Tokens and segments, int32 `[rows, length]`; rows beyond the inputs repeat the first of them."""
  tokens = np.zeros((rows, length), np.int32)
  segments = np.zeros_like(tokens)
  for row, ids in enumerate([*inputs, *[inputs[0]] * (rows - len(inputs))]):
    where = slice(length - len(ids), None) if left else slice(0, len(ids))
    tokens[row, where], segments[row, where] = ids, 1
  return {'tokens': tokens, 'segments': segments}


def check_writes(module: Any) -> None:
  """Raises UsageError unless a model writes text."""
  name = type(module).__name__
  if not hasattr(module, 'decode_with_cache') or not getattr(module.config, 'num_decoder_layers', 1):
    kind = (
      'an encoder, which reads text and writes none'
      if not hasattr(module, 'decode_with_cache')
      else 'without a decoder'
    )
    raise errors.UsageError(f'model {name} is {kind}: expected T5, GPT or XLNet to generate')
  if 'lm' not in module.config.heads:
    heads = ', '.join(module.config.heads) or 'none'
    raise errors.UsageError(f'model {name} has the heads {heads}: expected lm among them to generate')


def check_assists(writer: Writer, assistant: Writer, config: GenerationConfig) -> None:
  """Raises UsageError unless a model can draft what another one judges."""
  own, other = writer.module, assistant.module
  name, drafts = type(own).__name__, type(other).__name__
  if name != drafts or name not in _DRAFTED:
    raise errors.UsageError(f'assistant_model is a {drafts}, and the model a {name}: expected two T5 or two GPT')
  if own.config.vocab_size != other.config.vocab_size:
    raise errors.UsageError(
      f'assistant_model has {other.config.vocab_size} tokens, and the model {own.config.vocab_size}: expected the same '
      'vocabulary'
    )
  if (config.num_beams or 1) > 1:
    raise errors.UsageError(f'num_beams is {config.num_beams} with an assistant_model: expected greedy or sampling')
  if own.config.num_experts:
    raise errors.UsageError(
      'assistant_model for a mixture of experts: what an expert has room for depends on how many tokens are read at a '
      'time, expected a dense model'
    )
  if writer.mesh != assistant.mesh:
    raise errors.UsageError(
      'assistant_model lies on other devices than the model: expected load_pretrained(mesh=) alike'
    )


def for_decoding(module: Any, params: Any, mesh: Mesh | None) -> tuple[Any, Any]:
  """The model as decoding wants it: layers apart, so that a step copies no parameters, and parameters in its dtype.

  On one CPU the kernels of what writes are turned once and for all (see `core.products.ByOutput`).

  Args:
    module: the model.
    params: its parameters.
    mesh: where they are; None: on one device.
  """
  dtype = jax.numpy.dtype(module.config.dtype)
  unrolled = type(module)(dataclasses.replace(module.config, scan_layers=False, remat_policy='none'))
  casts, turns = dtype.itemsize < 4, mesh is None and platform() == 'cpu'
  if not module.config.scan_layers and not casts and not turns:
    return unrolled, params

  def of_decoding(path: tuple[Any, ...], leaf: jax.Array) -> Any:
    name = tree.path_name(path)
    if casts and _is_product(name):
      leaf = leaf.astype(dtype)
    return ByOutput(leaf.T) if turns and _is_read_at_each_step(name) else leaf

  def changed(params: Any) -> Any:
    params = _apart(params) if module.config.scan_layers else params
    return jax.tree_util.tree_map_with_path(of_decoding, params)

  places = (
    {}
    if mesh is None
    else {'out_shardings': jax.tree.map(lambda leaf: leaf.sharding, stored_models.placed(unrolled, mesh))}
  )
  return unrolled, jax.jit(changed, **places)(params)


def _is_read_at_each_step(name: str) -> bool:
  """Whether a parameter is the kernel of a `nn.linear.Dense` through which each written token goes."""
  once = any(f'/cross_attention/{of_input}/' in name for of_input in ('key', 'value'))
  return name.startswith(('decoder/', 'blocks/')) and name.endswith('/kernel') and 'router' not in name and not once


def _is_product(name: str) -> bool:
  """Whether a parameter is only used in the dtype of activations."""
  return name.endswith(('kernel', 'embedding')) and 'router' not in name


def _apart(params: Any) -> Any:
  """Parameters of scanned layers, layer by layer."""
  if not isinstance(params, Mapping):
    return params
  apart = {}
  for name, value in params.items():
    if name == 'layers':
      for layer in range(len(jax.tree.leaves(value)[0])):
        apart[f'layers_{layer}'] = jax.tree.map(lambda leaf, layer=layer: leaf[layer], value)
    else:
      apart[name] = _apart(value)
  return apart


def result(
  written: Written,
  decoding: Decoding,
  inputs: Sequence[np.ndarray],
  width: int,
  *,
  starts: np.ndarray | None,
  tokenizer: Tokenizer | None,
) -> Generated:
  """What `Writer` wrote, as the caller wants it.

  Args:
    written: of every input.
    decoding: the options.
    inputs: their ids.
    width: of the batch that they were given as.
    starts: what an encoder-decoder starts from, int32 `[B, P]`; None: the inputs are the prompts.
    tokenizer: of the texts.
  """
  count = written.tokens.shape[1]
  lengths = np.asarray(written.lengths).reshape(-1)
  tokens = np.asarray(written.tokens).reshape(len(lengths), -1)[:, : max(int(lengths.max()), 1)]
  if starts is not None:
    before = starts
  else:
    wide = max(max(map(len, inputs)), width)
    before = np.full((len(inputs), wide), decoding.pad, np.int32)
    for row, ids in enumerate(inputs):
      before[row, wide - len(ids) :] = ids
  before = np.repeat(before, count, axis=0)
  new_ids = [row[:length] for row, length in zip(tokens, lengths, strict=True)]
  texts = None if tokenizer is None else [tokenizer.decode(_text_ids(ids, decoding)) for ids in new_ids]
  with_scores, beams = written.token_scores is not None, (decoding.options.num_beams or 1) > 1
  return Generated(
    ids=np.concatenate([before, tokens], axis=1),
    new_ids=new_ids,
    texts=texts,
    scores=np.asarray(written.scores).reshape(-1) if beams or with_scores else None,
    token_scores=np.asarray(written.token_scores).reshape(len(lengths), -1)[:, : tokens.shape[1]]
    if with_scores
    else None,
  )


def _text_ids(ids: np.ndarray, decoding: Decoding) -> list[int]:
  """Ids that have a text: an end is none, nor is the padding that was asked for. Without either, 0 is a word."""
  pad = decoding.options.pad_token_id
  return ids[~np.isin(ids, (*decoding.eos, *(() if pad is None else (pad,))))].tolist()
