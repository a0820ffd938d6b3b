"""What a page of predictions is made of: bins, matrices, errors in their order; and the page itself."""

from __future__ import annotations

import html.parser

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t5x_lite.data.task import EncoderTask, Task
from t5x_lite.scoring import calibration, page, review
from t5x_lite.scoring.items import Item, Prediction

LABELS = ('bad <b>', 'good & fine')


def member(head, labels=(), may_lack=False, metrics=()):
  encoder = EncoderTask(head, lambda record: record, labels, may_lack_answer=may_lack)
  return Task('some', None, lambda record: record, supervised=True, metrics=metrics, encoder=encoder)


def classified(*rows):
  """(label, probability of label 1) of each."""
  made = [Item({}, {'text': f'<script>{n}</script>', 'label': label}, label) for n, (label, _) in enumerate(rows)]
  own = [
    Prediction(int(p > 0.5), {'probabilities': [1 - p, p]}, -float(np.log(p if label else 1 - p))) for label, p in rows
  ]
  return made, own


def test_bins_hold_what_is_above_their_low_end_and_the_error_is_the_mean_distance():
  bins = calibration.reliability([0.0, 0.1, 0.15, 0.95, 1.0], [True, False, True, True, False], num_bins=10)
  assert [own.count for own in bins] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 2]
  assert bins[0].confidence == pytest.approx(0.05) and bins[0].accuracy == 0.5 and np.isnan(bins[5].accuracy)
  expected = (2 * abs(0.05 - 0.5) + abs(0.15 - 1) + 2 * abs(0.975 - 0.5)) / 5
  assert calibration.expected_error(bins) == pytest.approx(expected)
  assert np.isnan(calibration.expected_error(calibration.reliability([], [])))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 15))
def test_every_prediction_is_in_one_bin_that_it_fits(pairs, num_bins):
  bins = calibration.reliability([sure for sure, _ in pairs], [hit for _, hit in pairs], num_bins)
  assert sum(own.count for own in bins) == len(pairs)
  assert all(own.low <= own.confidence <= own.high for own in bins if own.count)
  assert 0 <= calibration.expected_error(bins) <= 1
  assert sum(own.count * own.accuracy for own in bins if own.count) == pytest.approx(sum(hit for _, hit in pairs))


def test_a_matrix_has_a_row_for_what_is_right_and_a_column_for_no_label():
  counts = calibration.confusion([0, 0, 1, 1, 1], [0, 1, 1, -1, 7], 2)
  assert counts.tolist() == [[1, 1, 0], [0, 1, 2]]
  first, second = calibration.label_figures(counts)
  assert (first.precision, first.recall, first.count) == (100.0, 50.0, 2) and first.f1 == pytest.approx(200 / 3)
  assert (second.precision, second.recall) == (50.0, pytest.approx(100 / 3))


def test_the_worst_error_comes_first_and_only_what_is_known_counts():
  made, own = classified((1, 0.4), (0, 0.99), (1, 0.9), (0, 0.6))
  made.append(Item({}, {'text': 'unknown', 'label': -1}, None))
  own.append(Prediction(1, {'probabilities': [0.1, 0.9]}))
  found = review.review(member('classification', LABELS), ('accuracy',), made, own, most=2)
  assert [case.number for case in found.cases] == [1, 0] and (found.wrong, found.known) == (3, 4)
  assert found.cases[0].right == LABELS[0] and found.cases[0].predicted == LABELS[1]
  assert found.judged.references == [1, 0, 1, 0] and found.judged.predictions == [0, 1, 1, 1]
  assert found.confidences == pytest.approx([0.6, 0.99, 0.9, 0.6]) and found.hits == [False, False, True, False]


