"""Examples for heads: frames and truncation as in Hugging Face, answers found again, every word tagged once."""

import itertools
import json
import os
import pathlib
import shutil

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.data import documents, streams, task
from t5x_lite.data.encoder import frames as encoder_frames
from t5x_lite.data.encoder import spans as encoder_spans
from t5x_lite.data.encoder import stream as encoder_stream
from t5x_lite.data.encoder import tags as encoder_tags
from t5x_lite.data.encoder.examples import tokenise_labelled
from t5x_lite.data.vocabularies import offsets
from t5x_lite.data.vocabularies.load_tokenizer import load_tokenizer

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'tokenizers'
FAMILIES = ('bert', 'roberta', 'albert', 'xlm-roberta', 'xlnet')
PUBLISHED = {'bert-base-uncased': 'bert', 'bert-base-cased': 'bert', 'roberta-base': 'roberta'}
WORDS = ('the', 'cat', 'was', 'unbelievable', 'of', 'whales', 'it', 'mat', 'in', 'x', '12,345', 'caf\xe9s', 'Ada')
TEXTS = st.lists(st.sampled_from(WORDS), max_size=30).map(' '.join)


def open_family(family):
  if family in ('bert', 'roberta'):
    pytest.importorskip('tokenizers')
  return load_tokenizer(GOLDEN / family)


def make(examples, head, tokenizer, length, labels=(), **options):
  """The examples of one record that holds all of these."""
  (made,) = tokenise_labelled(a_task(head, labels, **options), tokenizer, length, 12)([{'of': examples}])
  return made


def a_task(head, labels=(), **options):
  encoder = task.EncoderTask(head, lambda record: record['of'], tuple(labels))
  return task.Task('t', None, None, encoder=encoder, **options)


def assert_frame_of(features, tokenizer, texts):
  ids, types = tokenizer.with_special_tokens(*texts)
  np.testing.assert_array_equal(features['inputs'], ids)
  np.testing.assert_array_equal(features['token_types'], types)
  assert features['inputs'].dtype == features['token_types'].dtype == np.int32


@pytest.mark.parametrize('family', FAMILIES)
def test_short_texts_are_framed_and_labelled(family):
  tokenizer = open_family(family)
  one = {'text': 'the cat', 'label': 1}
  two = {'text': 'the cat', 'pair': 'was it', 'label': -1}
  first, second = make([one, two], 'classification', tokenizer, 40, labels=('no', 'yes'))
  assert_frame_of(first.features, tokenizer, (tokenizer.encode('the cat'),))
  assert_frame_of(second.features, tokenizer, (tokenizer.encode('the cat'), tokenizer.encode('was it')))
  for example, label in ((first, 1), (second, -1)):
    assert example.features['inputs'][example.features['pooled']] == [tokenizer.cls_id]
    assert example.features['label'].dtype == np.int32 and example.features['label'].tolist() == [label]
    assert not example.truncated


def test_numbers_are_labels_too():
  made = make([{'text': 'a', 'label': value} for value in (2.5, 0.0, -1.0)], 'regression', open_family('bert'), 8)
  found = np.concatenate([example.features['label'] for example in made])
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, [2.5, 0.0, np.nan])


