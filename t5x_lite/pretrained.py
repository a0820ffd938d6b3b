"""Published models, as one object: load them, call them as in transformers, train them here, hand them back."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from t5x_lite import generation, model_dir, prompts, saved_config, stored_models
from t5x_lite.core import errors
from t5x_lite.data.vocabularies.tokenizers import Tokenizer
from t5x_lite.decoding.config import GenerationConfig
from t5x_lite.generation import Generated, Writer
from t5x_lite.head_answers import AnswersByHead
from t5x_lite.interop import export, folders, hf_call, hf_families, sentence_transformers
from t5x_lite.interop.loading import Fresh, Report
from t5x_lite.models.heads import EMBEDDING
from t5x_lite.partitioning import sharding
from t5x_lite.partitioning.rules import STANDARD_RULES

FORMATS = ('hf', 't5x_lite')
_log = logging.getLogger(__name__)


class Pretrained(AnswersByHead):
  """A model with its parameters, vocabulary and configuration.

  Attributes:
    module: the model.
    params: its parameters, float32, a dict of dicts.
    config: the config.json of transformers: as it was read, or as it would be exported.
    report: what became of the tensors that were read, and which parameters are new.
    assistant_model: a smaller model that drafts what this one writes, where `generate` is told none.
  """

  def __init__(
    self, module: nn.Module, params: Any, stored: stored_models.StoredModel, report: Report, mesh: Mesh | None = None
  ):
    self.module, self.params, self.report = module, params, report
    self.config: Mapping[str, Any] = stored.config
    self.assistant_model: Pretrained | None = None
    self._stored, self._mesh = stored, mesh
    self._jitted = jax.jit(functools.partial(_outputs, module, self.config), static_argnames='choices')

  @functools.cached_property
  def tokenizer(self) -> Tokenizer | None:
    """The vocabulary, opened at first use; None where there is none beside the weights."""
    return self._stored.open_tokenizer()

  def __call__(self, **arguments: Any) -> dict[str, np.ndarray]:
    """Outputs by the names of transformers, float32, for arguments by its names; compiled once for each shape.

    Args:
      **arguments: arrays. `input_ids` `[B, L]`, `attention_mask`, `token_type_ids`, `position_ids`,
        `decoder_input_ids`, `decoder_attention_mask`, `perm_mask`, `target_mapping`, `mems`; and for a `loss`, as
        transformers computes it, `labels` (-100 is not counted), `next_sentence_label`, `start_positions`,
        `end_positions`.

    Returns:
      `logits`, `last_hidden_state`, `encoder_last_hidden_state`, `pooler_output`, `prediction_logits`,
      `seq_relationship_logits`, `start_logits`, `end_logits`, `mems`, `loss`: those that the model has.

    Raises:
      UsageError: an argument that this model does not take, of another shape or out of range, or one that is missing.
    """
    inputs, targets = hf_call.split_arguments(self.module, arguments, self.config)
    batch = hf_call.batch_of(self.module, self.config, inputs, targets)
    mems = np.swapaxes(inputs['mems'], 1, 2) if 'mems' in inputs else None
    choices = inputs['input_ids'].shape[1] if inputs['input_ids'].ndim == 3 else None
    if self._mesh is None:
      named = self._jitted(self.params, batch, targets, mems, choices=choices)
    else:
      with sharding.scope(self._mesh, STANDARD_RULES):
        named = self._jitted(self.params, batch, targets, mems, choices=choices)
    return {name: np.asarray(value) for name, value in named.items()}

  @functools.cached_property
  def generation_config(self) -> GenerationConfig:
    """What `generate` does if not told otherwise: generation_config.json, or the ids that config.json tells."""
    stored, names = self._stored, ('bos_token_id', 'eos_token_id', 'pad_token_id', 'decoder_start_token_id')
    said = dict(stored.generation or {name: self.config.get(name) for name in names})
    if stored.exported and self.tokenizer is not None:
      said |= {'eos_token_id': self.tokenizer.eos_id, 'pad_token_id': self.tokenizer.pad_id}
      said['bos_token_id'] = said['eos_token_id']  # what our decoders read first
    if hasattr(self.module, 'encode') and said.get('decoder_start_token_id') is None and stored.exported:
      said['decoder_start_token_id'] = 0
    return GenerationConfig.of_file(said)

  @functools.cached_property
  def writer(self) -> Writer:
    """Writes with this model. Raises UsageError where the model writes nothing."""
    return Writer(self.module, self.params, self._mesh)

  def generate(
    self,
    inputs: Any = None,
    *,
    attention_mask: Any = None,
    decoder_input_ids: Any = None,
    generation_config: GenerationConfig | None = None,
    seed: int = 0,
    rows: Sequence[int] | None = None,
    assistant_model: Pretrained | None = None,
    **options: Any,
  ) -> Generated:
    """Writes text, as `generate` of transformers does, by options of the same names (see `GenerationConfig`).

    Args:
      inputs: a text or a list of texts; or ids `[L]`, `[B, L]`, or rows of any lengths, padded on any side or not.
        None: the id that begins a text.
      attention_mask: `[B, L]`, 0 at what is padding; None: padding is the padding id, if it does not end texts as well.
      decoder_input_ids: ids `[P]` or `[B, P]` that the output of an encoder-decoder begins with. As in transformers the
        start token is put in front where no row has it there, and `max_length` counts them.
      generation_config: the options, instead of this model's own.
      seed: of what is drawn.
      rows: numbers of the inputs, by which they draw, so that an input is continued alike in any batch; None: their
        places.
      assistant_model: a smaller model of the same kind and vocabulary, which drafts `num_assistant_tokens` at a time
        (see `decoding.speculative`). Greedily the ids are those without it; what is drawn has the same distribution.
      **options: such as `num_beams=4`, `max_new_tokens=64`, `do_sample=True`, `top_p=0.9`; they go before
        those of the configuration.

    Raises:
      UsageError: a model that writes nothing, an option that there is not, options that do not go together, an empty
        input or one that is too long; an assistant of another vocabulary.
    """
    writer = self.writer
    assistant = self.assistant_model if assistant_model is None else assistant_model
    config = (self.generation_config if generation_config is None else generation_config).with_options(options)
    if assistant is not None:
      check_assists(self, assistant, config)
    rows_of_ids, width = prompts.prompts(
      inputs,
      attention_mask,
      tokenizer=None if not _has_text(inputs) else self.tokenizer,
      config=config,
      vocab_size=self.module.config.vocab_size,
      encodes=writer.encodes,
      begin=self._begin,
    )
    starts = None
    if writer.encodes:
      starts = prompts.decoder_prompts(decoder_input_ids, len(rows_of_ids), config, self.module.config.vocab_size)
    elif decoder_input_ids is not None:
      raise errors.UsageError(
        f'decoder_input_ids for model {type(self.module).__name__}: it has no encoder, expected all ids as inputs'
      )
    written, decoding = writer(
      rows_of_ids,
      config,
      seed=seed,
      tokenizer=self.tokenizer if config.stop_strings else None,
      num_tokens=self._num_tokens,
      width=width,
      numbers=rows,
      assistant=None if assistant is None else assistant.writer,
      starts=starts,
    )
    return generation.result(written, decoding, rows_of_ids, width, starts=starts, tokenizer=self.tokenizer)

  def prompt_ids(self, text: str) -> np.ndarray:
    """The ids, int32 `[L]`, that `generate` makes of a text. Raises UsageError where there are none."""
    found, _ = prompts.prompts(
      text,
      None,
      tokenizer=self.tokenizer,
      config=self.generation_config,
      vocab_size=self.module.config.vocab_size,
      encodes=hasattr(self.module, 'encode') and hasattr(self.module, 'decode_with_cache'),
      begin=self._begin,
    )
    return found[0]

  @property
  def source(self) -> str:
    """Where it was read from."""
    return self._stored.origin

  @property
  def is_own(self) -> bool:
    """Whether a run of ours made it."""
    return self._stored.exported

  @property
  def may_lack_answer(self) -> bool:
    """Whether it learned that questions may have no answer."""
    return self._stored.may_lack_answer

  @property
  def num_devices(self) -> int:
    """Over which the rows of a batch must divide."""
    return 1 if self._mesh is None else int(self._mesh.size)

  @property
  def _begin(self) -> int | None:
    """What our own decoders read before a text."""
    own = self._stored.exported and type(self.module).__name__ == 'Gpt'
    return self.generation_config.bos_token_id if own else None

  @property
  def begin(self) -> tuple[int, ...]:
    """The id that stands before every text which the model goes on from, if one does."""
    return () if self._begin is None else (self._begin,)

  @property
  def _num_tokens(self) -> int | None:
    """Of our own models, whose tables may have more rows than that, the size of the vocabulary."""
    return self.tokenizer.vocab_size if self._stored.exported and self.tokenizer is not None else None

  def jitted(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of parameters and batches, compiled, as one of batches of NumPy arrays to NumPy arrays.

    Rows are spread over the devices; their number must divide over them.
    """
    if self._mesh is None:
      program = jax.jit(function)
      return lambda *batch: jax.tree.map(np.asarray, program(self.params, *batch))
    mesh = self._mesh
    whole = jax.jit(function, out_shardings=sharding.replicated(mesh))

    def call(*batch: Any) -> Any:
      count = len(jax.tree.leaves(batch)[0])
      own = sharding.process_rows(mesh, STANDARD_RULES, count)
      leaves, structure = jax.tree.flatten(batch)
      named = {str(place): np.asarray(leaf)[own] for place, leaf in enumerate(leaves)}
      placed = sharding.shard_batch(named, mesh, STANDARD_RULES, count)
      with sharding.scope(mesh, STANDARD_RULES):
        found = whole(self.params, *structure.unflatten(placed[str(place)] for place in range(len(leaves))))
      return jax.tree.map(np.asarray, found)

    return call

  def save(
    self,
    directory: str | os.PathLike[str],
    format: str = 'hf',
    *,
    overwrite: bool = False,
    max_shard_size: int | str = '5GB',
  ) -> None:
    """Writes a directory that transformers loads with `from_pretrained`, or one of our MODEL_DIRs.

    Args:
      directory: must not be there, or be empty. It is there only when it is whole.
      format: 'hf' (safetensors, config.json, generation_config.json, the tokenizer's files), or 't5x_lite' (config.gin
        and a checkpoint of step 0, which `load_pretrained`, `infer` and `INITIAL_CHECKPOINT_PATH` take).
      overwrite: whether what is there may be replaced, if it looks like a model.
      max_shard_size: with 'hf', bytes of a file at most.

    Raises:
      UsageError: it is there, it cannot be written, or transformers has no such model.
    """
    if format not in FORMATS:
      raise errors.unknown('format', format, FORMATS)
    export.parse_size(max_shard_size)
    to_hf = format == 'hf'
    config = (saved_config.exported if to_hf else saved_config.described)(self.module, self._stored, self.tokenizer)
    with folders.new_folder(directory, overwrite=overwrite, source=self._stored.origin) as folder:
      if to_hf:
        table = hf_families.family_of_module(self.module).table(self.module)
        specs = export.their_specs(table, self.params)
        export.write_weights(folder, specs, export.export(table, self.params), max_shard_size=max_shard_size)
      else:
        model_dir.write(folder, self.module, self.params, with_vocabulary=self.tokenizer is not None)
      options = saved_config.generation(self.module, self._stored, config)
      for name, content in ((hf_families.CONFIG_FILE, config), (stored_models.GENERATION_FILE, options)):
        if content:
          export.write_json(folder / name, content)
      if to_hf and EMBEDDING in getattr(self.module.config, 'heads', ()):
        sentence_transformers.write(folder, self.module.config)
      if self.tokenizer is not None:
        self.tokenizer.save(folder)


