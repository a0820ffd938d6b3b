"""Each processor against its definition, written with sets and loops, on rows of random tokens with padding."""

import jax.numpy as jnp
import numpy as np
import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.decoding import processors
from t5x_lite.decoding.config import GenerationConfig

PROMPT, NEW, VOCAB = 6, 5, 7


def step_of(rng, written, encoder=False):
  """Four rows, of which two are padded, and the tokens of each that are there."""
  history = rng.integers(0, VOCAB, (4, PROMPT + NEW)).astype(np.int32)
  history[1, :3] = history[2, :5] = -1
  history[:, PROMPT + written :] = -1
  inputs = rng.integers(0, VOCAB, (4, 5)).astype(np.int32)
  inputs[0, 3:] = -1
  step = processors.Step(
    jnp.asarray(history), jnp.asarray(written, jnp.int32), jnp.asarray(inputs) if encoder else None, prompt=PROMPT
  )
  return step, [[t for t in row if t >= 0] for row in history.tolist()], [[t for t in r if t >= 0] for r in inputs]


def ngram_bans(source, row, size):
  """What would end an n-gram of `source`."""
  begun = row[len(row) - size + 1 :] if size > 1 else []
  return {source[i + size - 1] for i in range(len(source) - size + 1) if source[i : i + size - 1] == begun}


def banned(scores, before):
  return [set(np.flatnonzero(np.isneginf(np.asarray(row))).tolist()) for row in scores], before


@pytest.mark.parametrize('size', [1, 2, 3])
def test_no_ngram_is_written_twice(size):
  for seed in range(6):
    rng = np.random.default_rng(seed)
    for encoder in (False, True):
      step, rows, inputs = step_of(rng, seed % (NEW + 1), encoder)
      scores = jnp.zeros((4, VOCAB))
      found, _ = banned(processors.no_repeat_ngram(size, of_encoder=encoder)(step, scores), scores)
      expected = [
        ngram_bans([int(t) for t in source], row, size) if len(row) >= size - 1 else set()
        for source, row in zip(inputs if encoder else rows, rows, strict=True)
      ]
      assert found == expected


def test_bad_words_are_never_completed():
  words = [(2,), (3, 4), (1, 1), (0, 5, 6), (4, 2, 6, 3)]
  for seed in range(8):
    step, rows, _ = step_of(np.random.default_rng(seed), seed % (NEW + 1))
    found, _ = banned(processors.bad_words(words)(step, jnp.zeros((4, VOCAB))), None)
    for row, bans in zip(rows, found, strict=True):
      assert bans == {w[-1] for w in words if len(w) == 1 or row[-len(w) + 1 :] == list(w[:-1])}


def test_what_a_row_holds_is_penalised_once_and_padding_is_not_in_it():
  step, rows, inputs = step_of(np.random.default_rng(0), 2, encoder=True)
  scores = np.random.default_rng(1).normal(size=(4, VOCAB)).astype(np.float32)
  for processor, texts, penalty in (
    (processors.repetition_penalty(1.5), rows, 1.5),
    (processors.encoder_repetition_penalty(1.5), inputs, 1 / 1.5),
  ):
    expected = scores.copy()
    for row, text in enumerate(texts):
      for token in {int(t) for t in text}:
        value = scores[row, token]
        expected[row, token] = value * penalty if value < 0 else value / penalty
    np.testing.assert_allclose(processor(step, jnp.asarray(scores)), expected, rtol=1e-6)


def test_the_order_is_that_of_transformers():
  """What is forced is forced over what is forbidden; what is suppressed comes last of all."""
  config = GenerationConfig(
    max_new_tokens=NEW, forced_eos_token_id=3, bad_words_ids=((3,),), min_new_tokens=NEW, eos_token_id=3,
    suppress_tokens=(1,), begin_suppress_tokens=(2, 5), repetition_penalty=2.0,
  )  # fmt: skip
  chain = processors.build(config.complete(PROMPT))
  for written in range(NEW):
    step, _, _ = step_of(np.random.default_rng(written), written)
    scores = processors.process(chain, step, jnp.ones((4, VOCAB)))
    for bans in banned(scores, None)[0]:
      if written == NEW - 1:
        assert bans == set(range(VOCAB)) - {3}
      else:
        assert bans == {1, 3} | ({2, 5} if written == 0 else set())


@pytest.mark.parametrize(
  ('options', 'told'),
  [
    ({'num_beens': 4}, "unknown option of generate 'num_beens': did you mean 'num_beams'"),
    ({'penalty_alpha': 0.6}, "'penalty_alpha' of generate is of transformers"),
    ({'num_beams': 0}, 'num_beams is 0: expected at least 1'),
    ({'num_beams': 2.0}, 'expected an integer'),
    ({'temperature': 0.0}, 'temperature is 0.0: expected more than 0'),
    ({'top_p': 1.5}, 'top_p is 1.5: expected 0 to 1.0'),
    ({'max_new_tokens': 0}, 'max_new_tokens is 0: expected at least 1'),
    ({'early_stopping': 'now'}, "expected True, False or 'never'"),
    ({'bad_words_ids': [5]}, 'expected lists of ids'),
    ({'stop_strings': ['']}, 'none of them empty'),
    ({'eos_token_id': 'x'}, 'expected an id or a list of ids'),
    ({'num_return_sequences': 2}, 'expected do_sample=True, or num_beams'),
    ({'num_return_sequences': 3, 'num_beams': 2}, 'of num_beams 2: expected at most as many'),
    ({'suppress_tokens': [4], 'forced_eos_token_id': 4}, 'which suppress_tokens forbids'),
    ({'max_length': 6}, 'max_length is 6, and the prompt has 6 tokens'),
    ({'max_new_tokens': 20}, 'a prompt of 6 tokens and 20 more: the model has positions for 16'),
  ],
  ids=str,
)
def test_what_cannot_be_is_refused_in_one_line(options, told):
  with pytest.raises(UsageError) as error:
    GenerationConfig().with_options(options).complete(PROMPT, 16)
  assert told in str(error.value) and '\n' not in str(error.value)


def test_lengths_count_as_in_transformers():
  config = GenerationConfig()
  assert config.complete(6).max_new == 20
  assert config.complete(6, 16).max_new == 10
  assert config.with_options({'max_length': 9}).complete(6).max_new == 3
  both = config.with_options({'max_length': 9, 'max_new_tokens': 4, 'min_length': 8})
  assert (both.complete(6).max_new, both.complete(6).min_new) == (4, 2)
  assert both.with_options({'min_new_tokens': 1}).complete(6).min_new == 1


def test_of_a_file_what_is_not_ours_is_passed_over():
  said = {'eos_token_id': [1, 2], 'transformers_version': '5', 'num_beam_groups': 1, 'top_k': 30}
  config = GenerationConfig.of_file(said)
  assert (config.eos_token_id, config.top_k) == ((1, 2), 30)
  assert hash(config) == hash(GenerationConfig.of_file(said))
