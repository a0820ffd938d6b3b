"""What lies where a user points to: a Hugging Face directory or hub name, one of our MODEL_DIRs, a T5X checkpoint.

All of them become a `StoredModel`, which `load_pretrained` and a run's warm start read alike.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from t5x_lite import families, model_dir
from t5x_lite.core import errors, tree
from t5x_lite.core.batch import DECODER, ENCODER, INPUT_TOKENS, POSITIONS, SEGMENT_IDS, TOKEN_TYPE_IDS, key
from t5x_lite.data.task import EncoderTask
from t5x_lite.data.vocabularies.tokenizers import Tokenizer
from t5x_lite.interop import hf_config, hf_families, hub, loading
from t5x_lite.interop.hf_families import Family
from t5x_lite.interop.loading import Fresh, Report
from t5x_lite.partitioning import sharding
from t5x_lite.partitioning.rules import STANDARD_RULES
from t5x_lite.training import integrity

GENERATION_FILE = 'generation_config.json'
_PICKLES = ('pytorch_model.bin', 'pytorch_model.bin.index.json', 'tf_model.h5', 'flax_model.msgpack')
# Fields of a module's configuration that may differ from those of stored parameters: how it computes, and what is
# checked by shapes or reported (heads, vocabulary).
_FREE = frozenset(
  (
    *('vocab_size', 'heads', 'num_labels', 'dropout_rate', 'dtype', 'scan_layers', 'remat_policy'),
    *('initializer_range', 'load_balancing_loss', 'capacity_factor', 'mem_len', 'reuse_len'),
    *('adapter_dim', 'prompt_length', 'pooling'),
  )
)


class Read(Protocol):
  """Reads parameters."""

  def __call__(self, module: nn.Module, abstract: Any, *, fresh: Fresh | None, resize: bool) -> tuple[Any, Report]:
    """As `loading.load`, for a module whose heads and vocabulary may be others than those that are stored."""


@dataclasses.dataclass(frozen=True)
class StoredModel:
  """A model that can be read.

  Attributes:
    origin: what errors call it.
    module: the model that is stored.
    config: its config.json as transformers has it; of ours and T5X's, as it would be exported.
    read: reads its parameters.
    open_tokenizer: its vocabulary, None where there is none.
    generation: its generation_config.json, None where there is none.
    exported: whether `config` is what we would write, and no file's.
    may_lack_answer: whether it learned that questions may have no answer.
  """

  origin: str
  module: nn.Module
  config: Mapping[str, Any]
  read: Read
  open_tokenizer: Callable[[], Tokenizer | None]
  generation: Mapping[str, Any] | None = None
  exported: bool = False
  may_lack_answer: bool = False


def open_model(
  source: str | os.PathLike[str], *, model: nn.Module | str | None = None, revision: str | None = None
) -> StoredModel:
  """Finds out what `source` is, and what model it holds. Reads no parameters.

  Args:
    source: a directory, or a name on the hub.
    model: a module, or a gin file such as `models/t5_base.gin`: what is expected there. T5X checkpoints say less than
      the others about what they hold.
    revision: on the hub.

  Raises:
    UsageError: nothing there that we can read, or a revision of what is not on the hub.
  """
  if not isinstance(source, str | os.PathLike):
    raise errors.UsageError(f'source is {source!r}: expected a directory, or a name on the hub')
  given = model_dir.from_gin([model], model_dir.MODEL) if isinstance(model, str) else model
  path = pathlib.Path(source).expanduser().absolute()
  if revision is not None and os.fspath(source) and path.exists():
    raise errors.UsageError(f'revision is {revision!r}, which is for names on the hub: {path} is on this machine')
  if path.is_file() and _is_t5x(path):
    return _open_t5x(path, given)
  path = hub.locate(source, revision=revision)
  if integrity.holds_checkpoints(path):
    stored = _open_model_dir(path)
  elif not (path / hf_families.CONFIG_FILE).is_file() and _is_t5x(path):
    return _open_t5x(path, given)
  else:
    stored = _open_hugging_face(path)
  if given is not None:
    check_same(stored, given)
  return stored


def check_same(stored: StoredModel, module: nn.Module) -> None:
  """Raises UsageError where a module computes otherwise than the stored one, in what no shape tells."""
  if type(module) is not type(stored.module):
    raise errors.UsageError(
      f'{stored.origin} holds another model: a {type(stored.module).__name__}, expected a {type(module).__name__}'
    )
  theirs, ours = stored.module.config, module.config
  for field in dataclasses.fields(ours):
    there, here = getattr(theirs, field.name), getattr(ours, field.name)
    encoder_alone = field.name == 'num_decoder_layers' and here == 0
    if field.name not in _FREE and there != here and not encoder_alone:
      raise errors.UsageError(f'{stored.origin} holds another model: {field.name} is {there!r} there and {here!r} here')


def abstract_params(module: nn.Module) -> Any:
  """A module's parameters as shapes, boxed with the logical names of their axes."""
  return jax.eval_shape(module.init, {'params': jax.random.key(0)}, _any_batch())['params']


