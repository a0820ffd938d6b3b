"""XLNet as Hugging Face keeps it (transformers' `XLNetLMHeadModel` and its siblings)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from t5x_lite.core import errors
from t5x_lite.interop import hf_config, hf_fields
from t5x_lite.interop.layouts import SAME, TRANSPOSED, Heads, Layout
from t5x_lite.interop.names import Entry, Table, prefixed
from t5x_lite.models.xlnet import Xlnet, XlnetConfig

MODEL_TYPES = ('xlnet',)

# The heads of each class that writes checkpoints. `XLNetForQuestionAnswering`, which searches for spans by beams, is
# another model than the simple one.
ARCHITECTURES: dict[str, tuple[str, ...]] = {
  'XLNetLMHeadModel': ('lm',),
  'XLNetModel': (),
  'XLNetForSequenceClassification': ('classification',),
  'XLNetForMultipleChoice': ('multiple_choice',),
  'XLNetForQuestionAnsweringSimple': ('span',),
  'XLNetForTokenClassification': ('tagging',),
}

# What transformers' config class falls back on where a config.json does not say.
_DEFAULTS: dict[str, Any] = {
  'vocab_size': 32000,
  'd_model': 1024,
  'n_layer': 24,
  'n_head': 16,
  'd_head': None,
  'd_inner': 4096,
  'ff_activation': 'gelu',
  'attn_type': 'bi',
  'initializer_range': 0.02,
  'layer_norm_eps': 1e-12,
  'dropout': 0.1,
  'mem_len': 512,
  'reuse_len': None,
  'bi_data': False,
  'clamp_len': -1,
  'same_length': False,
}
# Older and general names of the same fields.
ALIASES = {
  'n_token': 'vocab_size',
  'hidden_size': 'd_model',
  'num_attention_heads': 'n_head',
  'num_hidden_layers': 'n_layer',
}
# Rates of dropout that are ours only as far as they are `dropout`.
DROPOUT_FIELDS = ('summary_last_dropout',)
# How the vector that a head reads is made of a row, where it is made as here.
_SUMMARY = {'summary_type': 'last', 'summary_use_proj': True, 'summary_activation': 'tanh'}
_SUMMARISING = {'pooler', 'classification', 'multiple_choice'}


def module_from_hf(
  config: Mapping[str, Any], *, heads: tuple[str, ...] | None = None, num_labels: int | None = None
) -> Xlnet:
  """The module that a `config.json` describes.

  Args:
    config: as read from the file.
    heads: which heads it is to have; None: those of the class in its `architectures`, or else the language model.
    num_labels: outputs of classification and tagging; None: as many as the file names.

  Raises:
    UsageError: an XLNet that we do not have.
  """
  known = hf_fields.known_fields(config, _DEFAULTS, ALIASES)
  own_heads = hf_config.heads('XLNet', config, ARCHITECTURES, ('lm',))
  heads = own_heads if heads is None else tuple(heads)
  hf_config.check_values('an XLNet', config, {'tie_word_embeddings': True})
  if _SUMMARISING & set(heads):
    hf_config.check_values('an XLNet', config, _SUMMARY)
  width, count = known['d_model'], known['n_head']
  if width % count:
    raise errors.UsageError(f'd_model is {width}: expected a multiple of the {count} heads')
  return Xlnet(
    XlnetConfig(
      vocab_size=known['vocab_size'],
      emb_dim=width,
      num_heads=count,
      head_dim=known['d_head'] or width // count,
      mlp_dim=known['d_inner'],
      mlp_activations=(hf_config.activation('ff_activation', known['ff_activation']),),
      heads=heads,
      num_labels=hf_config.num_labels(config) if num_labels is None else num_labels,
      dropout_rate=float(known['dropout']),
      num_layers=known['n_layer'],
      attn_type=known['attn_type'],
      same_length=known['same_length'],
      bi_data=known['bi_data'],
      clamp_len=max(known['clamp_len'], 0),
      mem_len=known['mem_len'] or 0,
      reuse_len=known['reuse_len'] or 0,
      norm_epsilon=float(known['layer_norm_eps']),
      initializer_range=float(known['initializer_range']),
    )
  )


def config_to_hf(module: Xlnet) -> dict[str, Any]:
  """The `config.json` of a module. Of tokens it knows no ids: what these are is for the tokenizer to say.

  Raises:
    UsageError: transformers has no such XLNet.
  """
  config = module.config
  hf_config.check_exportable('an XLNet', config, {})
  return {
    'architectures': [hf_config.architecture(config.heads, ARCHITECTURES)],
    'model_type': 'xlnet',
    'vocab_size': config.vocab_size,
    'd_model': config.emb_dim,
    'n_layer': config.num_layers,
    'n_head': config.num_heads,
    'd_head': config.head_dim,
    'd_inner': config.mlp_dim,
    'ff_activation': hf_config.their_activation(config),
    'attn_type': config.attn_type,
    'same_length': config.same_length,
    'bi_data': config.bi_data,
    'clamp_len': config.clamp_len or -1,
    'mem_len': config.mem_len or None,
    'reuse_len': config.reuse_len or None,
    'layer_norm_eps': config.norm_epsilon,
    'initializer_range': config.initializer_range,
    'dropout': config.dropout_rate,
    'summary_last_dropout': config.dropout_rate,
    **_SUMMARY,
    'untie_r': True,
    # The head of spans has as many outputs as there are labels.
    **hf_config.labels(2 if 'span' in config.heads else config.num_labels),
  }


def table(module: Xlnet) -> Table:
  """The names of all parameters."""
  config = module.config
  return (
    # The bare model's own file lacks the prefix.
    *prefixed('transformer.', _body(config.num_heads), written=bool(config.heads)),
    Entry('lm/bias', 'lm_loss.bias', head=True, vocabulary=0),
    *_linear('heads/pooler', 'sequence_summary.summary'),
    *_linear('heads/classification', 'logits_proj'),
    *_linear('heads/multiple_choice', 'logits_proj'),
    *_linear('heads/span', 'qa_outputs'),
    *_linear('heads/tagging', 'classifier'),
  )


def _linear(ours: str, theirs: str) -> Iterator[Entry]:
  yield Entry(f'{ours}/kernel', f'{theirs}.weight', TRANSPOSED, head=True)
  yield Entry(f'{ours}/bias', f'{theirs}.bias', head=True)


def _body(num_heads: int) -> Iterator[Entry]:
  # Files of the old format have a copy of the table, which is the output projection, too.
  yield Entry('tokens/embedding', 'word_embedding.weight', tied=('lm_loss.weight',), vocabulary=0)
  yield Entry('mask_emb', 'mask_emb', Layout(ones=2))
  ours, theirs = 'blocks/{layer}', 'layer.{layer}'
  attention, mlp = f'{theirs}.rel_attn', f'{theirs}.ff'
  split = Layout(heads=Heads(1, num_heads))
  for name, letter in (('query', 'q'), ('key', 'k'), ('value', 'v'), ('position', 'r')):
    yield Entry(f'{ours}/self_attention/{name}/kernel', f'{attention}.{letter}', split)
  # [N * H, D] here and [D, N, H] there.
  yield Entry(f'{ours}/self_attention/out/kernel', f'{attention}.o', Layout(heads=Heads(0, num_heads), order=(2, 0, 1)))
  for name in ('r_w_bias', 'r_r_bias', 'r_s_bias', 'seg_embed'):
    yield Entry(f'{ours}/self_attention/{name}', f'{attention}.{name}', SAME)
  for norm, owner in (('self_attention_norm', attention), ('mlp_norm', mlp)):
    yield Entry(f'{ours}/{norm}/scale', f'{owner}.layer_norm.weight')
    yield Entry(f'{ours}/{norm}/bias', f'{owner}.layer_norm.bias')
  for name, number in (('wi', 1), ('wo', 2)):
    yield Entry(f'{ours}/mlp/{name}/kernel', f'{mlp}.layer_{number}.weight', TRANSPOSED)
    yield Entry(f'{ours}/mlp/{name}/bias', f'{mlp}.layer_{number}.bias')