def _outputs(
  module: Any,
  config: Mapping[str, Any],
  params: Any,
  batch: Mapping[str, jax.Array],
  targets: Mapping[str, jax.Array],
  mems: jax.Array | None,
  *,
  choices: int | None,
) -> dict[str, jax.Array]:
  more = {} if mems is None else {'mems': mems}
  outputs = module.apply({'params': params}, batch, method='outputs', **more)
  named = hf_call.named_outputs(module, outputs, choices)
  loss = hf_call.loss_of(module, config, named, targets)
  return named if loss is None else {'loss': loss, **named}


def check_assists(model: Pretrained, assistant: Pretrained, config: GenerationConfig) -> None:
  """Raises UsageError unless a model can draft what another one writes by these options."""
  if not isinstance(assistant, Pretrained):
    raise errors.UsageError(f'assistant_model is {assistant!r}: expected what load_pretrained returns')
  generation.check_assists(model.writer, assistant.writer, config)
  own, other = model.tokenizer, assistant.tokenizer
  if own is None or other is None or own.fingerprint == other.fingerprint:
    return  # without a tokenizer nobody can tell
  from t5x_lite.data.vocabularies.token_bytes import token_bytes

  if token_bytes(own) != token_bytes(other):  # the same vocabulary may lie in files of two kinds
    raise errors.UsageError(
      f'assistant_model {assistant.source} has another vocabulary than {model.source}: expected the same'
    )


