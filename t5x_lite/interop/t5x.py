"""T5 1.0, T5 1.1, mT5 and FLAN-T5 as T5X trains them, in the networks of its `examples/t5` and `examples/scalable_t5`.

Parameters have the same names in both, but for this: `scalable_t5` keeps a scanned stack in one array per parameter,
with the layers as its second axis; it keeps the heads of a kernel as an axis of their own; and it has a table of
position biases in every layer. T5 has one for a stack (Raffel et al. 2020), and so have we: such a checkpoint can be
read if its tables are equal, as they are where it was converted from a T5.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterable, Iterator

import numpy as np

from t5x_lite.core.errors import UsageError
from t5x_lite.interop import t5x_files
from t5x_lite.interop.layouts import SAME, TRANSPOSED, Heads, Layout
from t5x_lite.interop.names import LAYER, Entry, Table
from t5x_lite.interop.tensors import Index, TensorSource
from t5x_lite.models.t5 import T5, T5Config

_SIDES = ('encoder', 'decoder')
_EMBEDDING = 'token_embedder/embedding'
_LOGITS = 'decoder/logits_dense/kernel'
_BIAS = 'relpos_bias/rel_embedding'
_HEADS = ('pooler', 'classification', 'span', 'tagging')
_NUMBER = re.compile(r'layers_(\d+)')


def is_t5x(path: str | os.PathLike[str]) -> bool:
  """Whether `path` is a checkpoint of T5X: a folder of its runs, one checkpoint in it, or a msgpack file."""
  file = t5x_files.find(pathlib.Path(path).expanduser())
  return file is not None and t5x_files.is_train_state(file)


def open_t5x(path: str | os.PathLike[str], module: T5 | None = None) -> tuple[TensorSource, Table]:
  """The parameters of a checkpoint, one layer a tensor, and their names for a module.

  Args:
    path: as in `is_t5x`; of a folder with several checkpoints the newest is taken.
    module: that will have the parameters; None: the one that `module_of` finds.

  Raises:
    UsageError: no checkpoint, a damaged one, or another model than the module.
  """
  source = _LayerSource(t5x_files.T5XSource(pathlib.Path(path).expanduser()))
  stored = module_of(source)
  module = stored if module is None else module
  config = module.config
  if 'lm' in config.heads and config.logits_via_embedding != stored.config.logits_via_embedding:
    there, here = (
      ('its own table', 'the embedding') if config.logits_via_embedding else ('the embedding', 'its own table')
    )
    raise UsageError(f'{source.origin} holds another model: logits are made by {there} there and by {here} here')
  split = len(source.shape('encoder/layers_0/attention/query/kernel')) == 3
  return source, tuple(_table(stored.config, split))


def module_of(source: TensorSource) -> T5:
  """The module that a source from `open_t5x` holds, as far as shapes tell: gated MLPs are taken for those of T5 1.1.

  Raises:
    UsageError: it is no T5.
  """
  names = frozenset(source.names())

  def shape(name: str) -> tuple[int, ...]:
    if name not in names:
      raise UsageError(f'{source.origin} holds no T5 with an encoder and a decoder: it lacks {name}')
    return source.shape(name)

  def depth(side: str) -> int:
    return (
      max((int(match[1]) for name in names if name.startswith(side) and (match := _NUMBER.search(name))), default=0) + 1
    )

  vocab_size, emb_dim = shape(_EMBEDDING)
  gated = 'encoder/layers_0/mlp/wi_0/kernel' in names
  num_heads, num_buckets = shape(
    next((name for name in _bias_names('encoder', 1) if name in names), f'encoder/{_BIAS}')
  )
  shape('decoder/layers_0/self_attention/query/kernel')
  return T5(
    T5Config(
      vocab_size=vocab_size,
      emb_dim=emb_dim,
      num_heads=num_heads,
      head_dim=int(np.prod(shape('encoder/layers_0/attention/query/kernel')[1:])) // num_heads,
      mlp_dim=shape('encoder/layers_0/mlp/wo/kernel')[0],
      mlp_activations=('gelu', 'linear') if gated else ('relu',),
      num_encoder_layers=depth('encoder'),
      num_decoder_layers=depth('decoder'),
      logits_via_embedding=_LOGITS not in names,
      relative_attention_num_buckets=num_buckets,
    )
  )


class _LayerSource:
  """A checkpoint under the names of `examples/t5`, such as `encoder/layers_3/...`: a scanned stack is many tensors."""

  def __init__(self, stored: t5x_files.T5XSource):
    self._stored = stored
    self._places: dict[str, tuple[str, int | None]] = {}
    self._axis = _layers_axis(stored)
    for name in stored.names():
      side, _, rest = name.partition('/')
      if side in _SIDES and rest.startswith(f'{side}/'):
        for layer in range(stored.shape(name)[self._axis]):
          self._places[f'{side}/layers_{layer}/{rest.removeprefix(f"{side}/")}'] = (name, layer)
      else:
        self._places[name] = (name, None)

  @property
  def origin(self) -> str:
    """The folder or file."""
    return self._stored.origin

  def names(self) -> Iterable[str]:
    """The names of all tensors."""
    return self._places

  def shape(self, name: str) -> tuple[int, ...]:
    """The shape of a tensor."""
    stored, layer = self._places[name]
    shape = self._stored.shape(stored)
    return shape if layer is None else (*shape[: self._axis], *shape[self._axis + 1 :])

  def dtype(self, name: str) -> np.dtype:
    """The dtype of a tensor."""
    return self._stored.dtype(self._places[name][0])

  def read(self, name: str, index: Index) -> np.ndarray:
    """A part of a tensor."""
    stored, layer = self._places[name]
    if layer is None:
      return self._stored.read(stored, index)
    at = self._axis
    return self._stored.read(stored, (*index[:at], slice(layer, layer + 1), *index[at:])).squeeze(at)


def _layers_axis(stored: t5x_files.T5XSource) -> int:
  """The layers axis of a scanned stack, T5X's `param_scan_axis`: 1 as it comes, 0 if the scales of its norms say so."""
  scale = 'encoder/encoder/pre_mlp_layer_norm/scale'
  if not {scale, _EMBEDDING} <= set(stored.names()):
    return 1
  first, second = stored.shape(scale)
  emb_dim = stored.shape(_EMBEDDING)[1]
  return 0 if second == emb_dim != first else 1


