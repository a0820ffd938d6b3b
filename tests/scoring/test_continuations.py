"""One text, cut alike for all models, and what each family gives it, against a direct computation."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5x_lite.core import errors
from t5x_lite.core.batch import DECODER, ENCODER, INPUT_TOKENS, ORDER, POSITIONS, SEGMENT_IDS, key
from t5x_lite.data import features, task
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.models.t5 import T5, T5Config
from t5x_lite.models.xlnet import Xlnet, XlnetConfig
from t5x_lite.objectives.causal_lm import CausalLM
from t5x_lite.objectives.prefix_lm import PrefixLM
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.scoring import choices, conditional, continuations
from t5x_lite.scoring.choices import Choices
from t5x_lite.scoring.continuations import BITS, PSEUDO_BITS, Continuations, cut
from t5x_lite.training.learner import Learner
from t5x_lite.training.steps import Trainer

TEXT = 'The quick brown fox jumps over the lazy dog, \n\n and the straße is  closed for all of them.'


class Letters:
  """Words are tokens: their length is their id."""

  vocab_size, eos_id, cls_id, sep_id, mask_id = 24, 1, 20, 21, 22

  def encode_batch(self, texts):
    return [[min(len(word), 12) + 2 for word in text.split()] for text in texts]


class Texts:
  """A source of texts."""

  splits = ('validation',)

  def __init__(self, *texts):
    self.texts = texts

  def random_access(self, split):
    assert split == 'validation'
    return self

  def __len__(self):
    return len(self.texts)

  def __getitems__(self, indices):
    return [{'text': self.texts[index]} for index in indices]


class Pairs(Texts):
  """A source of questions and answers."""

  def __getitems__(self, indices):
    return [dict(zip(('inputs', 'targets'), self.texts[index], strict=True)) for index in indices]


@pytest.mark.parametrize('context', [1, 9, 10, 30, 200])
@pytest.mark.parametrize('length', [7, 20, 300])
def test_passages_are_consecutive_text_that_is_cut_between_words(context, length):
  chosen = Continuations(context=context, length=length, per_document=100)
  found = list(cut(f'  {TEXT}\n', chosen))
  assert TEXT.startswith(''.join(map(''.join, found)))
  for number, (first, second) in enumerate(found):
    assert len(first) <= context and len(first + second) <= context + length
    assert second[0].isspace() and not first[-1].isspace() and not second[-1].isspace()
    assert number == 0 or first[0].isspace()
    assert (first + second).split() == first.split() + second.split()


def test_a_short_document_is_cut_in_proportion_and_a_word_not_at_all():
  assert list(cut('one two', Continuations())) == [('one', ' two')]
  assert list(cut('one two six ten', Continuations(context=200, length=200))) == [('one two', ' six ten')]
  assert list(cut('word', Continuations())) == list(cut('', Continuations())) == []


def test_only_so_many_passages_of_a_document_are_read():
  assert len(list(cut(TEXT, Continuations(10, 10, per_document=2)))) == 2
  with pytest.raises(errors.UsageError, match='masked=0'):
    Continuations(masked=0)


SIZES = {'vocab_size': 24, 'emb_dim': 8, 'num_heads': 2, 'head_dim': 4, 'mlp_dim': 16, 'dropout_rate': 0.0}
STACK = {**SIZES, 'num_layers': 1, 'initializer_range': 0.5}
TEXTS = (TEXT, 'a short one', 'word')
CHOSEN = Continuations(context=20, length=25, per_document=1)


def _side(side, tokens, **more):
  """One row of one side of a batch."""
  tokens = jnp.asarray(tokens, jnp.int32)[None]
  made = {INPUT_TOKENS: tokens, SEGMENT_IDS: jnp.ones_like(tokens), POSITIONS: jnp.arange(tokens.shape[1])[None]}
  return {key(side, name): jnp.asarray(value, jnp.int32) for name, value in (made | more).items()}


def _t5(first, second):
  """Where tokens are predicted, and what; the batch that is read."""
  return [(_side(ENCODER, [*first, 1]) | _side(DECODER, [0, *second[:-1]]), range(len(second)), second)]


def _gpt(first, second):
  return [(_side(DECODER, [1, *first, *second[:-1]]), range(len(first), len(first) + len(second)), second)]


def _prefix_gpt(first, second):
  tokens = [1, *first, 1, *second[:-1]]
  prefix = [[int(place <= len(first) + 1) for place in range(len(tokens))]]
  batch = _side(DECODER, tokens, prefix=prefix)
  return [(batch, range(len(first) + 1, len(tokens)), second)]


def _xlnet(first, second):
  order = [[0] * len(first) + list(range(1, len(second) + 1))]
  batch = _side(DECODER, [*first, *second], **{ORDER: order})
  return [(batch, range(len(first), len(first) + len(second)), second)]


def _bert(first, second):
  found = []
  for number, token in enumerate(second):
    place = 1 + len(first) + number
    tokens = [20, *first, *second, 21]
    tokens[place] = 22
    found.append((_side(ENCODER, tokens), [place], [token]))
  return found


FAMILIES = {
  't5': (T5(T5Config(**SIZES, num_encoder_layers=1, num_decoder_layers=1)), features.EncoderDecoderFeatures(), _t5),
  'gpt': (Gpt(GptConfig(**STACK, max_length=40)), features.DecoderOnlyFeatures(), _gpt),
  'prefix': (Gpt(GptConfig(**STACK)), features.DecoderOnlyFeatures(bidirectional_prefix=True), _prefix_gpt),
  'xlnet': (Xlnet(XlnetConfig(**STACK)), features.PermutationFeatures(), _xlnet),
  'bert': (Bert(BertConfig(**STACK, heads=('mlm', 'nsp'))), features.EncoderOnlyFeatures(sentence_pairs=True), _bert),
}


def _config(converter, objective, texts=TEXTS):
  lengths = dict.fromkeys(converter.lengths[0], 64)
  member = task.Task('texts', Texts(*texts), lambda record: record)
  return DatasetConfig(
    mixture_or_task_name=member,
    task_feature_lengths=lengths,
    tokenizer=Letters(),
    split='validation',
    batch_size=4,
    objective=objective,
    features=converter,
  )


def _trainer(module, config):
  spec = features.batch_spec(config.features, config.task_feature_lengths, config.batch_size)
  trainer = Trainer(Learner(module, optax.identity(), 0.0), make_mesh(MeshShape(data=1), jax.devices()[:1]), spec)
  return trainer, trainer.init(0).params


@pytest.mark.slow
@pytest.mark.parametrize('name', FAMILIES)
def test_bits_are_those_of_every_passage_by_itself(name):
  module, converter, asked = FAMILIES[name]
  config = _config(converter, CausalLM() if name == 'gpt' else PrefixLM())
  trainer, params = _trainer(module, config)
  measured = continuations.measure(trainer, params, config, CHOSEN)
  forward = jax.jit(lambda batch: module.apply({'params': params}, batch, deterministic=True))
  nll, size = 0.0, 0
  for passage in (passage for text in TEXTS for passage in cut(text, CHOSEN)):
    size += len(passage.continuation.encode())
    for batch, places, wanted in asked(*Letters().encode_batch(passage)):
      logits = np.asarray(forward(batch), np.float64)
      for place, token in zip(places, wanted, strict=True):
        row = logits[0, place]
        nll += np.log(np.exp(row).sum()) - row[token]
  assert measured[PSEUDO_BITS if name == 'bert' else BITS] == pytest.approx(nll / math.log(2) / size, rel=1e-5)
  assert (BITS in measured, PSEUDO_BITS in measured) == (name != 'bert', name == 'bert')
  assert measured['continuation_bytes'] == size


QUESTIONS = (('which animal jumps over it', 'fox'), ('and which one is lazy', 'dogs'), ('how many', 'two of them'))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['gpt', 'bert'])  # a row for each answer, and several
def test_the_likeliest_answer_is_chosen_as_each_by_itself_says(name):
  """Answers of one, one and three tokens, with the losses that a model gives each of them alone."""
  module, converter, asked = FAMILIES[name]
  config = _config(converter, CausalLM() if name == 'gpt' else PrefixLM())
  trainer, params = _trainer(module, config)
  member = task.Task('asked', Pairs(*QUESTIONS), lambda record: record, supervised=True)
  losses, right, right_by_byte = [], 0, 0
  chosen = Choices(tasks=('asked',), others=2, length=20)
  questions = choices.questions(member, 'validation', chosen)
  for question in questions:
    own = []
    for answer in question.answers:
      first, second = Letters().encode_batch([question.text, answer])
      nll = 0.0
      for batch, places, wanted in asked(first, second):
        logits = np.asarray(module.apply({'params': params}, batch, deterministic=True), np.float64)
        for place, token in zip(places, wanted, strict=True):
          nll += np.log(np.exp(logits[0, place]).sum()) - logits[0, place][token]
      own.append(nll)
    losses += own
    right += int(np.argmin(own)) in question.right
    right_by_byte += int(np.argmin(np.divide(own, list(map(len, question.answers))))) in question.right
  measured = choices.measure(trainer, params, config, member.name, questions, chosen.masked)
  assert measured == {
    'choice_accuracy': pytest.approx(100 * right / 3),
    'choice_accuracy_by_byte': pytest.approx(100 * right_by_byte / 3),
    'choice_chance': pytest.approx(100 / 3),
    'choice_examples': 3,
  }


def test_masked_tokens_are_spread_evenly_and_stand_for_all():
  config = _config(features.EncoderOnlyFeatures(), None)
  make, _ = conditional.maker(config, 3)
  rows = make(np.arange(3, 5), np.arange(5, 17))
  places = [int(np.flatnonzero(row.example['encoder_loss_weights'])[0]) for row in rows]
  assert places == [5, 9, 13] and sum(row.weight for row in rows) == 12
  for row, place in zip(rows, places, strict=True):
    assert row.example['encoder_input_tokens'][place] == 22
    assert np.count_nonzero(row.example['encoder_input_tokens'] != row.example['encoder_target_tokens']) == 1


def test_what_cannot_be_measured_is_told():
  module, converter, _ = FAMILIES['gpt']
  config = _config(converter, CausalLM(), texts=('a ' * 90,))
  with pytest.raises(errors.UsageError, match=r'a text of 45 tokens: .* has positions for 40'):
    conditional.padded(module, ('decoder_input_tokens',), 45, 'a text')
  assert conditional.padded(module, ('decoder_input_tokens',), 35, 'a text') == 35
  assert conditional.padded(FAMILIES['t5'][0], ('encoder_input_tokens',), 35, 'a text') == 64
  assert continuations.passages(config.mixture_or_task_name, 'validation', CHOSEN)
  assert not continuations.passages(task.Task('none', Texts('word'), lambda record: record), 'validation', CHOSEN)
