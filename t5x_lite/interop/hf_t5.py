"""T5 1.0, T5 1.1, mT5 and FLAN-T5 as Hugging Face keeps them (`T5ForConditionalGeneration` and its siblings)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from t5x_lite.core import errors
from t5x_lite.interop import hf_config, hf_fields
from t5x_lite.interop.layouts import TRANSPOSED
from t5x_lite.interop.names import Entry, Table, prefixed
from t5x_lite.models.t5 import T5, T5Config

MODEL_TYPES = ('t5', 'mt5')

_CLASSES: dict[str, tuple[str, ...]] = {
  'T5ForConditionalGeneration': ('lm',),
  'T5Model': (),
  'T5EncoderModel': (),
  'T5ForSequenceClassification': ('classification',),
  'T5ForQuestionAnswering': ('span',),
  'T5ForTokenClassification': ('tagging',),
}
# The heads of each class that writes checkpoints.
ARCHITECTURES: dict[str, tuple[str, ...]] = {
  **_CLASSES,
  **{f'M{name}': heads for name, heads in _CLASSES.items()},
  'T5WithLMHeadModel': ('lm',),  # the name before transformers 3
}
_CLASSIFYING = {'classification', 'tagging'}
_ENCODERS_ALONE = ('T5EncoderModel', 'T5ForTokenClassification')

# What transformers' config classes fall back on where a config.json does not say.
_DEFAULTS: dict[str, Any] = {
  'vocab_size': 32128,
  'd_model': 512,
  'd_kv': 64,
  'd_ff': 2048,
  'num_layers': 6,
  'num_decoder_layers': None,
  'num_heads': 8,
  'relative_attention_num_buckets': 32,
  'relative_attention_max_distance': 128,
  'dropout_rate': 0.1,
  'layer_norm_epsilon': 1e-6,
  'feed_forward_proj': 'relu',
}
_MT5_DEFAULTS = {'vocab_size': 250112, 'd_ff': 1024, 'num_layers': 8, 'num_heads': 6, 'feed_forward_proj': 'gated-gelu'}

# Rates of dropout that are ours only as far as they are `dropout_rate`.
DROPOUT_FIELDS = ('classifier_dropout',)

_THEIR_ACTIVATIONS = {
  ('relu',): 'relu',
  ('gelu_exact',): 'gelu',
  ('gelu',): 'gelu_new',
  ('silu',): 'silu',
  ('gelu', 'linear'): 'gated-gelu',
  ('relu', 'linear'): 'gated-relu',
  ('silu', 'linear'): 'gated-silu',
}


def module_from_hf(
  config: Mapping[str, Any], *, heads: tuple[str, ...] | None = None, num_labels: int | None = None
) -> T5:
  """The module that a `config.json` describes.

  In transformers 4 `tie_word_embeddings` says whether the embedding table is the output projection, too, and whether
  outputs are scaled. transformers 5 ties whatever is not stored apart, and writes `scale_decoder_outputs`; an mT5's are
  never scaled. So a T5 that is tied and not scaled is read as an untied one, with two equal tables.

  Args:
    config: as read from the file.
    heads: which heads it is to have; None: those of the class in its `architectures`, or else the language model.
    num_labels: outputs of classification and tagging; None: as many as the file names.

  Raises:
    UsageError: a T5 that we do not have.
  """
  mt5 = config.get('model_type') == 'mt5'
  known = hf_fields.known_fields(config, {**_DEFAULTS, **_MT5_DEFAULTS} if mt5 else _DEFAULTS)
  own_heads = hf_config.heads('T5', config, ARCHITECTURES, ('lm',))
  hf_config.check_values('a T5', known, {'layer_norm_epsilon': 1e-6})
  scaled = config.get('scale_decoder_outputs', config.get('tie_word_embeddings') is not False)
  decoder_layers = known['num_decoder_layers']
  if any(name.removeprefix('M') in _ENCODERS_ALONE for name in hf_config.class_names(config)):
    decoder_layers = 0
  return T5(
    T5Config(
      vocab_size=known['vocab_size'],
      emb_dim=known['d_model'],
      num_heads=known['num_heads'],
      head_dim=known['d_kv'],
      mlp_dim=known['d_ff'],
      num_encoder_layers=known['num_layers'],
      num_decoder_layers=known['num_layers'] if decoder_layers is None else decoder_layers,
      mlp_activations=_activations(known['feed_forward_proj']),
      heads=own_heads if heads is None else tuple(heads),
      num_labels=hf_config.num_labels(config) if num_labels is None else num_labels,
      logits_via_embedding=not mt5 and bool(scaled),
      dropout_rate=float(known['dropout_rate']),
      relative_attention_num_buckets=known['relative_attention_num_buckets'],
      relative_attention_max_distance=known['relative_attention_max_distance'],
    )
  )


def _activations(projection: str) -> tuple[str, ...]:
  """Ours for a `feed_forward_proj`."""
  name = projection.removeprefix('gated-')
  if name == projection:
    return (hf_config.activation('feed_forward_proj', name),)
  if name not in hf_config.ACTIVATIONS:
    raise errors.unknown('feed_forward_proj', projection, [f'gated-{each}' for each in hf_config.ACTIVATIONS])
  # Their gated 'gelu' is the tanh form, their plain one is not.
  return ('gelu' if name == 'gelu' else hf_config.ACTIVATIONS[name], 'linear')


def config_to_hf(module: T5) -> dict[str, Any]:
  """The `config.json` of a module, as of a T5.

  Raises:
    UsageError: transformers has no such T5.
  """
  config = module.config
  activations = tuple(config.mlp_activations)
  if activations not in _THEIR_ACTIVATIONS:
    raise errors.UsageError(f"mlp_activations={activations}: transformers' T5 has {list(_THEIR_ACTIVATIONS)}")
  hf_config.check_exportable('a T5', config, {'positions': 'relative'}, free_heads=True)
  return {
    'architectures': [_class_of(config)],
    'model_type': 't5',
    'is_encoder_decoder': config.num_decoder_layers > 0,
    'vocab_size': config.vocab_size,
    'd_model': config.emb_dim,
    'd_kv': config.head_dim,
    'd_ff': config.mlp_dim,
    'num_layers': config.num_encoder_layers,
    'num_decoder_layers': config.num_decoder_layers or config.num_encoder_layers,
    'num_heads': config.num_heads,
    'relative_attention_num_buckets': config.relative_attention_num_buckets,
    'relative_attention_max_distance': config.relative_attention_max_distance,
    'dropout_rate': config.dropout_rate,
    'layer_norm_epsilon': 1e-6,
    'feed_forward_proj': _THEIR_ACTIVATIONS[activations],
    'tie_word_embeddings': config.logits_via_embedding,
    'scale_decoder_outputs': config.logits_via_embedding,
    'pad_token_id': 0,
    'eos_token_id': 1,
    'decoder_start_token_id': 0,
    **(_classifier(config) if _CLASSIFYING & set(config.heads) else {}),
  }


def _classifier(config: T5Config) -> dict[str, Any]:
  return {'classifier_dropout': config.dropout_rate, **hf_config.labels(config.num_labels)}


def variant(config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
  """The same `config.json` under the name of the model type that it was read from: an mT5 stays one."""
  if model_type != 'mt5' or config['scale_decoder_outputs']:  # whose outputs are never scaled
    return dict(config)
  return {**config, 'model_type': 'mt5', 'architectures': [f'M{name}' for name in config['architectures']]}


def _class_of(config: T5Config) -> str:
  named = {name in _ENCODERS_ALONE: name for name, heads in _CLASSES.items() if heads == tuple(config.heads)}
  encoder_alone = config.num_decoder_layers == 0
  if encoder_alone in named:
    return named[encoder_alone]
  if named and not encoder_alone:
    raise errors.UsageError(
      f"heads {config.heads} with a decoder: transformers' {named[True]} is an encoder alone, so load with "
      'num_decoder_layers=0'
    )
  side = 'with a decoder' if config.num_decoder_layers else 'of an encoder alone'
  raise errors.UsageError(f"heads {config.heads} {side}: transformers' T5s have {sorted(set(_CLASSES.values()))}")


def table(module: T5) -> Table:
  """The names of all parameters."""
  config = module.config
  wrapped = bool(_CLASSIFYING & set(config.heads))
  tied = config.logits_via_embedding and 'lm' in config.heads
  return (
    *prefixed('transformer.', _body(config.num_decoder_layers > 0, tied), written=wrapped),
    # A T5 that is saved without `lm_head` has the embedding table there.
    Entry('logits_dense/embedding', 'lm_head.weight', also=('shared.weight',), vocabulary=0),
    *_linear('heads/pooler', 'classification_head.dense'),
    *_linear('heads/classification', 'classification_head.out_proj'),
    *_linear('heads/span', 'qa_outputs'),
    *_linear('heads/tagging', 'classifier'),
  )


def _linear(ours: str, theirs: str) -> Iterator[Entry]:
  yield Entry(f'{ours}/kernel', f'{theirs}.weight', TRANSPOSED, head=True)
  yield Entry(f'{ours}/bias', f'{theirs}.bias', head=True)


def _body(decoder: bool, tied: bool) -> Iterator[Entry]:
  # Files of the old format have copies of the one embedding table.
  copies = ('encoder.embed_tokens.weight', 'decoder.embed_tokens.weight', *(['lm_head.weight'] if tied else []))
  yield Entry('token_embedder/embedding', 'shared.weight', also=copies, tied=copies, vocabulary=0)
  yield from _stack('encoder', ('self_attention', 'mlp'))
  if decoder:
    yield from _stack('decoder', ('self_attention', 'cross_attention', 'mlp'))


_ATTENTION = {'self_attention': 'SelfAttention', 'cross_attention': 'EncDecAttention'}


def _stack(side: str, sublayers: tuple[str, ...]) -> Iterator[Entry]:
  yield Entry(f'{side}/norm/scale', f'{side}.final_layer_norm.weight')
  # Theirs is kept by the first layer, and lies the other way round.
  bias = f'{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight'
  yield Entry(f'{side}/relpos_bias/rel_embedding', bias, TRANSPOSED)
  for number, sublayer in enumerate(sublayers):
    ours, theirs = f'{side}/blocks/{{layer}}/{sublayer}', f'{side}.block.{{layer}}.layer.{number}'
    yield Entry(f'{ours}_norm/scale', f'{theirs}.layer_norm.weight')
    if sublayer == 'mlp':
      for name in ('wi', 'wi_0', 'wi_1', 'wo'):
        yield Entry(f'{ours}/{name}/kernel', f'{theirs}.DenseReluDense.{name}.weight', TRANSPOSED)
    else:
      for name, letter in (('query', 'q'), ('key', 'k'), ('value', 'v'), ('out', 'o')):
        yield Entry(f'{ours}/{name}/kernel', f'{theirs}.{_ATTENTION[sublayer]}.{letter}.weight', TRANSPOSED)