def placed(module: nn.Module, mesh: Mesh | None) -> Any:
  """Shapes of a module's parameters, with their places: by the standard rules, or all on the first device."""
  if mesh is None:
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = nn.meta.unbox(abstract_params(module))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes)
  with sharding.scope(mesh, STANDARD_RULES):
    boxed = abstract_params(module)
  places = sharding.param_shardings(boxed, mesh, STANDARD_RULES)
  return jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), nn.meta.unbox(boxed), places
  )


def fresh_params(module: nn.Module, abstract: Any, seed: int) -> Fresh:
  """Initialises chosen parameters of a module, on the devices that `abstract` names; the others are never made."""
  shardings = {name: leaf.sharding for name, leaf in tree.named_leaves(abstract).items()}

  def make(names: Any) -> Mapping[str, jax.Array]:
    def chosen() -> dict[str, jax.Array]:
      params = nn.meta.unbox(module.init({'params': jax.random.key(seed)}, _any_batch())['params'])
      leaves = tree.named_leaves(params)
      return {name: leaves[name] for name in names}

    return jax.jit(chosen, out_shardings={name: shardings[name] for name in names})()

  return make


def _any_batch() -> dict[str, np.ndarray]:
  """The smallest batch that every family can be initialised with."""
  names = (INPUT_TOKENS, SEGMENT_IDS, POSITIONS, TOKEN_TYPE_IDS)
  return {key(side, name): np.zeros((2, 2), np.int32) for side in (ENCODER, DECODER) for name in names}


# --- Our own ----------------------------------------------------------------------------------------------------------


def _open_model_dir(path: pathlib.Path) -> StoredModel:
  gin_file = model_dir.config_of(path)
  module = model_dir.from_gin([str(gin_file)], model_dir.MODEL)
  encoder_task = model_dir.encoder_task(gin_file)
  # That of a run lies alone.
  config = _read_config(gin_file.parent, module) if (gin_file.parent / hf_families.CONFIG_FILE).is_file() else None

  def read(module: nn.Module, abstract: Any, *, fresh: Fresh | None, resize: bool) -> tuple[Any, Report]:
    entries = model_dir.own_table(abstract_params(module))
    return model_dir.load_params(path, abstract, fresh=fresh, resize=resize, entries=entries)

  return StoredModel(
    origin=str(path),
    module=module,
    config=_exported_config(module) | _labels(module, encoder_task) if config is None else config,
    read=read,
    open_tokenizer=functools.partial(model_dir.from_gin, [str(gin_file)], model_dir.VOCABULARY),
    generation=_read_generation(gin_file.parent),
    exported=config is None,
    may_lack_answer=encoder_task is not None and encoder_task.may_lack_answer,
  )


def _labels(module: nn.Module, encoder_task: EncoderTask | None) -> dict[str, Any]:
  """What a config.json says of the task that the heads of a module were trained for; of others, nothing."""
  config = module.config
  if encoder_task is None or families.model_head(encoder_task.head) not in config.heads:
    return {}
  if encoder_task.head == 'regression':
    return {'problem_type': 'regression'}
  if not encoder_task.labels or len(encoder_task.labels) != config.num_labels:
    return {}
  return hf_config.labels(encoder_task.labels)


