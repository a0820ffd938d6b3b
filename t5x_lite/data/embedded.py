"""The embedded corpus as a TFDS data set in ArrayRecord files: the default data, there on every machine.

Built on first use in the cache folder, from the documentation in `stdlib_docs`. Two configs:

    python_docs/text        {'module', 'text'}                           documents, to pretrain on
    python_docs/docstrings  {'module', 'qualname', 'summary', 'body'}    docstrings, for supervised tasks

Both have the splits `train` and `validation`, and no module is in both. What is in it differs with the version of
Python: `fingerprint` tells.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import pathlib
import sys

from t5x_lite.core import errors, paths
from t5x_lite.data import build_lock, stdlib_docs

NAME = 'python_docs'
VERSION = '1.0.0'  # of the data set and of the code that makes it: raise it when either changes
CONFIGS = {'text': ('module', 'text'), 'docstrings': ('module', 'qualname', 'summary', 'body')}
SPLITS = ('train', 'validation')

_log = logging.getLogger(__name__)


def folder(config: str = 'text') -> pathlib.Path:
  """The folder that `tfds.builder_from_directory` opens; builds the corpus (some seconds) where it is not there yet."""
  if config not in CONFIGS:
    raise errors.unknown('config of the embedded corpus', config, CONFIGS)
  return data_dir() / NAME / config / VERSION


def fingerprint() -> str:
  """Hex SHA-256 of the records of both configs: equal fingerprints mean the same corpus."""
  metadata = json.loads((folder() / 'metadata.json').read_text())
  return metadata['fingerprint']


def data_dir() -> pathlib.Path:
  """The TFDS data dir that holds the corpus, built once for each Python and cache folder."""
  return build_lock.build_once(paths.cache_dir() / NAME / _sources_key(), _build)


@functools.cache
def _sources_key() -> str:
  """Names what the corpus is made of without parsing it: the version, the Python, the names and sizes of the files."""
  library = stdlib_docs.stdlib_folder()
  made_of = (VERSION, sys.implementation.name, sys.version, stdlib_docs.source_files(library))
  return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def _build(root: pathlib.Path) -> None:
  """Writes both configs below the empty TFDS data dir `root`."""
  library = stdlib_docs.stdlib_folder()
  _log.info('building the embedded corpus from %s', library)
  docs = stdlib_docs.extract(library)
  records = {'text': docs.text, 'docstrings': docs.docstrings}
  metadata = {
    'fingerprint': _hash(records),
    'python': sys.version.split()[0],
    'implementation': sys.implementation.name,
  }
  for config, fields in CONFIGS.items():
    _write(root / NAME / config / VERSION, config, fields, records[config], metadata)
  _log.info('built the embedded corpus: %d documents, fingerprint %s', len(docs.text), metadata['fingerprint'])


def _hash(records: dict[str, list[dict[str, str]]]) -> str:
  digest = hashlib.sha256()
  digest.update(json.dumps([VERSION, records], sort_keys=True).encode())
  return digest.hexdigest()


def _write(
  path: pathlib.Path, config: str, fields: tuple[str, ...], records: list[dict[str, str]], metadata: dict[str, str]
) -> None:
  """Writes one config in the order of `records`, one ArrayRecord file for each split."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import dataset_info, sequential_writer

  path.mkdir(parents=True)
  identity = dataset_info.DatasetIdentity(
    name=NAME, config_name=config, version=VERSION, data_dir=str(path), module_name=__name__
  )
  info = tfds.core.DatasetInfo(
    builder=identity,
    description='Help topics and docstrings of the Python standard library.',
    features=tfds.features.FeaturesDict({field: tfds.features.Text() for field in fields}),
    metadata=tfds.core.MetadataDict(metadata),
  )
  by_split: dict[str, list[dict[str, str]]] = {split: [] for split in SPLITS}
  for record in records:
    by_split[stdlib_docs.split_of(record['module'])].append(record)
  writer = sequential_writer.SequentialWriter(info, max_examples_per_shard=len(records), file_format='array_record')
  writer.initialize_splits(list(SPLITS))
  writer.add_examples(by_split)
  writer.close_all()