def _has_text(inputs: Any) -> bool:
  return isinstance(inputs, str) or (isinstance(inputs, list | tuple) and any(isinstance(x, str) for x in inputs))


def load_pretrained(
  source: str | os.PathLike[str],
  *,
  model: nn.Module | str | None = None,
  mesh: Mesh | None = None,
  revision: str | None = None,
  seed: int = 0,
  **changes: Any,
) -> Pretrained:
  """Loads a model: every device's part of every parameter is read straight to that device, and nothing else.

  Args:
    source: a directory as transformers saves it, or a name on the Hugging Face hub (`google-t5/t5-small`; the
      environment variables `HF_HUB_OFFLINE`, `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` are respected); a MODEL_DIR of ours,
      or one checkpoint in it; a T5X checkpoint.
    model: a module, or a gin file such as `models/t5_base.gin`: what is expected there. A T5X checkpoint says by its
      arrays what sizes it has, and no more.
    mesh: where the parameters go, by the standard rules; None: to the first device.
    revision: branch, tag or commit on the hub.
    seed: of parameters that are new: heads, rows of a longer vocabulary.
    **changes: fields of the module's configuration to change, such as `dtype='bfloat16'`, `scan_layers=False`,
      `heads=('classification',)` (one may stand alone), `num_labels=3`, `vocab_size=32200`. A head that is not stored
      is initialised. Rows of the vocabulary are added or dropped at its end. `Pretrained.report` tells, and so does the
      log.

  Raises:
    UsageError: nothing that can be read, or something that does not fit.
  """
  stored = stored_models.open_model(source, model=model, revision=revision)
  config = stored.module.config
  module = type(stored.module)(dataclasses.replace(config, **_checked(changes, config)))
  stored_models.check_same(stored, module)
  abstract = stored_models.placed(module, mesh)
  fresh = stored_models.fresh_params(module, abstract, seed)
  params, report = stored.read(module, abstract, fresh=fresh, resize='vocab_size' in changes)
  for line in report.lines():
    _log.warning('%s: %s', stored.origin, line)
  return Pretrained(module, params, stored, report, mesh)