def _bias_names(side: str, layers: int) -> tuple[str, ...]:
  return f'{side}/{_BIAS}', *(f'{side}/layers_{layer}/{_BIAS}' for layer in range(layers))


def _table(config: T5Config, split: bool) -> Iterator[Entry]:
  """The names of the parameters of a checkpoint.

  Args:
    config: of the model that it holds.
    split: whether the heads of its kernels are an axis of their own.
  """
  yield Entry(_EMBEDDING, _EMBEDDING, vocabulary=0)
  yield Entry('logits_dense/embedding', _LOGITS, TRANSPOSED, vocabulary=0)
  for side, depth in zip(_SIDES, (config.num_encoder_layers, config.num_decoder_layers), strict=True):
    theirs, *also = _bias_names(side, depth)
    yield Entry(f'{side}/{_BIAS}', theirs, also=tuple(also), tied=tuple(also))
    yield Entry(f'{side}/norm/scale', f'{side}/{side}_norm/scale')
    yield from _block(side, config.num_heads if split else None)
  for head in _HEADS:  # T5X has none of them
    for leaf in ('kernel', 'bias'):
      yield Entry(f'heads/{head}/{leaf}', f'heads/{head}/{leaf}', head=True)


def _block(side: str, num_heads: int | None) -> Iterator[Entry]:
  """The names of a layer."""
  ours, theirs = f'{side}/blocks/{LAYER}', f'{side}/layers_{LAYER}'
  attentions = {'self_attention': 'attention'}
  if side == 'decoder':
    attentions = {'self_attention': 'self_attention', 'cross_attention': 'encoder_decoder_attention'}
  for name, other in attentions.items():
    norm = 'pre_cross_attention_layer_norm' if name == 'cross_attention' else f'pre_{other}_layer_norm'
    yield Entry(f'{ours}/{name}_norm/scale', f'{theirs}/{norm}/scale')
    for kernel in ('query', 'key', 'value', 'out'):
      heads = None if num_heads is None else Heads(0 if kernel == 'out' else 1, num_heads)
      layout = SAME if heads is None else Layout(heads=heads)
      yield Entry(f'{ours}/{name}/{kernel}/kernel', f'{theirs}/{other}/{kernel}/kernel', layout)
  yield Entry(f'{ours}/mlp_norm/scale', f'{theirs}/pre_mlp_layer_norm/scale')
  for kernel in ('wi', 'wi_0', 'wi_1', 'wo'):
    yield Entry(f'{ours}/mlp/{kernel}/kernel', f'{theirs}/mlp/{kernel}/kernel')