@pytest.mark.parametrize('family', FAMILIES)
@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(first=TEXTS, second=st.none() | TEXTS, length=st.integers(6, 30))
def test_truncated_examples_are_those_of_the_frame(family, first, second, length):
  tokenizer = open_family(family)
  example = {'text': first, 'label': 0} | ({} if second is None else {'pair': second})
  (made,) = make([example], 'classification', tokenizer, length)
  texts = [tokenizer.encode(text) for text in (first, second) if text is not None]
  ids, types = tokenizer.with_special_tokens(*texts, max_length=length)
  assert (made.features['inputs'].tolist(), made.features['token_types'].tolist()) == (ids, types)
  assert made.truncated == (len(tokenizer.with_special_tokens(*texts)[0]) > length)
  (kept,) = (make([example], 'classification', tokenizer, length, long_examples='drop'),)
  assert (len(kept), kept.dropped) == ((0, 1) if made.truncated else (1, 0))


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
  first=st.integers(0, 40), second=st.none() | st.integers(0, 40), length=st.integers(8, 24), stride=st.integers(0, 2)
)
def test_split_texts_lose_nothing_but_of_the_shorter(first, second, length, stride):
  tokenizer = open_family('bert')
  framer = encoder_frames.Framer(tokenizer, length, 'split', stride)
  texts = (list(range(100, 100 + first)), None if second is None else list(range(200, 200 + second)))
  parts, lost = framer.fitted(texts)
  assert all(len(framer.arrays(part)['inputs']) <= length for part in parts)
  for side, whole in enumerate(texts):
    if whole is None:
      assert all(part[side] is None for part in parts)
      continue
    pieces = [part[side] for part in parts]
    if len(parts) == 1 or all(piece == pieces[0] for piece in pieces):
      kept = pieces[0]
    else:
      assert all(one[len(one) - stride :] == other[:stride] for one, other in itertools.pairwise(pieces))
      kept = pieces[0] + [i for piece in pieces[1:] for i in piece[stride:]]
    assert kept == whole or (lost and kept == whole[: len(kept)] and len(kept) == framer.room(True) // 2)


def test_choices_share_a_row_as_segments():
  tokenizer = open_family('bert')
  example = {'text': 'the cat was', 'choices': ['it', 'the mat of it', 'in'], 'label': 2}
  (made,) = make([example], 'multiple_choice', tokenizer, 60)
  features, start = made.features, 0
  for number, choice in enumerate(example['choices'], 1):
    ids, types = tokenizer.with_special_tokens(tokenizer.encode('the cat was'), tokenizer.encode(choice))
    of_choice = np.flatnonzero(features['segments'] == number)
    np.testing.assert_array_equal(of_choice, np.arange(start, start + len(ids)))
    assert features['inputs'][of_choice].tolist() == ids and features['token_types'][of_choice].tolist() == types
    assert features['pooled'][number - 1] == start
    start += len(ids)
  assert start == len(features['inputs']) and features['label'].tolist() == [2] and not made.truncated


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(text=TEXTS, choices=st.lists(TEXTS, min_size=1, max_size=5), length=st.integers(25, 80))
def test_choices_that_do_not_fit_get_equal_room(text, choices, length):
  tokenizer = open_family('xlnet')
  example = {'text': text, 'choices': choices, 'label': 0}
  (made,) = make([example], 'multiple_choice', tokenizer, length)
  ids = tokenizer.encode(text)
  whole = [tokenizer.with_special_tokens(ids, tokenizer.encode(choice))[0] for choice in choices]
  assert made.truncated == (sum(map(len, whole)) > length)
  limit = length // len(choices) if made.truncated else None
  expected = [tokenizer.with_special_tokens(ids, tokenizer.encode(choice), limit)[0] for choice in choices]
  assert made.features['inputs'].tolist() == [i for of_choice in expected for i in of_choice]
  assert len(made.features['inputs']) <= length
  assert (made.features['inputs'][made.features['pooled']] == tokenizer.cls_id).all()


def test_questions_with_too_many_choices_are_dropped():
  examples = [{'text': 'a b', 'choices': ['b'] * count, 'label': 0} for count in (12, 13)]
  made = make(examples, 'multiple_choice', open_family('bert'), 60)
  assert [example.features['segments'].max() for example in made] == [12] and made.dropped == 1


CONTEXT = 'the cat was unbelievable , 12,345 whales of the mat . Ada was in it'
WORD_SPANS = [(m, m + len(w)) for w in CONTEXT.split() for m in [CONTEXT.index(w)]]


def span_example(start, end, context=CONTEXT, question='who was it ?'):
  return {'text': question, 'pair': context, 'answers': [context[start:end]], 'starts': [start]}


@pytest.mark.parametrize('family', FAMILIES)
@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(data=st.data(), length=st.integers(34, 80), stride=st.integers(0, 8))
def test_answers_are_found_again_from_token_positions(family, data, length, stride):
  tokenizer = open_family(family)
  first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(WORD_SPANS) - 1)] * 2)))
  start, end = WORD_SPANS[first][0], max(WORD_SPANS[last][1], WORD_SPANS[first][1])
  windows = make([span_example(start, end)], 'span', tokenizer, length, long_examples='split', stride=stride)
  _, places = tokenizer.encode_with_offsets(CONTEXT)
  question = tokenizer.encode('who was it ?')[:12]
  seen, found = set(), 0
  for window in windows:
    features = window.features
    assert len(features['inputs']) <= length and features['offsets'].shape == (len(features['inputs']), 2)
    of_context = np.flatnonzero(features['offsets'][:, 0] >= 0)
    assert np.all(np.diff(of_context) == 1)
    assert_frame_of(features, tokenizer, (question, features['inputs'][of_context].tolist()))
    seen |= {tuple(place) for place in features['offsets'][of_context].tolist()}
    one, two = features['span']
    if one in features['pooled']:
      assert one == two
      continue
    found += 1
    assert CONTEXT[features['offsets'][one][0] : features['offsets'][two][1]] == CONTEXT[start:end]
  assert seen == set(places)
  needed = np.flatnonzero([place[0] < end and place[1] > start for place in places])
  room = length - len(tokenizer.with_special_tokens(question, [])[0])
  if needed[-1] - needed[0] < stride or len(places) <= room:
    assert found


