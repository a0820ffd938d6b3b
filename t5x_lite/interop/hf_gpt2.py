"""GPT-2 as Hugging Face keeps it (transformers' `GPT2LMHeadModel` and its siblings)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from t5x_lite.core import errors
from t5x_lite.interop import hf_config, hf_fields
from t5x_lite.interop.layouts import SAME, TRANSPOSED, Layout, fused
from t5x_lite.interop.names import Entry, Table, prefixed
from t5x_lite.models.gpt import Gpt, GptConfig

MODEL_TYPES = ('gpt2',)

# The heads of each class that writes checkpoints. `GPT2DoubleHeadsModel`, which scores choices at a token that its
# caller points at, has a head that we do not have.
ARCHITECTURES: dict[str, tuple[str, ...]] = {
  'GPT2LMHeadModel': ('lm',),
  'GPT2Model': (),
  'GPT2ForSequenceClassification': ('classification',),
  'GPT2ForQuestionAnswering': ('span',),
  'GPT2ForTokenClassification': ('tagging',),
}

# What transformers' config class falls back on where a config.json does not say.
_DEFAULTS: dict[str, Any] = {
  'vocab_size': 50257,
  'n_positions': 1024,
  'n_embd': 768,
  'n_layer': 12,
  'n_head': 12,
  'n_inner': None,
  'activation_function': 'gelu_new',
  'resid_pdrop': 0.1,
  'layer_norm_epsilon': 1e-5,
  'initializer_range': 0.02,
}
# General names of the same fields.
ALIASES = {
  'max_position_embeddings': 'n_positions',
  'hidden_size': 'n_embd',
  'num_hidden_layers': 'n_layer',
  'num_attention_heads': 'n_head',
}
# Rates of dropout that are ours only as far as they are `resid_pdrop`.
DROPOUT_FIELDS = ('embd_pdrop', 'attn_pdrop', 'classifier_dropout')
_EXPECTED = {'scale_attn_weights': True, 'scale_attn_by_inverse_layer_idx': False, 'add_cross_attention': False}


def module_from_hf(
  config: Mapping[str, Any], *, heads: tuple[str, ...] | None = None, num_labels: int | None = None
) -> Gpt:
  """The module that a `config.json` describes.

  Its one dropout rate is `resid_pdrop`, whatever those of embeddings and attention weights are.

  Args:
    config: as read from the file.
    heads: which heads it is to have; None: those of the class in its `architectures`, or else the language model.
    num_labels: outputs of classification and tagging; None: as many as the file names.

  Raises:
    UsageError: a GPT-2 that we do not have.
  """
  known = hf_fields.known_fields(config, _DEFAULTS, ALIASES)
  own_heads = hf_config.heads('GPT-2', config, ARCHITECTURES, ('lm',))
  hf_config.check_values('a GPT-2', config, _EXPECTED)
  width, count = known['n_embd'], known['n_head']
  if width % count:
    raise errors.UsageError(f'n_embd is {width}: expected a multiple of the {count} heads')
  return Gpt(
    GptConfig(
      vocab_size=known['vocab_size'],
      emb_dim=width,
      num_heads=count,
      head_dim=width // count,
      mlp_dim=4 * width if known['n_inner'] is None else known['n_inner'],
      mlp_activations=(hf_config.activation('activation_function', known['activation_function']),),
      heads=own_heads if heads is None else tuple(heads),
      num_labels=hf_config.num_labels(config) if num_labels is None else num_labels,
      dropout_rate=float(known['resid_pdrop']),
      num_layers=known['n_layer'],
      max_length=known['n_positions'],
      norm_epsilon=float(known['layer_norm_epsilon']),
      logits_via_embedding=config.get('tie_word_embeddings') is not False,
      initializer_range=float(known['initializer_range']),
    )
  )


def config_to_hf(module: Gpt) -> dict[str, Any]:
  """The `config.json` of a module. Of tokens it knows no ids: what these are is for the tokenizer to say.

  Raises:
    UsageError: transformers has no such GPT-2.
  """
  config = module.config
  if 'local' in config.layer_pattern:
    raise errors.UsageError(f'GptConfig.layer_pattern is {config.layer_pattern}: all layers of a GPT-2 are dense')
  # How far local layers would see is no matter.
  plain = {'positions': 'learned', 'norm': 'layer', 'use_bias': True, 'attention_window': config.attention_window}
  hf_config.check_exportable('a GPT-2', config, plain)
  return {
    'architectures': [hf_config.architecture(config.heads, ARCHITECTURES)],
    'model_type': 'gpt2',
    'vocab_size': config.vocab_size,
    'n_positions': config.max_length,
    'n_embd': config.emb_dim,
    'n_layer': config.num_layers,
    'n_head': config.num_heads,
    'n_inner': config.mlp_dim,
    'activation_function': hf_config.their_activation(config),
    'resid_pdrop': config.dropout_rate,
    'embd_pdrop': config.dropout_rate,
    'attn_pdrop': config.dropout_rate,
    **({'classifier_dropout': config.dropout_rate} if 'tagging' in config.heads else {}),
    'layer_norm_epsilon': config.norm_epsilon,
    'initializer_range': config.initializer_range,
    'tie_word_embeddings': config.logits_via_embedding,
    **hf_config.labels(2 if 'span' in config.heads else config.num_labels),
    'bos_token_id': None,
    'eos_token_id': None,
  }


def table(module: Gpt) -> Table:
  """The names of all parameters."""
  config = module.config
  # Files of the old format have a copy of the table, which is the output projection, too.
  copies = ('lm_head.weight',) if 'lm' in config.heads and config.logits_via_embedding else ()
  return (
    # The bare model's own file lacks the prefix, and so do the first files of the language model.
    *prefixed('transformer.', _body(copies), written=bool(config.heads)),
    Entry('logits_dense/embedding', 'lm_head.weight', head=True, vocabulary=0),
    Entry('heads/classification/kernel', 'score.weight', TRANSPOSED, head=True),
    Entry('heads/span/kernel', 'qa_outputs.weight', TRANSPOSED, head=True),
    Entry('heads/span/bias', 'qa_outputs.bias', head=True),
    Entry('heads/tagging/kernel', 'classifier.weight', TRANSPOSED, head=True),
    Entry('heads/tagging/bias', 'classifier.bias', head=True),
  )


def _body(copies: tuple[str, ...]) -> Iterator[Entry]:
  yield Entry('tokens/embedding', 'wte.weight', tied=copies, vocabulary=0)
  yield Entry('positions/table/embedding', 'wpe.weight')
  yield from _pair('norm', 'scale', 'ln_f')
  ours, theirs = 'blocks/{layer}', 'h.{layer}'
  yield from _pair(f'{ours}/self_attention_norm', 'scale', f'{theirs}.ln_1')
  for number, name in enumerate(('query', 'key', 'value')):
    kernel, bias = fused(number, 3, axis=1), fused(number, 3, axis=0)
    yield from _pair(f'{ours}/self_attention/{name}', 'kernel', f'{theirs}.attn.c_attn', kernel, bias)
  yield from _pair(f'{ours}/self_attention/out', 'kernel', f'{theirs}.attn.c_proj')
  yield from _pair(f'{ours}/mlp_norm', 'scale', f'{theirs}.ln_2')
  yield from _pair(f'{ours}/mlp/wi', 'kernel', f'{theirs}.mlp.c_fc')
  yield from _pair(f'{ours}/mlp/wo', 'kernel', f'{theirs}.mlp.c_proj')


def _pair(ours: str, weight: str, theirs: str, layout: Layout = SAME, bias_layout: Layout = SAME) -> Iterator[Entry]:
  """A weight and its bias. Kernels are [in, out] there, too: they are TensorFlow's, not those of `torch.nn.Linear`."""
  yield Entry(f'{ours}/{weight}', f'{theirs}.weight', layout)
  yield Entry(f'{ours}/bias', f'{theirs}.bias', bias_layout)
