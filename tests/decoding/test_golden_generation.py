"""What transformers writes, token by token, over many combinations of options; recorded, so it need not be there."""

import numpy as np
import pytest
import recorded

from t5x_lite.partitioning.mesh import MeshShape, make_mesh

CASES = recorded.cases()
# One of each kind: the whole cross is slow to compile.
QUICK = ('max_new_tokens=9,output_scores=True', 'early_stopping=never,output_scores=True', 'no_repeat_ngram_size=2')


def compare(case, out):
  np.testing.assert_array_equal(out.ids, case.ids)
  if case.token_scores is not None:
    np.testing.assert_allclose(out.token_scores, case.token_scores, atol=1e-4)
  if case.scores is not None:
    np.testing.assert_allclose(out.scores, case.scores, atol=1e-4)


def is_quick(case):
  name = str(case)
  return case.rows > 1 and name.endswith(QUICK) and case.model != 'xlnet_mem' and 'num_beams=3,no_rep' not in name


@pytest.mark.parametrize(
  'case', [pytest.param(case, marks=() if is_quick(case) else pytest.mark.slow, id=str(case)) for case in CASES]
)
def test_ids_are_those_of_transformers(case):
  ids, mask = recorded.inputs(case.model)
  compare(case, recorded.model(case.model).generate(ids[: case.rows], attention_mask=mask[: case.rows], **case.options))


def test_the_quick_cases_are_some():
  assert sum(map(is_quick, CASES)) == 9


@pytest.mark.parametrize('name', ['t5', 'gpt2', 'xlnet'])
@pytest.mark.parametrize('options', [{}, {'num_beams': 2, 'no_repeat_ngram_size': 2}], ids=['greedy', 'beams'])
def test_a_batch_is_continued_as_its_items_alone_whatever_the_padding(name, options):
  model = recorded.model(name)
  rng = np.random.default_rng(0)
  rows = [rng.integers(3, 30, length) for length in (4, 9, 1, 33)]
  rows = rows[:3] if name == 'gpt2' else rows  # has positions for 40
  together = model.generate(rows, max_new_tokens=6, **options)
  for place, row in enumerate(rows):
    alone = model.generate([row], max_new_tokens=6, **options)
    np.testing.assert_array_equal(together.new_ids[place], alone.new_ids[0])


@pytest.mark.parametrize('name', ['t5', 'gpt2', 'xlnet'])
def test_on_a_mesh_it_is_the_same(name):
  ids, mask = recorded.inputs(name)
  mesh = make_mesh(MeshShape(data=2, fsdp=2, tensor=2))
  options = {'max_new_tokens': 6, 'num_beams': 2, 'num_return_sequences': 2}
  expected = recorded.model(name).generate(ids, attention_mask=mask, **options)
  got = recorded.model(name, mesh).generate(ids, attention_mask=mask, **options)
  np.testing.assert_array_equal(got.ids, expected.ids)
  np.testing.assert_allclose(got.scores, expected.scores, atol=1e-4)
