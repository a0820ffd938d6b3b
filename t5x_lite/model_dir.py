"""A MODEL_DIR without its run: which model and vocabulary lie there, and how to write one of parameters alone."""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import t5x_lite
from t5x_lite import families
from t5x_lite.cli import calls, ginfiles, registry
from t5x_lite.cli.record import CONFIG_FILE
from t5x_lite.cli.resolve import Configuration
from t5x_lite.cli.statements import Binding, Macro
from t5x_lite.core import axes, errors, tree
from t5x_lite.data import task
from t5x_lite.interop import loading
from t5x_lite.interop.loading import Fresh, Report
from t5x_lite.interop.names import LAYER, Entry
from t5x_lite.interop.tensors import Index
from t5x_lite.nn.adapter import is_addition
from t5x_lite.runs.description import description
from t5x_lite.training import adaptation, checkpoints

MODEL, VOCABULARY, TASK = 'MODEL', 'VOCABULARY', 'MIXTURE_OR_TASK_NAME'
# Of these fields of a module's configuration, config.gin has macros, so that run files and flags can set them.
_MACROS = {
  'vocab_size': 'VOCAB_SIZE',
  'dropout_rate': 'DROPOUT_RATE',
  'dtype': 'ACTIVATION_DTYPE',
  'attention': 'ATTENTION',
  'scan_layers': 'SCAN_LAYERS',
  'remat_policy': 'REMAT_POLICY',
}
# What `infer` cuts its inputs to and writes at most, where no run says.
_LENGTHS = {'inputs': 512, 'targets': 114}
_DESCRIPTION = 'runs.description.description'


def config_of(path: pathlib.Path) -> pathlib.Path:
  """The config.gin of a MODEL_DIR or of one checkpoint in it. Raises UsageError where there is none."""
  for folder in (path, path.parent):
    if (folder / CONFIG_FILE).is_file():
      return folder / CONFIG_FILE
  raise errors.UsageError(f'{path} has no {CONFIG_FILE}, which would say what model its checkpoints hold')


def from_gin(files: Sequence[str], macro: str) -> Any:
  """What a macro of gin files makes: MODEL the module; VOCABULARY the tokenizer and TASK the task, None without them.

  Raises:
    UsageError: no such file, or no MODEL in it.
  """
  reader, names = ginfiles.GinFiles(), registry.Registry()
  statements = [statement for file in files for statement in reader.read(file)]
  parameter = {MODEL: 'module', VOCABULARY: 'tokenizer', TASK: 'task'}[macro]
  statements.append(Binding('', _DESCRIPTION, parameter, Macro(macro), f'%{macro}'))
  configuration = Configuration(statements, names)
  if macro not in configuration.macros:
    if macro != MODEL:
      return None
    raise errors.UsageError(f'{", ".join(map(str, files))}: no {macro}, which would say what the model is')
  given = [name for name in inspect.signature(description).parameters if name != parameter]
  call, _ = configuration.resolve(names.resolve(_DESCRIPTION, 'model_dir'), given)
  made = call.arguments[parameter]
  return made if made is None or isinstance(made, str) else calls.build(made, names.load)


def encoder_task(file: pathlib.Path) -> task.EncoderTask | None:
  """What the heads of a run's model have learned, as its config.gin tells; None where it tells no task for heads.

  Members of a mixture share their head: the first one's labels are those of all.
  """
  try:
    learned = from_gin([str(file)], TASK)
    import t5x_lite.tasks  # noqa: F401, the catalogue

    return None if learned is None else task.tasks(learned)[0].encoder
  except errors.UsageError:  # a task of the user's that nobody has registered here, or without its files
    return None


def load_params(
  path: pathlib.Path, abstract: Any, *, fresh: Fresh | None, resize: bool, entries: Iterable[Entry]
) -> tuple[Any, Report]:
  """The parameters of a checkpoint, for a module whose heads, vocabulary or layout of layers may be others.

  Args:
    path: of a MODEL_DIR or of one checkpoint.
    abstract: tree of `jax.ShapeDtypeStruct` with shardings.
    fresh: as in `loading.load`.
    resize: as in `loading.load`.
    entries: from `own_table`.
  """
  from t5x_lite.training import orbax_store

  folder = checkpoints.locate(path)
  stored = {
    name.removeprefix('params/'): leaf
    for name, leaf in orbax_store.read_shapes(folder).items()
    if name.startswith('params/')
  }
  # A checkpoint with low-rank updates is read with them merged.
  wanted = tree.named_leaves(abstract)
  if {name: leaf.shape for name, leaf in stored.items()} == {name: leaf.shape for name, leaf in wanted.items()}:
    return checkpoints.restore_params(folder, abstract), Report(loaded=tuple(wanted))
  source = _CheckpointSource(folder, stored)
  return loading.load(entries, source, abstract, fresh=fresh, resize=resize)


def own_table(boxed: Any) -> tuple[Entry, ...]:
  """The names of a module's parameters in our own checkpoints: the same, but one layer at a time.

  Args:
    boxed: abstract parameters with the logical names of their axes, which tell the vocabulary's.
  """
  entries: dict[str, Entry] = {}
  names = tree.named_leaves(nn.get_partition_spec(boxed))
  for name, axis_names in names.items():
    parts = name.split('/')
    numbered = [part for part in parts if part == axes.LAYERS or part.startswith(f'{axes.LAYERS}_')]
    ours, theirs = name, name
    axis_names = tuple(axis_names)
    if numbered:
      ours = '/'.join(LAYER if part in numbered else part for part in parts)
      theirs = '/'.join(f'{axes.LAYERS}_{LAYER}' if part in numbered else part for part in parts)
      axis_names = axis_names[tree.is_stacked(name) :]
    entries[ours] = Entry(
      ours,
      theirs,
      head=parts[0] in ('heads', 'mlm', 'lm', 'logits_dense') or is_addition(name),
      vocabulary=axis_names.index(axes.VOCAB) if axes.VOCAB in axis_names else None,
    )
  return tuple(entries.values())


