"""Sentences of documents, and pairs of texts made of them."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5x_lite.core import errors
from t5x_lite.data import dataset_checks, features, pipeline, sentences
from t5x_lite.data import documents as documents_lib
from t5x_lite.objectives.masked_lm import MaskedLM
from t5x_lite.objectives.sentence_pairs import NextSentence, SentenceOrder

CLS, SEP, MASK = 3, 4, 5


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('', []),
    ('One.', ['One.']),
    ('One. Two? Three!\nFour', ['One.', 'Two?', 'Three!', 'Four']),
    ('He said "Go." Then he went.', ['He said "Go."', 'Then he went.']),
    ('Version 3.11 of i.e. this', ['Version 3.11 of i.e. this']),
    ('First.\n\n  \nSecond line. ', ['First.', 'Second line.']),
  ],
)
def test_sentences(text, expected):
  assert sentences.split(text) == expected


@given(st.text(alphabet='aB1 .!?"\n\t', max_size=60))
def test_no_sentence_is_empty_and_nothing_but_space_is_lost(text):
  found = sentences.split(text)
  assert all(sentence.strip() for sentence in found)
  assert ''.join(''.join(found).split()) == ''.join(text.split())


@pytest.fixture
def pairs(config, add_text_task, number_tokenizer, registry):
  """Documents of one to seven lines of numbers; line l of document d begins with 1000 + 10 * d + l."""
  rng = np.random.default_rng(0)
  documents = [
    [[1000 + 10 * d + line, *rng.integers(100, 900, rng.integers(1, 6))] for line in range(rng.integers(1, 8))]
    for d in range(20)
  ]
  task = add_text_task('lines', [])
  records = [{'doc': '\n'.join(' '.join(map(str, line)) for line in document)} for document in documents]
  source = dataclasses.replace(task.source, records={'train': records})
  framing = type('Framing', (type(number_tokenizer),), {'cls_id': CLS, 'sep_id': SEP, 'mask_id': MASK})()
  return dataclasses.replace(
    config,
    mixture_or_task_name=dataclasses.replace(task, source=source),
    objective=NextSentence(MaskedLM(mask_probability=0.1), short_seq_prob=0.0),
    features=features.EncoderOnlyFeatures(sentence_pairs=True),
    task_feature_lengths={'inputs': 24},
    tokenizer=framing,
  )


def found_in(batches):
  """Of every pair: the documents of its two texts, its label, and its token types."""
  for batch in batches:
    for targets, segments, types, label, weights in zip(
      *(
        batch[f'encoder_{name}']
        for name in ('target_tokens', 'segment_ids', 'token_type_ids', 'label', 'label_weights')
      ),
      strict=True,
    ):
      for segment in range(1, segments.max() + 1):
        at = segments == segment
        assert weights[at].tolist() == [1.0] + [0.0] * (at.sum() - 1)
        first, second = (
          {(token - 1000) // 10 for token in targets[at & (types == side)] if token >= 1000} for side in (0, 1)
        )
        yield first, second, int(label[at][0])


def test_labels_say_whether_the_second_text_is_of_another_document(pairs):
  seen = list(found_in(itertools.islice(pipeline.build(pairs), 40)))
  known = [(first, second, label) for first, second, label in seen if first and second]
  assert len(known) > 200
  for first, second, label in known:
    assert len(first) == len(second) == 1
    assert label == (first != second)
  assert 0.4 < np.mean([label for *_, label in known]) < 0.75  # documents of one line have no next sentence


def test_pairs_resume_exactly_and_are_the_same_on_any_number_of_hosts(pairs):
  alone = pipeline.build(pairs)
  first = list(itertools.islice(alone, 3))
  state = json.loads(json.dumps(alone.get_state()))
  rest = list(itertools.islice(alone, 3))
  resumed = pipeline.build(pairs)
  resumed.set_state(state)
  for batch, other in zip(rest, resumed, strict=False):
    for name in batch:
      np.testing.assert_array_equal(batch[name], other[name])
  hosts = [pipeline.build(pairs, rows=rows) for rows in np.array_split(np.arange(8), 4)]
  parts = [next(host) for host in hosts]
  for name in first[0]:
    np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), first[0][name])


def test_a_finite_pass_ends(pairs):
  finite = dataclasses.replace(pairs, repeat=False, shuffle=False, num_virtual_shards=1)
  starts = [next(iter(first)) for first, _, _ in found_in(pipeline.build(finite)) if first]
  assert set(starts) == set(range(20))  # every document begins an example, whatever row packing puts it in


def with_documents(pairs, documents, **changes):
  """The configuration, of documents that are lists of lines of numbers."""
  task = pairs.mixture_or_task_name
  records = tuple({'doc': '\n'.join(' '.join(map(str, line)) for line in document)} for document in documents)
  source = dataclasses.replace(task.source, records={'train': records})
  return dataclasses.replace(pairs, mixture_or_task_name=dataclasses.replace(task, source=source), **changes)


@pytest.mark.parametrize('kind', [NextSentence, SentenceOrder])
@pytest.mark.parametrize('repeat', [False, True])
@pytest.mark.parametrize('empty', [0, 1, 40])
def test_few_and_empty_documents_are_enough(pairs, kind, repeat, empty):
  documents = [[[1000, 101, 102]], [[1010, 103]], *[[]] * empty]
  objective = kind(short_seq_prob=0.0)
  for seed in range(4):
    config = with_documents(
      pairs, documents, objective=objective, seed=seed, repeat=repeat, num_virtual_shards=8 if repeat else 1
    )
    iterator = pipeline.build(config)
    found = list(found_in(itertools.islice(iterator, 3)))
    assert found and all(label == 1 and {*first, *second} == {0, 1} for first, second, label in found)
    if not repeat:
      assert sum(iterator.statistics()['examples_per_task'].values()) == len(found) == 2


def test_every_other_document_is_found(pairs):
  """Also by the last document of a finite pass, and by shards that have but one document each."""
  documents = [[[1000 + 10 * d, 101]] for d in range(8)]
  for shards in (1, 8):
    seen = {d: set() for d in range(8)}
    for seed in range(60):
      config = with_documents(pairs, documents, repeat=False, num_virtual_shards=shards, seed=seed)
      for first, second, label in found_in(pipeline.build(config)):
        assert label == 1 and first != second
        seen[first.pop()] |= second
    assert all(others == set(range(8)) - {d} for d, others in seen.items())


def test_a_long_sentence_is_read_whole(pairs):
  documents = [[range(100 + 500 * d, 100 + 500 * d + size)] for d, size in enumerate((451, 23, 43, 2, 1, 64, 100))]
  for length, kind in itertools.product((24, 25), (NextSentence, SentenceOrder)):
    config = with_documents(
      pairs,
      documents,
      objective=kind(short_seq_prob=0.3),
      task_feature_lengths={'inputs': length},
      repeat=False,
      shuffle=False,
      num_virtual_shards=1,
    )
    batches = list(pipeline.build(config))
    seen = set(np.concatenate([batch['encoder_target_tokens'].ravel() for batch in batches]).tolist())
    assert {token for document in documents for line in document for token in line} <= seen


@pytest.mark.parametrize('length', [2, 3, 8, 21])
def test_pieces_of_a_long_sentence_fill_pairs(pairs, length):
  lines = [[*range(100, 100 + size)] for size in (1, length, length + 1, 3 * length, 50)]
  task = with_documents(pairs, [lines]).mixture_or_task_name
  records = task.source.random_access('train').__getitems__([0])
  (found,) = documents_lib.tokenise_sentences(task, pairs.tokenizer, length)(records)
  assert np.concatenate(found).tolist() == [token for line in lines for token in line]
  assert all(0 < len(piece) <= length for piece in found)
  assert [len(piece) for piece in found[:2]] == [1, length]  # what fits is left as it is
  of_last = found[-100 // length :]
  assert all(len(a) + len(b) == length for a, b in itertools.pairwise(of_last[:-1]))


def test_lost_tokens_are_counted(pairs):
  documents = [[range(100, 110)] * 6, [range(200, 210)] * 6]  # lines of ten for 21 places
  exact = {'objective': NextSentence(short_seq_prob=0.0), 'repeat': False, 'num_virtual_shards': 1}
  for length, lost in ((24, True), (23, False)):
    iterator = pipeline.build(with_documents(pairs, documents, task_feature_lengths={'inputs': length}, **exact))
    assert len(list(iterator))
    statistics = iterator.statistics()
    (examples,), (truncated,) = statistics['examples_per_task'].values(), statistics['truncated_per_task'].values()
    assert examples >= 4 and (truncated > 0) == lost


@pytest.mark.parametrize('choice', ['split', 'truncated'])
def test_documents_that_are_cut_are_refused(pairs, choice):
  told = f"'lines': got documents='{choice}' with NextSentence, .* document by document: expected documents='joined'"
  with pytest.raises(errors.UsageError, match=told):
    dataset_checks.check_values(dataclasses.replace(pairs, documents=choice))
  own = dataclasses.replace(pairs.mixture_or_task_name, documents=choice)
  with pytest.raises(errors.UsageError, match=told):
    dataset_checks.check_values(dataclasses.replace(pairs, mixture_or_task_name=own))
  dataset_checks.check_values(dataclasses.replace(pairs, documents='joined'))


def test_a_text_of_one_token_is_no_pair(pairs):
  with pytest.raises(errors.UsageError, match='text_length: got 1, expected an int of at least 2'):
    dataset_checks.check_values(dataclasses.replace(pairs, text_length=1))


@pytest.mark.parametrize('repeat', [False, True])
def test_a_single_document_with_text_has_no_other(pairs, repeat):
  config = with_documents(pairs, [[], [[1000, 101]], []], repeat=repeat)
  with pytest.raises(errors.UsageError, match="task 'lines': all but one of 3 documents hold no text"):
    list(itertools.islice(pipeline.build(config), 20))
