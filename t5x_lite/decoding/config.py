"""What text generation can be asked for, under Hugging Face's names; `GenerationConfig` there is what is matched."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from t5x_lite.core.errors import UsageError, unknown

Ids = tuple[int, ...]
# What transformers' class has and we do not; in a generation_config.json they are passed over.
_NOT_OURS = (
  *(
    'assistant_early_exit',
    'cache_implementation',
    'compile_config',
    'constraints',
    'dola_layers',
    'diversity_penalty',
  ),
  *('force_words_ids', 'guidance_scale', 'low_memory', 'max_time', 'num_beam_groups', 'output_attentions', 'top_h'),
  *('output_hidden_states', 'output_logits', 'penalty_alpha', 'prompt_lookup_num_tokens', 'token_healing', 'use_mtp'),
  *('watermarking_config', 'sequence_bias', 'return_dict_in_generate'),
  *('assistant_confidence_threshold', 'num_assistant_tokens_schedule'),
)
_DEFAULTS: dict[str, Any] = {
  'max_length': 20,
  'min_length': 0,
  'early_stopping': False,
  'do_sample': False,
  'num_beams': 1,
  'temperature': 1.0,
  'top_k': 50,
  'top_p': 1.0,
  'typical_p': 1.0,
  'epsilon_cutoff': 0.0,
  'eta_cutoff': 0.0,
  'repetition_penalty': 1.0,
  'encoder_repetition_penalty': 1.0,
  'length_penalty': 1.0,
  'no_repeat_ngram_size': 0,
  'encoder_no_repeat_ngram_size': 0,
  'renormalize_logits': False,
  'remove_invalid_values': False,
  'num_return_sequences': 1,
  'output_scores': False,
  'num_assistant_tokens': 5,
}
# Of numbers: the least, the most, and whether the bounds themselves are allowed.
_RANGES: dict[str, tuple[float, float, bool]] = {
  'max_length': (1, 2**31, True),
  'max_new_tokens': (1, 2**31, True),
  'min_length': (0, 2**31, True),
  'min_new_tokens': (0, 2**31, True),
  'num_beams': (1, 2**31, True),
  'num_return_sequences': (1, 2**31, True),
  'num_assistant_tokens': (1, 2**31, True),
  'temperature': (0.0, float('inf'), False),
  'top_k': (0, 2**31, True),
  'top_p': (0.0, 1.0, True),
  'min_p': (0.0, 1.0, True),
  'typical_p': (1e-30, 1.0, True),
  'epsilon_cutoff': (0.0, 1.0, True),
  'eta_cutoff': (0.0, 1.0, True),
  'repetition_penalty': (0.0, float('inf'), False),
  'encoder_repetition_penalty': (0.0, float('inf'), False),
  'no_repeat_ngram_size': (0, 2**31, True),
  'encoder_no_repeat_ngram_size': (0, 2**31, True),
}
_IDS = ('eos_token_id', 'forced_eos_token_id', 'suppress_tokens', 'begin_suppress_tokens')
_ID = ('pad_token_id', 'bos_token_id', 'decoder_start_token_id', 'forced_bos_token_id')


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
  """How text is written; None means what is usual. The fields mean what they mean in transformers.

  Attributes:
    max_length: tokens of a row at most, those of the longest prompt included (an encoder-decoder's start token is its
      prompt); 20 more than the prompt where neither this nor `max_new_tokens` is given.
    max_new_tokens: tokens written at most; goes before `max_length`.
    min_length: tokens of a row before it may end.
    min_new_tokens: tokens written before a row may end; goes before `min_length`.
    early_stopping: of beam search: True, stop once there are `num_beams` results; False, once a better one is unlikely;
      'never', once there can be none.
    stop_strings: a text that ends a row, or several; it may be spread over tokens, and is part of the output.
    do_sample: whether tokens are drawn; else the likeliest are taken.
    num_beams: 1, or the width of a beam search.
    temperature: the logits are divided by it.
    top_k: only the likeliest so many tokens are drawn from; 0: from all.
    top_p: only the likeliest tokens that together have this probability (Holtzman et al. 2020).
    min_p: only tokens this likely, relative to the likeliest (Nguyen et al. 2024).
    typical_p: only the tokens nearest to the entropy that together have this probability (Meister et al. 2023).
    epsilon_cutoff: only tokens this likely (Hewitt et al. 2022).
    eta_cutoff: the same, less strict where the entropy is high.
    repetition_penalty: above 1: what the row holds already is less likely (Keskar et al. 2019).
    encoder_repetition_penalty: above 1: what the input holds is more likely.
    length_penalty: exponent of the length by which the score of a beam is divided.
    no_repeat_ngram_size: no n-gram of this size is written twice; 0: any.
    encoder_no_repeat_ngram_size: no n-gram of this size of the input is written.
    bad_words_ids: sequences of ids that are never written.
    renormalize_logits: whether the scores are log-probabilities again after all of these.
    forced_bos_token_id: the first token written, behind a start token alone.
    forced_eos_token_id: the token written at the greatest length, one or several to choose from.
    remove_invalid_values: whether NaN is read as 0 and infinity as the greatest float32.
    suppress_tokens: ids that are never written.
    begin_suppress_tokens: ids that are not the first written.
    exponential_decay_length_penalty: `(start, factor)`: the end becomes likelier from so many tokens on.
    num_return_sequences: rows returned for each input.
    output_scores: whether the log-probability of every token is returned.
    num_assistant_tokens: with an `assistant_model`, so many tokens are drafted at a time; 5 where it is not given.
    pad_token_id: what follows the end of a row.
    bos_token_id: the start of a text.
    eos_token_id: what ends a row; several may.
    decoder_start_token_id: what an encoder-decoder starts from.
  """

  max_length: int | None = None
  max_new_tokens: int | None = None
  min_length: int | None = None
  min_new_tokens: int | None = None
  early_stopping: bool | str | None = None
  stop_strings: str | tuple[str, ...] | None = None
  do_sample: bool | None = None
  num_beams: int | None = None
  temperature: float | None = None
  top_k: int | None = None
  top_p: float | None = None
  min_p: float | None = None
  typical_p: float | None = None
  epsilon_cutoff: float | None = None
  eta_cutoff: float | None = None
  repetition_penalty: float | None = None
  encoder_repetition_penalty: float | None = None
  length_penalty: float | None = None
  no_repeat_ngram_size: int | None = None
  encoder_no_repeat_ngram_size: int | None = None
  bad_words_ids: tuple[Ids, ...] | None = None
  renormalize_logits: bool | None = None
  forced_bos_token_id: int | None = None
  forced_eos_token_id: int | Ids | None = None
  remove_invalid_values: bool | None = None
  suppress_tokens: Ids | None = None
  begin_suppress_tokens: Ids | None = None
  exponential_decay_length_penalty: tuple[int, float] | None = None
  num_return_sequences: int | None = None
  output_scores: bool | None = None
  num_assistant_tokens: int | None = None
  pad_token_id: int | None = None
  bos_token_id: int | None = None
  eos_token_id: int | Ids | None = None
  decoder_start_token_id: int | None = None

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if isinstance(value, list):
        object.__setattr__(self, field.name, _as_tuple(value))
    _check(self)

  @classmethod
  def names(cls) -> list[str]:
    """The names of all options."""
    return [field.name for field in dataclasses.fields(cls)]

  @classmethod
  def of_file(cls, content: Mapping[str, Any] | None) -> GenerationConfig:
    """What a generation_config.json says; what of it is not ours is passed over."""
    known = set(cls.names())
    return cls(**{name: value for name, value in (content or {}).items() if name in known})

  def with_options(self, options: Mapping[str, Any]) -> GenerationConfig:
    """This one with other values.

    Raises:
      UsageError: an option that there is not, or a value that none can be.
    """
    for name in options:
      if name in _NOT_OURS:
        raise UsageError(f'{name!r} of generate is of transformers, and not of this library')
      if name not in self.names():
        raise unknown('option of generate', name, self.names())
    return dataclasses.replace(self, **options)

  def complete(self, prompt_length: int, max_positions: int | None = None) -> Decoding:
    """The options as they are for prompts of a length.

    Args:
      prompt_length: of the longest prompt.
      max_positions: tokens of a row that the model has positions for; None: any number.

    Raises:
      UsageError: options that do not go together, or no room for a token behind the prompt.
    """
    filled = dataclasses.replace(
      self, **{name: value for name, value in _DEFAULTS.items() if getattr(self, name) is None}
    )
    if self.max_new_tokens is not None:
      longest = prompt_length + self.max_new_tokens
    elif self.max_length is not None:
      longest = self.max_length
    else:
      longest = prompt_length + _DEFAULTS['max_length']
      longest = longest if max_positions is None else min(longest, max_positions)
    if max_positions is not None and max(longest, prompt_length + 1) > max_positions:
      raise UsageError(
        f'a prompt of {prompt_length} tokens and {max(longest - prompt_length, 1)} more: the model has positions for '
        f'{max_positions}, expected a shorter prompt or at most {max(max_positions - prompt_length, 0)} new tokens'
      )
    if longest <= prompt_length:
      raise UsageError(
        f'max_length is {longest}, and the prompt has {prompt_length} tokens: expected a greater one, or max_new_tokens'
      )
    least = max((filled.min_length or 0) - prompt_length, 0) if self.min_new_tokens is None else self.min_new_tokens
    _check_together(filled)
    eos = () if self.eos_token_id is None else _ids(self.eos_token_id)
    pad = self.pad_token_id if self.pad_token_id is not None else eos[0] if eos else 0
    return Decoding(filled, prompt_length == 1, longest - prompt_length, least, eos, pad)


@dataclasses.dataclass(frozen=True)
class Decoding:
  """All that is known of a generation before it runs; hashable, so that a program is compiled once for each.

  Attributes:
    options: with no option left open that has a default.
    starts_bare: whether every prompt is a start token alone.
    max_new: tokens written at most.
    min_new: tokens written before the end.
    eos: ids that end a row.
    pad: what follows the end.
    num_tokens: ids from here on are never written; None: all may be.
  """

  options: GenerationConfig
  starts_bare: bool
  max_new: int
  min_new: int
  eos: Ids
  pad: int
  num_tokens: int | None = None

  @property
  def returned(self) -> int:
    """Continuations of every row that are returned."""
    return self.options.num_return_sequences or 1

  @property
  def branches(self) -> int:
    """Continuations of every row that are kept at a time."""
    return max(self.options.num_beams or 1, self.returned)


def _as_tuple(value: Any) -> Any:
  return tuple(_as_tuple(each) for each in value) if isinstance(value, list | tuple) else value


def _ids(value: int | Sequence[int]) -> Ids:
  return (value,) if isinstance(value, int) else tuple(value)


def _check(config: GenerationConfig) -> None:
  """Raises UsageError for a value that an option cannot have."""
  for name, (least, most, inclusive) in _RANGES.items():
    value = getattr(config, name)
    if value is None:
      continue
    whole = isinstance(least, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
      raise UsageError(f'{name} is {value!r}: expected {"an integer" if whole else "a number"}')
    if not (least <= value <= most if inclusive else least < value < most):
      bounds = f'at least {least}' if most >= 2**31 else f'{0 if least < 1e-9 else least} to {most}'
      raise UsageError(f'{name} is {value}: expected {bounds if inclusive else f"more than {least}"}')
  if config.early_stopping not in (None, True, False, 'never'):
    raise UsageError(f"early_stopping is {config.early_stopping!r}: expected True, False or 'never'")
  for name in ('do_sample', 'renormalize_logits', 'remove_invalid_values', 'output_scores'):
    if getattr(config, name) not in (None, True, False):
      raise UsageError(f'{name} is {getattr(config, name)!r}: expected True or False')
  length_penalty = config.length_penalty
  if length_penalty is not None and (isinstance(length_penalty, bool) or not isinstance(length_penalty, int | float)):
    raise UsageError(f'length_penalty is {length_penalty!r}: expected a number')
  for name in (*_IDS, *_ID):
    value = getattr(config, name)
    several = name in _IDS and isinstance(value, tuple) and (value or not name.endswith('token_id'))
    if value is not None and not (_is_id(value) or (several and all(map(_is_id, value)))):
      raise UsageError(f'{name} is {value!r}: expected an id{" or a list of ids" if name in _IDS else ""}')
  words = config.bad_words_ids
  if words is not None and not (
    isinstance(words, tuple) and words and all(isinstance(w, tuple) and w and all(map(_is_id, w)) for w in words)
  ):
    raise UsageError(f'bad_words_ids is {words!r}: expected lists of ids, such as [[5], [7, 3]]')
  stops = config.stop_strings
  if stops is not None and not (
    isinstance(stops, str | tuple) and stops and all(isinstance(s, str) and s for s in _texts(stops))
  ):
    raise UsageError(f'stop_strings is {stops!r}: expected a text, or a list of texts, none of them empty')
  decay = config.exponential_decay_length_penalty
  if decay is not None and not (
    isinstance(decay, tuple) and len(decay) == 2 and isinstance(decay[0], int) and isinstance(decay[1], int | float)
  ):
    raise UsageError(f'exponential_decay_length_penalty is {decay!r}: expected a number of tokens and a factor')


def check_ids(config: GenerationConfig, vocab_size: int) -> None:
  """Raises UsageError for an id that is to be written or read, and that a model with so many tokens does not have.

  An end or padding that it does not have is none, as in transformers.
  """
  for name in ('decoder_start_token_id', 'forced_bos_token_id', 'forced_eos_token_id'):
    value = getattr(config, name)
    wrong = [each for each in (_ids(value) if value is not None else ()) if each >= vocab_size]
    if wrong:
      raise UsageError(f'{name} is {wrong[0]}: expected ids from 0 to {vocab_size - 1}')


def _texts(value: str | tuple[str, ...]) -> tuple[str, ...]:
  return (value,) if isinstance(value, str) else value


def _is_id(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_together(config: GenerationConfig) -> None:
  """Raises UsageError for options that exclude each other, as transformers does."""
  beams, returned = config.num_beams or 1, config.num_return_sequences or 1
  if returned > 1 and beams == 1 and not config.do_sample:
    raise UsageError(
      f'num_return_sequences is {returned}, and without beams or sampling there is one result: expected '
      'do_sample=True, or num_beams of as many'
    )
  if beams > 1 and returned > beams:
    raise UsageError(f'num_return_sequences is {returned}, of num_beams {beams}: expected at most as many')
  for name in ('forced_bos_token_id', 'forced_eos_token_id'):
    forced = getattr(config, name)
    if forced is not None and config.suppress_tokens and set(_ids(forced)) <= set(config.suppress_tokens):
      raise UsageError(f'{name} is {forced}, which suppress_tokens forbids: expected other ids in one of them')