class _CheckpointSource:
  """The parameters of one of our checkpoints as a `TensorSource` whose layers are single tensors.

  A leaf is read whole, when the first part of it is asked for, and kept until another one is asked for.
  """

  def __init__(self, folder: pathlib.Path, stored: Mapping[str, jax.ShapeDtypeStruct]):
    self._folder = folder
    self._updates = {name: leaf for name, leaf in stored.items() if adaptation.is_update(name)}
    self._stored = stored = {name: leaf for name, leaf in stored.items() if name not in self._updates}
    self._places: dict[str, tuple[str, int | None]] = {}
    self._kept: tuple[str, np.ndarray] | None = None
    for name, leaf in stored.items():
      if tree.is_stacked(name):
        self._places |= {_of_layer(name, layer): (name, layer) for layer in range(leaf.shape[0])}
      else:
        self._places[name] = (name, None)

  @property
  def origin(self) -> str:
    """The folder."""
    return str(self._folder)

  def names(self) -> Iterable[str]:
    """The names of all tensors."""
    return self._places

  def shape(self, name: str) -> tuple[int, ...]:
    """The shape of a tensor."""
    leaf, layer = self._places[name]
    return tuple(self._stored[leaf].shape[layer is not None :])

  def dtype(self, name: str) -> np.dtype:
    """The dtype of a tensor."""
    return np.dtype(self._stored[self._places[name][0]].dtype)

  def read(self, name: str, index: Index) -> np.ndarray:
    """A part of a tensor."""
    leaf, layer = self._places[name]
    if self._kept is None or self._kept[0] != leaf:
      self._kept = (leaf, self._restore(leaf))
    array = self._kept[1]
    return np.array((array if layer is None else array[layer])[index])

  def _restore(self, name: str) -> np.ndarray:
    parent = name.rpartition('/')[0]
    array = self._leaf(name, self._stored[name])
    updates = {leaf: self._updates.get(f'{parent}/{leaf}') for leaf in adaptation.LEAVES}
    if not name.endswith('/kernel') or None in updates.values():
      return array
    read = {leaf: self._leaf(f'{parent}/{leaf}', stored) for leaf, stored in updates.items()}
    return np.asarray(adaptation.merged({'kernel': array, **read})['kernel'])

  def _leaf(self, name: str, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    from t5x_lite.training import orbax_store

    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract: Any = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    for part in reversed(['params', *name.split('/')]):
      abstract = {part: abstract}
    (array,) = jax.tree.leaves(orbax_store.read_arrays(self._folder, abstract, partial=True))
    return np.asarray(array)


def _of_layer(name: str, layer: int) -> str:
  return '/'.join(f'{part}_{layer}' if part == 'layers' else part for part in name.split('/'))


def write(folder: pathlib.Path, module: Any, params: Any, *, with_vocabulary: bool) -> None:
  """Writes a MODEL_DIR of parameters alone, as step 0: what `infer` reads and a run can start from.

  Args:
    folder: where, an empty folder.
    module: the model.
    params: its parameters.
    with_vocabulary: whether the tokenizer's files will lie there, too.
  """
  (folder / CONFIG_FILE).write_text(gin_text(module, with_vocabulary=with_vocabulary), encoding='utf-8')
  checkpointer = checkpoints.Checkpointer(folder)
  try:
    state = {'params': params, 'step': jnp.zeros((), jnp.int32)}
    checkpointer.save(0, state, data_state={}, config={})
  finally:
    checkpointer.close()


def gin_text(module: Any, *, with_vocabulary: bool) -> str:
  """The config.gin that makes a module, and its tokenizer of the files beside it, wherever the folder is moved."""
  names = registry.Registry()

  def short(target: Callable[..., Any]) -> str:
    return names.short_name(f'{target.__module__}.{target.__name__}')

  model, config = short(type(module)), short(type(module.config))
  fields = {field.name: getattr(module.config, field.name) for field in dataclasses.fields(module.config)}
  macros = {_MACROS[name]: value for name, value in fields.items() if name in _MACROS}
  lines = [f'# Written by t5x_lite {t5x_lite.__version__}: a model without the run that made it.', '']
  lines += [f'{MODEL} = @{model}()', f'TASK_FEATURE_LENGTHS = {_LENGTHS!r}']
  lines += [f'{name} = {value!r}' for name, value in macros.items()]
  if with_vocabulary:
    lines += [f'{VOCABULARY} = @load_tokenizer()', '', f'load_tokenizer.directory = %{ginfiles.FOLDER}']
  else:
    lines += [f'{VOCABULARY} = None  # none was saved with it']
  features = families.features_of(module)
  if features is not None:
    lines += ['', f'FEATURES = @{features}()', 'DatasetConfig.features = %FEATURES']
  lines += ['', f'{model}.config = @{config}()', '', f'{config}:']
  lines += [f'  {name} = {f"%{_MACROS[name]}" if name in _MACROS else repr(value)}' for name, value in fields.items()]
  return '\n'.join(lines) + '\n'