def test_words_are_counted_by_their_tags():
  labels = ('O', 'B-x')
  made = [Item({}, {'words': ['a', 'b', 'c'], 'tags': [0, 1, -1]}, ['O', 'B-x', 'O'])]
  own = [Prediction(['O', 'O', 'O'], {'tags': ['O', 'O', 'O'], 'probabilities': [0.9, 0.6, 0.5]}, 0.7)]
  found = review.review(member('tagging', labels), ('entity_f1',), made, own)
  assert found.unit == 'words' and found.confidences == [0.9, 0.6] and found.hits == [True, False]
  (case,) = found.cases
  assert (case.right, case.predicted, case.texts) == ('b: B-x', 'b: O', {'words': 'a b c'})


def test_answers_are_right_in_full_and_questions_without_one_make_a_matrix():
  questions = [(['Ada'], 'ada', 0.9), (['Ada', 'Ada L.'], 'Eve', 0.8), ([], '', 0.7), ([], 'Bob', 0.6)]
  made = [
    Item({}, {'text': 'who?', 'pair': 'Ada ...', 'answers': a, 'starts': [0] * len(a)}, a) for a, _, _ in questions
  ]
  own = [Prediction(text, {'probability': p}, float(n)) for n, (_, text, p) in enumerate(questions)]
  found = review.review(member('span', may_lack=True), ('squad_v2',), made, own)
  assert found.hits == [True, False, True, False] and [case.number for case in found.cases] == [3, 1]
  assert found.judged.references == [0, 0, 1, 1] and found.judged.predictions == [0, 0, 1, 0]
  assert found.cases[1].right == 'Ada | Ada L.' and found.cases[0].right == 'no answer'
  assert review.review(member('span'), ('squad',), made[:2], own[:2]).judged is None


def test_grades_are_ordered_by_their_squared_errors():
  made = [Item({}, {'text': 'a', 'pair': 'b', 'label': float(n)}, float(n)) for n in range(3)]
  own = [Prediction(value, {'value': value}, (value - n) ** 2) for n, value in enumerate([0.5, 3.0, 2.0])]
  found = review.review(member('regression'), ('pearson_corrcoef',), made, own)
  assert [case.number for case in found.cases] == [1, 0, 2] and found.judged is None and not found.confidences


def test_written_texts_are_ordered_by_their_own_scores():
  made = [Item({}, {'inputs': 'x', 'targets': 'a b c'}, 'a b c')] * 2
  found = review.review(
    member('classification', metrics=('exact_match',)),
    ('exact_match',),
    made,
    [Prediction(t, {'text': t}) for t in 'ab'],
  )
  assert (
    found.wrong == 2 and found.judged is None and 'score' in found.order and found.cases[0].texts == {'inputs': 'x'}
  )


class Checker(html.parser.HTMLParser):
  """Every tag is closed, and nothing is fetched or run."""

  def __init__(self):
    super().__init__()
    self.open, self.seen, self.data = [], set(), []

  def handle_starttag(self, tag, attrs):
    self.seen.add(tag)
    assert not {'src', 'href', 'onload', 'onclick'} & {name for name, _ in attrs}
    if tag != 'meta':
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.handle_starttag(tag, attrs)
    self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.data.append(data)


@pytest.mark.parametrize('count', [2, 40])
def test_the_page_needs_nothing_else_and_shows_texts_as_they_are(count):
  labels = (*LABELS, *(f'label {n}' for n in range(count - 2)))
  made, own = classified((1, 0.4), (0, 0.99), (1, 0.9), (0, 0.6))
  found = review.review(member('classification', labels), ('accuracy',), made, own)
  text = page.render('some <task>', {'score/accuracy': 25.0, 'score': 25.0, 'examples': 4}, found)
  checker = Checker()
  checker.feed(text)
  assert checker.open == [] and {'svg', 'table'} <= checker.seen and not {'script', 'b>', 'img', 'link'} & checker.seen
  shown = ''.join(checker.data)
  for part in ('some <task>', '<script>1</script>', *LABELS, 'Expected calibration error', 'loss 4.6052'):
    assert part in shown
  assert ('confused most' in shown) == (count == 40)