def _read_config(folder: pathlib.Path, module: nn.Module) -> dict[str, Any]:
  """The config.json beside a config.gin. Raises UsageError where it cannot be the module's."""
  config = hf_families.read_config(folder)
  family = hf_families.family_of(config, str(folder))
  try:
    theirs = type(family.module_from_hf(config))
  except errors.UsageError as error:
    raise errors.UsageError(f'{folder}: {error}') from error
  if theirs is not type(module):
    raise errors.UsageError(
      f'{folder}: {hf_families.CONFIG_FILE} is of a {theirs.__name__}, and config.gin of a {type(module).__name__}'
    )
  return config


def _exported_config(module: nn.Module) -> dict[str, Any]:
  """The config.json that a module would be exported with; empty where transformers has no such model."""
  try:
    return hf_families.family_of_module(module).config_to_hf(module)
  except errors.UsageError:
    return {}


# --- T5X --------------------------------------------------------------------------------------------------------------


def _is_t5x(path: pathlib.Path) -> bool:
  from t5x_lite.interop import t5x

  return t5x.is_t5x(path)


def _open_t5x(path: pathlib.Path, given: nn.Module | None) -> StoredModel:
  from t5x_lite.interop import t5x

  # Arrays tell the sizes; of the rest, what is not said is as in T5.
  module = t5x.module_of(t5x.open_t5x(path)[0]) if given is None else given

  def read(module: Any, abstract: Any, *, fresh: Fresh | None, resize: bool) -> tuple[Any, Report]:
    source, table = t5x.open_t5x(path, module)
    return loading.load(table, source, abstract, fresh=fresh, resize=resize)

  return StoredModel(str(path), module, _exported_config(module), read, open_tokenizer=lambda: None, exported=True)


# --- Hugging Face -----------------------------------------------------------------------------------------------------


def _open_hugging_face(path: pathlib.Path) -> StoredModel:
  config = hf_families.read_config(path)
  family = hf_families.family_of(config, str(path))
  try:
    module = family.module_from_hf(config)
  except errors.UsageError as error:
    raise errors.UsageError(f'{path}: {error}') from error
  return StoredModel(
    origin=str(path),
    module=module,
    config=config,
    read=functools.partial(_read_hugging_face, path, family),
    open_tokenizer=functools.partial(_open_tokenizer, path),
    generation=_read_generation(path),
  )


def _read_hugging_face(
  path: pathlib.Path, family: Family, module: nn.Module, abstract: Any, *, fresh: Fresh | None, resize: bool
) -> tuple[Any, Report]:
  from t5x_lite.interop.tensors import INDEX_FILE, WEIGHTS_FILE, SafetensorsSource

  pickles = [name for name in _PICKLES if (path / name).is_file()]
  if pickles and not any((path / name).is_file() for name in (WEIGHTS_FILE, INDEX_FILE)):
    raise errors.UsageError(
      f'{path} has its weights in {pickles[0]} only, which can run code when it is read: load it in transformers and '
      'save_pretrained() it, which writes safetensors'
    )
  return loading.load(family.table(module), SafetensorsSource(path), abstract, fresh=fresh, resize=resize)


def _open_tokenizer(path: pathlib.Path) -> Tokenizer | None:
  from t5x_lite.data.vocabularies.load_tokenizer import load_tokenizer

  kinds = ('tokenizer.json', '*.model', 'vocab.txt', 'vocab.json', 'tokenizer_config.json')
  opened: Any = load_tokenizer(str(path)) if any(any(path.glob(kind)) for kind in kinds) else None
  return opened


def _read_generation(path: pathlib.Path) -> Mapping[str, Any] | None:
  try:
    read = json.loads((path / GENERATION_FILE).read_text(encoding='utf-8'))
  except (OSError, ValueError):  # Only handed on, never needed here.
    return None
  return read if isinstance(read, dict) else None