def _checked(changes: Mapping[str, Any], config: Any) -> dict[str, Any]:
  """Changes to the fields of a configuration; one head may stand without its tuple, and lists are tuples.

  Raises:
    UsageError: a field that there is not, or heads that are none.
  """
  known = [field.name for field in dataclasses.fields(config)]
  for name in changes:
    if name not in known:
      raise errors.unknown(f'field of {type(config).__name__}', name, known)
  checked = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
  if 'heads' in checked:
    heads = (checked['heads'],) if isinstance(checked['heads'], str) else checked['heads']
    if not isinstance(heads, tuple) or not all(isinstance(head, str) for head in heads):
      raise errors.UsageError(f'heads is {heads!r}: expected names of heads, such as ("classification",)')
    if len(set(heads)) < len(heads):
      raise errors.UsageError(f'heads is {heads!r}: expected each of them once')
    checked['heads'] = heads
  return checked


def restore_params(
  path: str | os.PathLike[str], module: nn.Module, abstract: Any, fresh: Mapping[str, jax.Array], *, resize: bool
) -> tuple[Any, list[str]]:
  """The parameters of whatever `load_pretrained` reads, for a run of another module: what its warm start begins with.

  Args:
    path: as its `source`.
    module: of the run.
    abstract: its parameters as shapes with shardings.
    fresh: its parameters as initialised, by name: what is not stored is taken from there.
    resize: whether the vocabulary may be of another length there.

  Returns:
    The parameters, and a line for each kind of thing that was not read as it is.

  Raises:
    UsageError: as `load_pretrained`; or it holds another model than the run's.
  """
  stored = stored_models.open_model(path, model=module)
  choose: Fresh = lambda names: {name: fresh[name] for name in names}  # noqa: E731
  params, report = stored.read(module, abstract, fresh=choose, resize=resize)
  return params, report.lines()
