"""What sentence-transformers keeps beside a model: it is fetched, read, and refused where it is not understood."""

import fnmatch
import json

import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.interop import hub, sentence_transformers


def write(folder, *kinds, pooling='pooling_mode_cls_token', length=None):
  (folder / '1_Pooling').mkdir()
  modules = [{'idx': n, 'type': f'sentence_transformers.models.{kind}'} for n, kind in enumerate(kinds)]
  (folder / 'modules.json').write_text(json.dumps(modules))
  (folder / '1_Pooling' / 'config.json').write_text(json.dumps({'pooling_mode_mean_tokens': False, pooling: True}))
  if length is not None:
    (folder / 'sentence_bert_config.json').write_text(json.dumps({'max_seq_length': length}))
  return folder


def test_pooling_length_and_norm_are_read(tmp_path):
  folder = write(tmp_path, 'Transformer', 'Pooling', 'Normalize', length=256)
  assert sentence_transformers.pooling_of(folder) == 'cls' and sentence_transformers.normalises(folder)
  assert sentence_transformers.max_length(folder) == 256
  # And what is read is fetched.
  for path in (path for path in folder.rglob('*') if path.is_file()):
    assert any(fnmatch.fnmatchcase(path.relative_to(folder).as_posix(), pattern) for pattern in hub.FILES), path


def test_a_folder_without_them_says_nothing(tmp_path):
  assert sentence_transformers.pooling_of(tmp_path) is None and not sentence_transformers.normalises(tmp_path)
  assert sentence_transformers.max_length(tmp_path) is None


def test_a_part_that_is_not_read_is_refused(tmp_path):
  folder = write(tmp_path, 'Transformer', 'Pooling', 'Dense', 'Normalize')
  with pytest.raises(UsageError, match='its vectors go through Dense, which is not read here'):
    sentence_transformers.normalises(folder)