def test_a_span_that_is_not_there_is_the_class_token():
  tokenizer = open_family('bert')
  (without,) = make([{'text': 'who', 'pair': CONTEXT, 'answers': [], 'starts': []}], 'span', tokenizer, 80)
  assert without.features['span'].tolist() == [0, 0] and not without.truncated
  (cut,) = make([span_example(*WORD_SPANS[-1])], 'span', tokenizer, 34)
  assert cut.features['span'].tolist() == [0, 0] and cut.truncated and len(cut.features['inputs']) == 34
  dropped = make([span_example(*WORD_SPANS[-1])], 'span', tokenizer, 34, long_examples='drop')
  assert (len(dropped), dropped.dropped) == (0, 1)


def test_long_questions_lose_their_end():
  tokenizer = open_family('bert')
  (made,) = make([span_example(*WORD_SPANS[0], question='it ' * 30)], 'span', tokenizer, 90)
  assert made.features['inputs'].tolist()[:14] == [tokenizer.cls_id, *tokenizer.encode('it') * 12, tokenizer.sep_id]
  assert made.truncated


@pytest.mark.parametrize('start', [-1, 1, 400])
def test_answers_that_are_not_where_they_should_be_are_refused(start):
  example = {'text': 'who', 'pair': CONTEXT, 'answers': ['the cat'], 'starts': [start]}
  with pytest.raises(errors.UsageError, match=rf"question 'who': got the answer 'the cat' at character {start}"):
    make([example], 'span', open_family('bert'), 80)


def test_pieces_of_one_character_hold_it_together():
  assert encoder_spans.answer_tokens([(0, 1), (1, 1), (1, 2), (1, 2), (2, 3)], 1, 2) == (2, 3)
  assert encoder_spans.answer_tokens([(0, 1), (2, 3)], 1, 2) is None


@pytest.mark.parametrize('family', FAMILIES)
@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
  words=st.lists(st.sampled_from((*WORDS, '', '\u200d', '\u65e5')), max_size=40),
  length=st.integers(12, 40),
  stride=st.integers(0, 8),
)
def test_every_word_is_tagged_once(family, words, length, stride):
  tokenizer = open_family(family)
  tags = [i % 3 - 1 for i in range(len(words))]
  made = make(
    [{'words': words, 'tags': tags}], 'tagging', tokenizer, length, 'OB', long_examples='split', stride=stride
  )
  found = []
  for example in made:
    features = example.features
    assert len(features['inputs']) <= length and not example.truncated
    begins = np.flatnonzero(features['words'] >= 0)
    found += [(features['words'][at], features['tags'][at], features['inputs'][at]) for at in begins]
    assert set(np.flatnonzero(features['tags'] >= 0)) <= set(begins)
    assert features['inputs'][begins].tolist() == [
      (tokenizer.encode(encoder_tags.space_before_words(tokenizer) + words[i]) or [tokenizer.unk_id])[0]
      for i in features['words'][begins]
    ]
  assert [(word, tag) for word, tag, _ in found] == list(enumerate(tags))


