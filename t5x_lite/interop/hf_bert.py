"""BERT and RoBERTa as Hugging Face keeps them (transformers' `BertForPreTraining`, `RobertaForMaskedLM`, siblings)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from t5x_lite.core import errors
from t5x_lite.interop import hf_config, hf_fields
from t5x_lite.interop.layouts import TRANSPOSED
from t5x_lite.interop.names import Entry, Table, prefixed, with_endings
from t5x_lite.models.bert import Bert, BertConfig

MODEL_TYPES = ('bert', 'roberta')

# The heads of each class that writes checkpoints, the first one that of a file that names none. Those that are made to
# be decoders are other models.
_CLASSES: dict[str, dict[str, tuple[str, ...]]] = {
  'bert': {
    'BertModel': ('pooler',),
    'BertForPreTraining': ('mlm', 'nsp'),
    'BertForMaskedLM': ('mlm',),
    'BertForNextSentencePrediction': ('nsp',),
    'BertForSequenceClassification': ('classification',),
    'BertForMultipleChoice': ('multiple_choice',),
    'BertForQuestionAnswering': ('span',),
    'BertForTokenClassification': ('tagging',),
  },
  'roberta': {
    'RobertaModel': ('pooler',),
    'RobertaForMaskedLM': ('mlm',),
    'RobertaForSequenceClassification': ('classification',),
    'RobertaForMultipleChoice': ('multiple_choice',),
    'RobertaForQuestionAnswering': ('span',),
    'RobertaForTokenClassification': ('tagging',),
  },
}
# Of the bare model: the pooler, and vectors of texts, which have no parameters.
_BARE = frozenset(('pooler', 'embedding'))
ARCHITECTURES = {name: heads for classes in _CLASSES.values() for name, heads in classes.items()}
_NAMES = {'bert': 'BERT', 'roberta': 'RoBERTa'}

# What transformers' config classes fall back on where a config.json does not say.
_DEFAULTS: dict[str, Any] = {
  'vocab_size': 30522,
  'hidden_size': 768,
  'num_hidden_layers': 12,
  'num_attention_heads': 12,
  'intermediate_size': 3072,
  'hidden_act': 'gelu',
  'hidden_dropout_prob': 0.1,
  'max_position_embeddings': 512,
  'type_vocab_size': 2,
  'initializer_range': 0.02,
  'layer_norm_eps': 1e-12,
}
_ROBERTA_DEFAULTS = {'vocab_size': 50265, 'pad_token_id': 1}
# Rates of dropout that are ours only as far as they are `hidden_dropout_prob`.
DROPOUT_FIELDS = ('attention_probs_dropout_prob', 'classifier_dropout')
_EXPECTED = {'position_embedding_type': 'absolute', 'is_decoder': False, 'add_cross_attention': False}


def module_from_hf(
  config: Mapping[str, Any], *, heads: tuple[str, ...] | None = None, num_labels: int | None = None
) -> Bert:
  """The module that a `config.json` describes.

  Its one dropout rate is `hidden_dropout_prob`, whatever those of attention weights and classifiers are.

  Args:
    config: as read from the file.
    heads: which heads it is to have; None: those of the class in its `architectures`, or else those of the bare model.
    num_labels: outputs of classification and tagging; None: as many as the file names.

  Raises:
    UsageError: a BERT that we do not have.
  """
  model_type = 'roberta' if config.get('model_type') == 'roberta' else 'bert'
  roberta, name = model_type == 'roberta', _NAMES[model_type]
  # RoBERTa's positions go on from the id of padding, which therefore cannot be null there.
  defaults = {**_DEFAULTS, **_ROBERTA_DEFAULTS} if roberta else {**_DEFAULTS, 'pad_token_id': None}
  known = hf_fields.known_fields(config, defaults)
  own_heads = hf_config.heads(name, config, _CLASSES[model_type], ('pooler',))
  heads = own_heads if heads is None else tuple(heads)
  hf_config.check_values(f'a {name}', config, _EXPECTED)
  if known['hidden_size'] % known['num_attention_heads']:
    raise errors.UsageError(
      f'hidden_size is {known["hidden_size"]}: expected a multiple of the {known["num_attention_heads"]} heads'
    )
  if roberta and 'mlm' in heads:
    # Theirs takes no notice of hidden_act in this head; ours has one activation in all.
    hf_config.check_values('the masked language model of a RoBERTa', config, {'hidden_act': 'gelu'})
  return Bert(
    BertConfig(
      vocab_size=known['vocab_size'],
      emb_dim=known['hidden_size'],
      num_heads=known['num_attention_heads'],
      head_dim=known['hidden_size'] // known['num_attention_heads'],
      mlp_dim=known['intermediate_size'],
      mlp_activations=(hf_config.activation('hidden_act', known['hidden_act']),),
      heads=heads,
      num_labels=hf_config.num_labels(config) if num_labels is None else num_labels,
      dropout_rate=float(known['hidden_dropout_prob']),
      num_layers=known['num_hidden_layers'],
      max_length=known['max_position_embeddings'],
      # The row of the padding id stands for padding.
      first_position=known['pad_token_id'] + 1 if roberta else 0,
      num_token_types=known['type_vocab_size'],
      norm_epsilon=float(known['layer_norm_eps']),
      initializer_range=float(known['initializer_range']),
    )
  )


def config_to_hf(module: Bert) -> dict[str, Any]:
  """The `config.json` of a module: of a RoBERTa where positions do not start at row 0, else of a BERT.

  Raises:
    UsageError: transformers has no such BERT.
  """
  config, model_type = module.config, _model_type(module)
  name, roberta = _NAMES[model_type], model_type == 'roberta'
  hf_config.check_exportable(f'a {name}', config, {'positions': 'learned'})
  their_activation = hf_config.their_activation(config)
  if roberta and 'mlm' in config.heads and their_activation != 'gelu':
    raise errors.UsageError(
      f"mlp_activations={config.mlp_activations}: the masked language model of a RoBERTa has ('gelu_exact',) there"
    )
  ids = {'pad_token_id': config.first_position - 1, 'bos_token_id': 0, 'eos_token_id': 2} if roberta else {}
  return {
    'architectures': [_class_of(module)],
    'model_type': model_type,
    'vocab_size': config.vocab_size,
    'hidden_size': config.emb_dim,
    'num_hidden_layers': config.num_layers,
    'num_attention_heads': config.num_heads,
    'intermediate_size': config.mlp_dim,
    'hidden_act': their_activation,
    'hidden_dropout_prob': config.dropout_rate,
    'attention_probs_dropout_prob': config.dropout_rate,
    'classifier_dropout': None,
    'max_position_embeddings': config.max_length,
    'type_vocab_size': config.num_token_types,
    'initializer_range': config.initializer_range,
    'layer_norm_eps': config.norm_epsilon,
    'position_embedding_type': 'absolute',
    'tie_word_embeddings': True,
    **hf_config.labels(2 if 'span' in config.heads else config.num_labels),
    'pad_token_id': 0,
    **ids,
  }


def _model_type(module: Bert) -> str:
  return 'roberta' if module.config.first_position else 'bert'


def _class_of(module: Bert) -> str:
  """The class that has the module's heads; most of them have the pooler anyway, and the others pass it over."""
  classes = _CLASSES[_model_type(module)]
  own = tuple(head for head in module.config.heads if head not in _BARE) or ('pooler',)
  return hf_config.architecture(own, classes)


