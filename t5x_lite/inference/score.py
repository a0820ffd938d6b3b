"""`infer --mode=score`: how likely a model finds a text, or targets after inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from t5x_lite.inference import modes, rows
from t5x_lite.inference.likelihood import Likelihood
from t5x_lite.inference.modes import Item, Options
from t5x_lite.pretrained import Pretrained


class Score:
  """See `modes.Mode`.

  An encoder-decoder scores "targets", their end included, for "inputs". A decoder or XLNet scores "targets" behind
  "inputs", or a text behind the id that begins one, as lm-evaluation-harness does.

  Raises:
    UsageError: the model is none of them.
  """

  field = 'text'
  columns = (
    'line',
    'text',
    'inputs',
    'targets',
    'log_likelihood',
    'num_tokens',
    'perplexity',
    'bits_per_byte',
    'token_log_likelihoods',
    'truncated',
    'error',
  )

  def __init__(self, model: Pretrained, options: Options):
    self._score = Likelihood(model)
    self._model, self._options, self._tokenizer = model, options, modes.tokenizer_of(model)

  def read(self, fields: Mapping[str, Any]) -> Item:
    """Ids of all that is read, and how many of the last are scored."""
    tokenizer = self._tokenizer
    if self._score.encodes:
      text = rows.text_field(fields, 'inputs')
      target = rows.text_field(fields, 'targets')
      ids, told = modes.cut(self._model.prompt_ids(text), self._options.max_input_length)
      targets, _ = tokenizer.with_special_tokens(tokenizer.encode(target))
      shown = {'inputs': text, 'targets': target}
      return Item(ids, shown, (ids, np.asarray(targets, np.int32), len(target.encode()), told))
    prompt = rows.text_field(fields, 'inputs') if 'inputs' in fields and 'targets' in fields else ''
    target = rows.text_field(fields, 'targets', 'text', 'inputs')
    # Blanks at the end of a prompt belong to the tokens behind it, as lm-evaluation-harness has it.
    before = [self._score.start, *tokenizer.encode(prompt.rstrip())]
    targets = tokenizer.encode(prompt + target)[len(before) - 1 :] if prompt.strip() else tokenizer.encode(target)
    if not len(targets):
      raise ValueError('nothing to score: expected a text')
    ids, longest = np.asarray([*before, *targets], np.int32), self._score.longest
    if longest is not None and len(ids) - 1 > longest:
      raise ValueError(f'a text of {len(ids) - 1} tokens: the model has positions for {longest}')
    shown = {'inputs': prompt, 'targets': target} if prompt else {'text': target}
    own = np.asarray(targets, np.int32)
    return Item(ids, shown, (np.asarray(before, np.int32), own, len(target.encode()), {}))

  def run(self, items: Sequence[Item], length: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Log-likelihood, perplexity by token, bits by byte."""
    scored = self._score([item.more[0] for item in items], [item.more[1] for item in items], length)
    found = []
    for item, (each, _) in zip(items, scored, strict=True):
      _, targets, size, told = item.more
      total = float(each.sum())
      bits = {'bits_per_byte': round(-total / math.log(2) / size, 6)} if size else {}
      found.append(
        {
          **item.shown,
          'log_likelihood': round(total, 6),
          'num_tokens': len(targets),
          'perplexity': round(math.exp(min(-total / len(targets), 700.0)), 6),
          **bits,
          'token_log_likelihoods': [round(float(score), 6) for score in each],
          **told,
        }
      )
    return found
