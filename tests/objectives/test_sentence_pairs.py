import collections

import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.objectives import sentence_pairs
from t5x_lite.objectives.masked_lm import MaskedLM
from t5x_lite.objectives.sentence_pairs import NextSentence, SentenceOrder

DOCUMENT = [np.arange(100 + 10 * i, 110 + 10 * i, dtype=np.int32) for i in range(40)]
OTHER = [np.arange(5000 + 10 * i, 5010 + 10 * i, dtype=np.int32) for i in range(4000)]


def pairs(objective, bert, rounds=2000, raw_length=125, document=DOCUMENT):
  rng = np.random.default_rng(0)
  return [objective.pair(document, lambda rng: OTHER, rng, bert, raw_length) for _ in range(rounds)]


@pytest.mark.parametrize('kind', [NextSentence, SentenceOrder])
def test_half_of_the_labels_are_one(bert, kind):
  labels = [int(made['label'][0]) for made, *_ in pairs(kind(), bert)]
  assert abs(np.mean(labels) - 0.5) < 5 * np.sqrt(0.25 / 2000) + 0.02  # a short one may be a single sentence


def test_sentences_that_are_not_used_are_put_back(bert):
  for made, consumed, _ in pairs(NextSentence(short_seq_prob=0.0), bert, 300):
    if made['label'][0] == 0:
      assert consumed == 13  # 125 tokens in sentences of 10
    else:
      first = made['targets'][1 : np.argmax(made['targets'] == bert.sep_id)]
      assert consumed < 13 and 10 * consumed - 5 <= len(first) <= 10 * consumed


def test_examples_are_full_but_for_one_in_ten(bert):
  lengths = np.array([len(made['targets']) for made, *_ in pairs(NextSentence(), bert, 4000)])
  short = np.mean(lengths < 128)
  assert lengths.max() == 128
  assert abs(short - 0.1 * (1 - 10 / 124)) < 0.03  # what is short by less than a sentence is full again
  assert {len(made['targets']) for made, *_ in pairs(SentenceOrder(short_seq_prob=0.0), bert, 200)} == {128}


def test_the_cut_between_the_texts_is_anywhere(bert):
  firsts = collections.Counter()
  for made, *_ in pairs(SentenceOrder(short_seq_prob=0.0), bert, 3000, raw_length=50):
    if made['label'][0] == 0:
      firsts[np.argmax(made['targets'] == bert.sep_id) - 1] += 1
  assert set(firsts) == {10, 20, 30, 40}  # of five sentences
  total = sum(firsts.values())
  assert all(abs(count - total / 4) < 5 * np.sqrt(total * 3 / 16) for count in firsts.values())


def test_a_single_sentence_gets_another_document(bert):
  for kind in (NextSentence, SentenceOrder):
    for made, consumed, _ in pairs(kind(), bert, 20, document=DOCUMENT[:1]):
      assert consumed == 1 and made['label'][0] == 1
      second = made['targets'][made['token_types'] == 1][:-1]
      assert np.all(second >= 5000)


def test_masking_is_that_of_masked_lm(bert):
  for made, *_ in pairs(NextSentence(MaskedLM(0.5, max_predictions=20), short_seq_prob=0.0), bert, 50):
    assert made['predicted'].sum() == 20
  (made, *_), *_ = pairs(NextSentence(MaskedLM(unit='word'), short_seq_prob=0.0), bert, 1)
  assert 18 <= made['predicted'].sum() <= 19
  special = np.isin(made['targets'], (bert.cls_id, bert.sep_id))
  assert not made['predicted'][special].any() and special.sum() == 3


def one_by_one(first, second, length, front):
  """`truncate_seq_pair` of the published code, with given choices."""
  first, second, front = list(first), list(second), iter(front)
  while len(first) + len(second) > length:
    longer = first if len(first) > len(second) else second
    longer.pop(0 if next(front) else -1)
  return len(first), len(second)


def test_truncation_takes_from_the_longer_text_as_the_published_code():
  for first, second in np.random.default_rng(0).integers(1, 40, (200, 2)):
    for length in (2, 3, 10, 25, 60):
      rng = np.random.default_rng(0)
      got = sentence_pairs.truncate_pair(np.arange(first), np.arange(second), length, rng)
      assert tuple(map(len, got)) == one_by_one(range(first), range(second), length, [True] * 100)


def test_truncation_is_at_either_end():
  fronts = []
  for seed in range(2000):
    first, second = sentence_pairs.truncate_pair(np.arange(30), np.arange(10), 20, np.random.default_rng(seed))
    assert np.all(np.diff(first) == 1) and len(first) == len(second) == 10
    fronts.append(first[0])
  assert abs(np.mean(fronts) - 10) < 5 * np.sqrt(5 / 2000)  # of 20 lost tokens
  assert abs(np.var(fronts) - 5) < 1


@pytest.mark.parametrize('kind', [NextSentence, SentenceOrder])
def test_a_pair_tells_whether_tokens_were_lost(bert, kind):
  made = pairs(kind(short_seq_prob=0.0), bert, 200)  # 130 tokens for 125 places
  assert all(truncated and len(example['targets']) == 128 for example, _, truncated in made)
  assert not any(truncated for *_, truncated in pairs(kind(short_seq_prob=0.0), bert, 200, raw_length=120))
  for example, _, truncated in pairs(kind(short_seq_prob=0.0), bert, 20, document=DOCUMENT[:3]):
    filled = kind is NextSentence and example['label'][0] == 1  # with sentences of ten from another document
    assert truncated == filled


def test_lengths_and_protocol():
  assert NextSentence().raw_length({'inputs': 128}) == 125
  assert NextSentence.reads == 'sentences' and NextSentence().separator(None) is None
  assert repr(SentenceOrder()).startswith('SentenceOrder(masking=MaskedLM(')
  with pytest.raises(errors.UsageError, match='inputs length of 4, expected at least 5'):
    NextSentence().raw_length({'inputs': 4})
  with pytest.raises(errors.UsageError, match='got short_seq_prob'):
    SentenceOrder(short_seq_prob=1.5)
  with pytest.raises(TypeError):
    sentence_pairs.SentencePairs()
