"""From what a user calls a model to a local directory: a directory, or a name on the Hugging Face hub."""

from __future__ import annotations

import os
import pathlib
import re

from t5x_lite.core.errors import UsageError

# What a model is made of; weights in other formats, of which a repository often has several, stay where they are.
FILES = (
  'config.json',
  'generation_config.json',
  'model.safetensors',
  'model.safetensors.index.json',
  'model-*-of-*.safetensors',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  '*.model',
  'vocab.txt',
  'vocab.json',
  'merges.txt',
  'modules.json',  # and how sentence-transformers pools
  '*_Pooling/config.json',
  'sentence_bert_config.json',
)
_HUB_NAME = re.compile(r'[A-Za-z0-9][\w.-]*(/[\w.-]+)?')


def locate(source: str | os.PathLike[str], *, revision: str | None = None) -> pathlib.Path:
  """The directory of a model; of one on the hub, its snapshot in the hub's cache, where missing files are put first.

  `huggingface_hub` does it, with its environment: `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`, and `HF_HUB_OFFLINE`, with
  which nothing is asked over the network.

  Args:
    source: a directory, or a name such as `google-t5/t5-small`.
    revision: branch, tag or commit on the hub.

  Raises:
    UsageError: no such directory, no such name, no network.
  """
  path, name = pathlib.Path(source).expanduser(), os.fspath(source)
  if name and path.is_dir():
    return path.absolute()
  if path.is_file():
    raise UsageError(f'{name} is a file: expected the directory of a model, or a name on the hub')
  if not _HUB_NAME.fullmatch(name):
    raise UsageError(f'no directory {name!r}')
  return _snapshot(name, revision)


def _snapshot(name: str, revision: str | None) -> pathlib.Path:
  try:
    import huggingface_hub
    from huggingface_hub import errors as hub_errors
  except ModuleNotFoundError as error:
    raise UsageError(
      f"no directory {name}; to look for it on the hub, pip install 't5x_lite[hf]' (huggingface_hub)"
    ) from error
  asked = f'{name} at {revision}' if revision else name
  try:
    found = huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(FILES))
  except hub_errors.GatedRepoError as error:
    raise UsageError(f'{asked}: the hub wants its terms accepted first, and a token (hf auth login)') from error
  except hub_errors.RepositoryNotFoundError as error:
    raise UsageError(f'no directory {name}, and no such name on the hub (or a private one, without a token)') from error
  except hub_errors.RevisionNotFoundError as error:
    raise UsageError(f'{name} has no revision {revision} on the hub') from error
  except hub_errors.LocalEntryNotFoundError as error:
    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    why = 'HF_HUB_OFFLINE is set' if offline else 'the hub cannot be reached'
    raise UsageError(f'no directory {name}; {asked} is not (whole) in the cache of the hub, and {why}') from error
  except (hub_errors.HFValidationError, OSError) as error:
    # Of their messages the first line says what went wrong; the others are links and advice.
    raise UsageError(f'cannot get {asked} from the hub: {str(error).strip().splitlines()[0]}') from error
  return pathlib.Path(found)