def table(module: Bert) -> Table:
  """The names of all parameters."""
  model_type = _model_type(module)
  roberta, heads = model_type == 'roberta', module.config.heads
  # Where it predicts tokens, many files have copies of the embedding table and of the bias.
  decoder = 'lm_head.decoder' if roberta else 'cls.predictions.decoder'
  body = list(_body(copies=(f'{decoder}.weight',) if 'mlm' in heads else ()))
  classifier = 'classifier'
  if roberta and 'classification' in heads:
    classifier = 'classifier.out_proj'
    own_pooler = _dense('heads/pooler', 'classifier.dense', head=True)
  else:
    body += _dense('heads/pooler', 'pooler.dense', head=True)
    own_pooler = iter(())
  entries = (
    # The bare model's own file lacks the prefix.
    *prefixed(f'{model_type}.', body, written=bool(set(heads) - _BARE)),
    *_masked_language_model(roberta, f'{decoder}.bias'),
    *own_pooler,
    *_dense('heads/nsp', 'cls.seq_relationship', head=True),
    *_dense('heads/classification', classifier, head=True),
    *_dense('heads/multiple_choice', 'classifier', head=True),
    *_dense('heads/span', 'qa_outputs', head=True),
    *_dense('heads/tagging', 'classifier', head=True),
  )
  # As the first files, converted from TensorFlow, have it.
  return with_endings({'LayerNorm.weight': 'LayerNorm.gamma', 'LayerNorm.bias': 'LayerNorm.beta'}, entries)


def _body(copies: tuple[str, ...]) -> Iterator[Entry]:
  ours, theirs = 'embeddings', 'embeddings'
  yield Entry(f'{ours}/tokens/embedding', f'{theirs}.word_embeddings.weight', tied=copies, vocabulary=0)
  yield Entry(f'{ours}/positions/table/embedding', f'{theirs}.position_embeddings.weight')
  yield Entry(f'{ours}/token_types/embedding', f'{theirs}.token_type_embeddings.weight')
  yield from _norm(f'{ours}/norm', f'{theirs}.LayerNorm')
  ours, theirs = 'blocks/{layer}', 'encoder.layer.{layer}'
  for name in ('query', 'key', 'value'):
    yield from _dense(f'{ours}/self_attention/{name}', f'{theirs}.attention.self.{name}')
  yield from _dense(f'{ours}/self_attention/out', f'{theirs}.attention.output.dense')
  yield from _norm(f'{ours}/self_attention_norm', f'{theirs}.attention.output.LayerNorm')
  yield from _dense(f'{ours}/mlp/wi', f'{theirs}.intermediate.dense')
  yield from _dense(f'{ours}/mlp/wo', f'{theirs}.output.dense')
  yield from _norm(f'{ours}/mlp_norm', f'{theirs}.output.LayerNorm')


def _masked_language_model(roberta: bool, bias_copy: str) -> Iterator[Entry]:
  theirs = 'lm_head' if roberta else 'cls.predictions'
  transform, norm = (theirs, 'layer_norm') if roberta else (f'{theirs}.transform', 'LayerNorm')
  yield from _dense('mlm/dense', f'{transform}.dense', head=True)
  yield from _norm('mlm/norm', f'{transform}.{norm}', head=True)
  yield Entry('mlm/bias', f'{theirs}.bias', head=True, also=(bias_copy,), tied=(bias_copy,), vocabulary=0)


def _dense(ours: str, theirs: str, head: bool = False) -> Iterator[Entry]:
  yield Entry(f'{ours}/kernel', f'{theirs}.weight', TRANSPOSED, head=head)
  yield Entry(f'{ours}/bias', f'{theirs}.bias', head=head)


def _norm(ours: str, theirs: str, head: bool = False) -> Iterator[Entry]:
  yield Entry(f'{ours}/scale', f'{theirs}.weight', head=head)
  yield Entry(f'{ours}/bias', f'{theirs}.bias', head=head)
