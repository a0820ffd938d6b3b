"""What transformers writes, token by token, over many combinations of options; recorded, so it need not be there."""

import jax
import numpy as np
import pytest
import recorded

from t5x_lite.core.errors import UsageError
from t5x_lite.decoding.generate import write_from_prompt
from t5x_lite.partitioning.mesh import MeshShape, make_mesh

CASES = recorded.cases()
# One of each kind: the whole cross is slow to compile.
QUICK = ('max_new_tokens=9,output_scores=True', 'early_stopping=never,output_scores=True')


def assert_recorded(case, out):
  np.testing.assert_array_equal(out.ids, case.ids)
  if case.token_scores is not None:
    written = out.token_scores != 0  # behind the end of a row transformers has the scores of padding
    assert written[:, 0].all()
    np.testing.assert_allclose(out.token_scores[written], case.token_scores[written], atol=1e-4)
  if case.scores is not None:
    np.testing.assert_allclose(out.scores, case.scores, atol=1e-4)


def is_quick(case):
  return case.rows > 1 and str(case).endswith(QUICK)


def marks(number, case):
  """All of them:  python -m pytest tests/decoding/test_golden_generation.py"""
  if is_quick(case):
    return ()
  return (pytest.mark.slow,) if number % 8 == 0 else (pytest.mark.slow, pytest.mark.cross)


@pytest.mark.parametrize(
  'case', [pytest.param(case, marks=marks(number, case), id=str(case)) for number, case in enumerate(CASES)]
)
def test_ids_are_those_of_transformers(case):
  ids, mask = recorded.inputs(case.model)
  out = recorded.model(case.model).generate(ids[: case.rows], attention_mask=mask[: case.rows], **case.options)
  assert_recorded(case, out)


def test_the_quick_cases_are_some():
  assert sum(map(is_quick, CASES)) == 6


@pytest.mark.slow
@pytest.mark.parametrize('name', ['t5', 'gpt2', 'xlnet'])
@pytest.mark.parametrize('options', [{}, {'num_beams': 2, 'no_repeat_ngram_size': 2}], ids=['greedy', 'beams'])
def test_a_batch_is_continued_as_its_items_alone_whatever_the_padding(name, options):
  model = recorded.model(name)
  rng = np.random.default_rng(0)
  rows = [rng.integers(6, 30, length) for length in (4, 9, 1, 33)]  # without ids that stand for padding
  rows = rows[:3] if name == 'gpt2' else rows  # has positions for 40
  together = model.generate(rows, max_new_tokens=6, **options)
  for place, row in enumerate(rows):
    alone = model.generate([row], max_new_tokens=6, **options)
    np.testing.assert_array_equal(together.new_ids[place], alone.new_ids[0])


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'shape'),
  [
    ('t5', MeshShape(data=4, fsdp=2)),  # with heads that do not divide over tensor
    ('gpt2', MeshShape(data=2, fsdp=2, tensor=2)),
    ('xlnet', MeshShape(data=4, fsdp=2)),
  ],
)
def test_on_a_mesh_it_is_the_same(name, shape):
  ids, mask = recorded.inputs(name)
  mesh = make_mesh(shape)
  options = {'max_new_tokens': 6, 'num_beams': 2, 'num_return_sequences': 2}
  expected = recorded.model(name).generate(ids, attention_mask=mask, **options)
  got = recorded.model(name, mesh).generate(ids, attention_mask=mask, **options)
  np.testing.assert_array_equal(got.ids, expected.ids)
  np.testing.assert_allclose(got.scores, expected.scores, atol=1e-4)


def test_a_prompt_padded_in_any_way_is_continued_alike():
  model = recorded.model('gpt2')
  ids, mask = recorded.inputs('gpt2')
  bare = [row[own > 0] for row, own in zip(ids, mask, strict=True)]
  right = np.stack([np.pad(row, (0, 8 - len(row))) for row in bare])
  expected = model.generate(ids, attention_mask=mask, max_new_tokens=9, output_scores=True)
  for inputs in (bare, right):
    other = model.generate(inputs, max_new_tokens=9, output_scores=True)
    np.testing.assert_array_equal(other.ids, expected.ids)


@pytest.mark.parametrize('count', [1, 3])
def test_the_cache_is_exactly_as_long_as_it_must_be(count, monkeypatch):
  """A prompt once, and a slot for every token that is read: all of each continuation but the last."""
  model, seen = recorded.model('gpt2'), []
  init_cache = type(model.module).init_cache

  def spy(self, *args, **more):
    cache = init_cache(self, *args, **more)
    seen.append(cache.slots)
    return cache

  monkeypatch.setattr(type(model.module), 'init_cache', spy)
  options = {'max_new_tokens': 5, 'num_beams': count, 'num_return_sequences': count}
  decoding = model.generation_config.with_options(options).complete(32)
  prompt = np.full((1, 32), 4, np.int32)
  jax.eval_shape(lambda: write_from_prompt(model.module, model.params, prompt, np.ones_like(prompt), decoding))
  assert seen == [32 + count * 4]


@pytest.mark.parametrize(
  ('inputs', 'options', 'told'),
  [
    ([], {}, 'inputs are empty'),
    ([[]], {}, 'input 1 is empty: expected at least one token'),
    ([[4, 99]], {}, 'input 1 has 99: expected ids from 0 to 29'),
    ('a text', {}, 'the model has no tokenizer beside it'),
    ([[4] * 41], {}, 'the model has positions for 40'),
    ([[4] * 30], {'max_new_tokens': 11}, 'at most 10 new tokens'),
    ([[4]], {'num_beams': 16}, 'the model has only 30 tokens'),
    ([[4]], {'stop_strings': 'x'}, 'no tokenizer to tell their ids'),
    ([[0.5]], {}, 'expected a text, or a row of ids'),
    (5, {}, 'inputs are 5: expected texts, ids, or rows of ids'),
    ([[4]], {'forced_bos_token_id': 30}, 'forced_bos_token_id is 30: expected ids from 0 to 29'),
    ([[4]], {'forced_eos_token_id': [3, 99]}, 'forced_eos_token_id is 99: expected'),
    ([[4, 5], [7]], {'attention_mask': [[1, 1], [1, 1]]}, 'attention_mask is'),
    ([[4]], {'exponential_decay_length_penalty': (5, 'x')}, 'expected a number of tokens and a factor'),
  ],
)
def test_bad_input_is_refused_in_one_line(inputs, options, told):
  with pytest.raises(UsageError, match=told):
    recorded.model('gpt2').generate(inputs, **options)


def test_rows_of_several_lengths_may_have_masks_of_theirs():
  model = recorded.model('gpt2')
  rows, masks = [[4, 5, 6], [7]], [[0, 1, 1], [1]]
  found = model.generate(rows, attention_mask=masks, max_new_tokens=3)
  alone = [model.generate([row], max_new_tokens=3) for row in ([5, 6], [7])]
  for ids, own in zip(found.new_ids, alone, strict=True):
    np.testing.assert_array_equal(ids, own.new_ids[0])
