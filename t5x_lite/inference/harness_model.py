"""A model of ours as lm-evaluation-harness wants one (Gao et al. 2021; extra `lm_eval`).

Requests are split into tokens, shortened and answered as the harness does it for models of transformers, so that scores
compare: a decoder reads what stands before a continuation, from the left as much of it as there is room for; an
encoder-decoder reads it in its encoder and writes the continuation, without an end.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from lm_eval import utils
from lm_eval.api.model import LM

from t5x_lite.core import errors
from t5x_lite.generation import check_writes
from t5x_lite.inference.likelihood import Likelihood
from t5x_lite.pretrained import Pretrained, load_pretrained

_LENGTH = 2048  # of models that have no limit and whose vocabulary tells none, as in the harness
_NEW = 256
_Answer = TypeVar('_Answer')


class HarnessModel(LM):
  """Answers the requests of the harness.

  Args:
    pretrained: whatever `load_pretrained` reads; or what it returns.
    batch_size: requests at a time.
    max_length: tokens that are read at most, of an encoder-decoder by each side; None: as many as the model has
      positions for, or its vocabulary tells.
    max_gen_toks: tokens that are written, where a task does not tell.
    max_batch_size: passed over: batches do not grow by themselves here.
    device: passed over: the first device of JAX.
    **changes: of the configuration, such as `dtype='bfloat16'`; `revision`.

  Raises:
    UsageError: a model that writes nothing, or one without a vocabulary.
  """

  def __init__(
    self,
    pretrained: str | Pretrained,
    batch_size: int | str = 8,
    max_length: int | None = None,
    max_gen_toks: int = _NEW,
    max_batch_size: int | None = None,
    device: str | None = None,
    **changes: Any,
  ):
    super().__init__()
    model = pretrained if isinstance(pretrained, Pretrained) else load_pretrained(pretrained, **changes)
    check_writes(model.module)
    if model.tokenizer is None:
      raise errors.UsageError(f'{model.source} was saved without a vocabulary, and tasks are text')
    self._model, self._tokenizer, self._likelihood = model, model.tokenizer, Likelihood(model)
    self._batch_size = int(batch_size) if str(batch_size).isdigit() else 8
    limits = [self._likelihood.longest, max_length]
    if max_length is None and limits[0] is None:
      limits.append(self._tokenizer.model_max_length or _LENGTH)
    self._longest, self._new = min(limit for limit in limits if limit is not None), max_gen_toks

  def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
    """Of each continuation behind its context, and whether greedy decoding would write it."""
    pairs = [self._pair(*request.args) for request in requests]
    found = self._likelihoods(pairs)
    for request, answer in zip(requests, found, strict=True):
      self.cache_hook.add_partial('loglikelihood', request.args, answer)
    return found

  def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
    """Of each text as a whole, long ones in windows of which each token is in one."""
    windows = [self._windows(request.args[0]) for request in requests]
    flat = iter(self._likelihoods([pair for each in windows for pair in each]))
    found = [sum(next(flat)[0] for _ in each) for each in windows]
    for request, answer in zip(requests, found, strict=True):
      self.cache_hook.add_partial('loglikelihood_rolling', request.args, answer)
    return found

  def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
    """What is written behind each context, up to the first of the strings that end it."""
    kinds: dict[str, list[int]] = {}
    for place, request in enumerate(requests):
      kinds.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(place)
    found: dict[int, str] = {}
    for kind, places in kinds.items():
      options = self._options(json.loads(kind))
      contexts = [self._prompt(requests[place].args[0], options['max_new_tokens']) for place in places]
      texts = self._in_batches(contexts, len, functools.partial(self._written, options))
      found |= dict(zip(places, texts, strict=True))
    for place, request in enumerate(requests):
      self.cache_hook.add_partial('generate_until', request.args, found[place])
    return [found[place] for place in range(len(requests))]

  @property
  def tokenizer_name(self) -> str:
    """What caches of requests go by."""
    return self._tokenizer.fingerprint

  def _written(self, options: Mapping[str, Any], prompts: Sequence[np.ndarray]) -> list[str]:
    texts = self._model.generate(prompts, **options).texts
    assert texts is not None
    return [_until(text, options.get('stop_strings') or ()) for text in texts]

  def _options(self, given: dict[str, Any]) -> dict[str, Any]:
    """Those of `generate`, of what a task says."""
    until = given.pop('until', None) or ()
    until = [until] if isinstance(until, str) else [text for text in until if text]
    new = given.pop('max_gen_toks', given.pop('max_new_tokens', self._new))
    if given.get('temperature') == 0.0:  # so do tasks say that nothing is drawn
      del given['temperature']
      given['do_sample'] = False
    given.setdefault('do_sample', False)
    options = {**given, 'max_new_tokens': min(int(new), self._longest - 1)}
    return options | ({'stop_strings': tuple(until)} if until else {})

  def _prompt(self, context: str, new: int) -> np.ndarray:
    """The ids of a context: of a decoder the last that leave room for `new` tokens."""
    encodes = self._likelihood.encodes
    if not context and not encodes:
      return np.asarray([self._likelihood.start], np.int32)
    ids = self._model.prompt_ids(context)
    return ids[-self._longest :] if encodes else ids[-(self._longest - new) :]

  def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The ids of a context and of what follows it; spaces between them are of what follows."""
    if self._likelihood.encodes:
      return self._inputs(context), self._tokenizer.encode(continuation)
    stripped = context.rstrip()
    context, continuation = stripped, context[len(stripped) :] + continuation
    if not context:
      return [self._likelihood.start], self._tokenizer.encode(continuation)
    before, whole = self._tokenizer.encode(context), self._tokenizer.encode(context + continuation)
    return [*self._model.begin, *before], whole[len(before) :]

  def _inputs(self, context: str) -> list[int]:
    """What an encoder reads."""
    return self._model.prompt_ids(context).tolist() if context else [self._tokenizer.eos_id]

  def _windows(self, text: str) -> list[tuple[list[int], list[int]]]:
    ids = self._tokenizer.encode(text)
    start = self._tokenizer.eos_id if self._likelihood.encodes else self._likelihood.start
    windows = utils.get_rolling_token_windows(ids, prefix_token=start, max_seq_len=self._longest, context_len=1)
    return [(list(before), list(own)) for before, own in map(utils.make_disjoint_window, windows)]

  def _likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
    def answer(batch: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[tuple[float, bool]]:
      scored = self._likelihood([before for before, _ in batch], [own for _, own in batch])
      return [(float(each.log_likelihoods.sum()), bool(each.greedy.all())) for each in scored]

    empty = [place for place, (_, own) in enumerate(pairs) if not own]
    kept = [self._cut(*pair) for pair in pairs if pair[1]]
    answers = iter(self._in_batches(kept, lambda pair: len(pair[0]) + len(pair[1]), answer))
    return [(0.0, True) if place in empty else next(answers) for place in range(len(pairs))]

  def _cut(self, before: list[int], own: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """As much of a context as there is room for."""
    if self._likelihood.encodes:
      own = own[-self._longest :]
      return np.asarray(before[-self._longest :], np.int32), np.asarray(own, np.int32)
    own = own[-self._longest :]
    room = self._longest + 1 - len(own)
    return np.asarray(before[-room:], np.int32), np.asarray(own, np.int32)

  def _in_batches(
    self, items: Sequence[Any], size: Callable[[Any], int], answer: Callable[[Sequence[Any]], list[_Answer]]
  ) -> list[_Answer]:
    """The answers to some items, which are asked for together with others of about their size."""
    found: dict[int, _Answer] = {}
    for places in _groups(sorted(range(len(items)), key=lambda place: -size(items[place])), self._batch_size):
      batch = [items[place] for place in places]
      batch += [batch[0]] * (self._batch_size - len(batch))  # one shape, and one program
      found |= dict(zip(places, answer(batch), strict=False))
    return [found[place] for place in range(len(items))]


def _groups(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
  for begin in range(0, len(places), size):
    yield places[begin : begin + size]


def _until(text: str, stops: Sequence[str]) -> str:
  """The text before the first string that ends it."""
  return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]