@pytest.mark.parametrize('family', FAMILIES)
def test_words_have_the_ids_of_the_sentence(family):
  tokenizer = open_family(family)
  words = ['the', 'cat', 'was', 'unbelievable', 'mat']
  (made,) = make([{'words': words, 'tags': [0] * 5}], 'tagging', tokenizer, 60, 'O')
  before = encoder_tags.space_before_words(tokenizer)
  assert_frame_of(made.features, tokenizer, (tokenizer.encode(before + ' '.join(words)),))
  assert before == (' ' if family == 'roberta' else '')


def test_truncated_sentences_lose_tags_and_say_so():
  example = {'words': ['it'] * 20, 'tags': [0] * 20}
  (made,) = make([example], 'tagging', open_family('bert'), 10, 'O')
  assert made.truncated and np.count_nonzero(made.features['tags'] == 0) < 20 and len(made.features['inputs']) == 10
  dropped = make([example], 'tagging', open_family('bert'), 10, 'O', long_examples='drop')
  assert (len(dropped), dropped.dropped) == (0, 1)


@pytest.mark.parametrize(
  ('head', 'example', 'match'),
  [
    ('classification', {'text': 'a'}, r"returned the keys \['text'\], expected \['label', 'text'\] for classification"),
    ('classification', {'text': 'a', 'label': 2}, 'got label 2, expected one of 2, or -1'),
    ('multiple_choice', {'text': 'a', 'choices': ['b'], 'label': 1}, 'got label 1, expected one of 1'),
    ('multiple_choice', {'text': 'a', 'choices': [], 'label': -1}, 'a question without choices'),
    ('tagging', {'words': ['a'], 'tags': [0, 1]}, 'got 1 words and 2 tags'),
    ('tagging', {'words': ['a'], 'tags': [5]}, 'got label 5'),
    ('span', {'text': 'a', 'pair': 'b', 'answers': ['b'], 'starts': []}, 'got 1 answers and 0 starts'),
  ],
)
def test_what_a_head_cannot_use_is_refused(head, example, match):
  labels = ('no', 'yes') if head in ('classification', 'tagging') else ()
  with pytest.raises(errors.UsageError, match=match):
    make([example], head, open_family('bert'), 60, labels)


def test_impossible_lengths_strides_and_tokenizers_are_refused_at_once():
  bert = open_family('bert')
  for head, length, options, match in (
    ('classification', 2, {}, 'got a length of 2 for a text, expected at least 3: .* adds 2 special'),
    ('classification', 20, {'long_examples': 'split', 'stride': 9}, 'got stride 9, expected less than the 9 tokens'),
    ('span', 15, {}, 'length of 15 with questions of up to 12 tokens, expected at least 16'),
    ('span', 30, {'long_examples': 'split', 'stride': 15}, 'got stride 15, expected less than the 15'),
    ('tagging', 10, {'long_examples': 'split', 'stride': 8}, 'got stride 8, expected less than the 8'),
  ):
    with pytest.raises(errors.UsageError, match=match):
      tokenise_labelled(a_task(head, **options), bert, length, 12)
  with pytest.raises(errors.UsageError, match="'t5' has no cls token"):
    tokenise_labelled(a_task('classification'), load_tokenizer(GOLDEN / 't5'), 20)


def test_a_stream_goes_through_all_parts_of_all_records_from_anywhere():
  tokenizer = open_family('bert')
  rows = [[0, 30], [], [5, 60, 90], [40]]  # of the second and the fourth record, all is left out or dropped
  records = [{'of': [{'text': 'it ' * size, 'label': 0} for size in row]} for row in rows]

  def stream(**options):
    class Records(list):
      def __getitems__(self, indices):
        return [self[index] for index in indices]

    tokenise = tokenise_labelled(a_task('classification', **options), tokenizer, 22)
    index_of = range(len(records)).__getitem__
    reader = documents.DocumentReader(
      't', Records(records), lambda n: index_of(n) if n < len(records) else None, tokenise
    )
    return encoder_stream.LabelledStream(reader)

  def rest(stream):
    found = []
    while not isinstance(example := stream.next(), streams.TheEnd):
      found.append((example.features['inputs'].tolist(), example.dropped, stream.cursor))
    return found

  whole = rest(stream(long_examples='split'))
  assert [len(ids) - 2 for ids, _, _ in whole] == [0, 20, 10, 5, *[20] * 3, *[20] * 4, 10, *[20] * 2]
  assert [dropped for _, dropped, _ in whole] == [0, 0, 0, 1, *[0] * 10]
  for at, (_, _, cursor) in enumerate(whole):
    again = stream(long_examples='split')
    again.cursor = cursor
    assert [ids for ids, _, _ in rest(again)] == [ids for ids, _, _ in whole[at + 1 :]]
  few = rest(stream(long_examples='drop'))
  assert [(len(ids) - 2, dropped) for ids, dropped, _ in few] == [(0, 1), (5, 3)]


