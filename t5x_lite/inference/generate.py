"""`infer --mode=generate`: what a model writes for a line, or how it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from t5x_lite import generation
from t5x_lite.core import errors
from t5x_lite.inference import modes, rows
from t5x_lite.inference.modes import Item, Options
from t5x_lite.pretrained import Pretrained


class Generate:
  """See `modes.Mode`. Raises UsageError where the model writes nothing."""

  field = 'inputs'
  columns = (
    'line',
    'inputs',
    'prediction',
    'predictions',
    'score',
    'scores',
    'token_scores',
    'truncated',
    'error',
  )

  def __init__(self, model: Pretrained, options: Options):
    generation.check_writes(model.module)
    self._model, self._options, self._tokenizer = model, options, modes.tokenizer_of(model)
    self._writer = model.writer
    options.generation.complete(1, self._writer.max_positions)  # what cannot be is told before anything is read

  def read(self, fields: Mapping[str, Any]) -> Item:
    """The ids of "inputs", which a decoder goes on from; of "text", too."""
    text = rows.text_field(fields, 'inputs', 'text')
    try:
      ids = self._model.prompt_ids(text)
    except errors.UsageError as error:
      raise ValueError(str(error)) from error
    shown: dict[str, Any] = {'inputs': text}
    if self._writer.encodes:
      ids, told = modes.cut(ids, self._options.max_input_length)
      return Item(ids, shown, told)
    try:
      self._options.generation.complete(len(ids), self._writer.max_positions)
    except errors.UsageError as error:
      raise ValueError(str(error)) from error
    return Item(ids, shown, {})

  def run(self, items: Sequence[Item], length: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The prediction for each, or all of them where there are several."""
    written = self._model.generate(
      [item.ids for item in items],
      generation_config=self._options.generation,
      seed=self._options.seed,
      rows=numbers,
    )
    assert written.texts is not None
    count = len(written.texts) // len(items)
    found = []
    for place, item in enumerate(items):
      own = slice(place * count, (place + 1) * count)
      row = {**item.shown, 'prediction': written.texts[own][0]}
      if count > 1:
        row['predictions'] = written.texts[own]
      if written.scores is not None:
        scores = [round(float(score), 6) for score in written.scores[own]]
        row |= {'scores': scores} if count > 1 else {'score': scores[0]}
      if written.token_scores is not None:
        each = [
          [round(float(score), 6) for score in scores[: len(ids)]]
          for scores, ids in zip(written.token_scores[own], written.new_ids[own], strict=True)
        ]
        row['token_scores'] = each if count > 1 else each[0]
      found.append(row | dict(item.more))
    return found