def published(name, family, folder):
  root = pathlib.Path(os.environ['T5X_LITE_REAL_DATA'])
  shutil.copytree(root / 'tokenizers' / name, folder)
  folder.chmod(0o755)
  (folder / 'tokenizer_config.json').write_text(json.dumps({'do_lower_case': 'uncased' in name}))
  return load_tokenizer(folder, model_type=family)


def package(tokenizer, folder):
  """The same vocabulary as the package `tokenizers` reads it."""
  library = pytest.importorskip('tokenizers')
  tokenizer.save(folder)
  return library.Tokenizer.from_file(str(folder / 'tokenizer.json'))


def squad_questions():
  path = pathlib.Path(os.environ['T5X_LITE_REAL_DATA'], 'squad', 'hf_fixture_sample.json')
  for record in json.loads(path.read_text())['data']:
    answers = record['answers']
    yield {
      'text': record['question'],
      'pair': record['context'],
      'answers': answers['text'],
      'starts': answers['answer_start'],
    }


@pytest.mark.parametrize('family', ['bert', 'roberta'])
def test_windows_are_those_of_hugging_face(family, tmp_path):
  tokenizer = open_family(family)
  assert_windows_of(package(tokenizer, tmp_path), tokenizer, [span_example(4, 7), span_example(8, 11)], 40, 5, 12)


@pytest.mark.real_data
@pytest.mark.skipif('T5X_LITE_REAL_DATA' not in os.environ, reason='T5X_LITE_REAL_DATA is not set')
@pytest.mark.parametrize('name', PUBLISHED)
def test_published_vocabularies_give_the_windows_of_hugging_face(name, tmp_path):
  tokenizer = published(name, PUBLISHED[name], tmp_path / name)
  backend = package(tokenizer, tmp_path / 'saved')
  questions = list(squad_questions())
  assert_windows_of(backend, tokenizer, questions, 128, 32, 64)
  backend.enable_truncation(64, strategy='longest_first')
  pairs = [{'text': example['text'], 'pair': example['pair'], 'label': 0} for example in questions]
  for made, example in zip(make(pairs, 'classification', tokenizer, 64), pairs, strict=True):
    theirs = backend.encode(example['text'], example['pair'])
    assert (made.features['inputs'].tolist(), made.features['token_types'].tolist()) == (theirs.ids, theirs.type_ids)


def assert_windows_of(backend, tokenizer, examples, length, stride, max_query_length):
  backend.enable_truncation(length, stride=stride, strategy='only_second')
  record = [{'of': examples}]
  split = a_task('span', long_examples='split', stride=stride)
  (made,) = tokenise_labelled(split, tokenizer, length, max_query_length)(record)
  ours = iter(made)
  for example in examples:
    context = example['pair']
    whole = backend.encode(example['text'], context)
    found = []
    for theirs in (whole, *whole.overflowing):
      features = next(ours).features
      assert features['inputs'].tolist() == theirs.ids
      if theirs is whole or tokenizer.family.name != 'roberta':  # whose types the package sets in the first window only
        assert features['token_types'].tolist() == theirs.type_ids
      of_context = np.array([side == 1 for side in theirs.sequence_ids])
      places = [tuple(place) for place in features['offsets'][of_context]]
      assert places == offsets.trimmed(context, [p for p, own in zip(theirs.offsets, of_context, strict=True) if own])
      assert np.all(features['offsets'][~of_context] == -1)
      if features['span'][0] not in features['pooled']:
        found.append(features['offsets'][features['span']])
    assert bool(found) == bool(example['answers'])
    for (start, _), (_, end) in found:  # the answer, and the rest of the tokens that it is a part of
      assert example['answers'][0] in context[start:end] and end - start <= len(example['answers'][0]) + 12
  assert next(ours, None) is None
