"""The catalogue over TFDS: names, versions, splits and fields are TFDS's own, and small sets of its making are read."""

import importlib.util
import pathlib
import re

import pytest

from t5x_lite.core import errors
from t5x_lite.data import mixtures, prepared, sources, task
from t5x_lite.tasks import (
  entities,
  intents,
  multilingual_corpora,
  multitask,
  pretrain,
  summarization,
  translation,
)

_SPEC = importlib.util.spec_from_file_location('tfds_sets', pathlib.Path(__file__).with_name('tfds_sets.py'))
tfds_sets = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tfds_sets)

MODULES = (entities, intents, multilingual_corpora, pretrain, summarization, translation)
# The records of a small set of each, and the examples of its training split.
SETS = {
  'cnn_dailymail': (
    {'article': 'A b.', 'highlights': 'A.\nB.', 'publisher': 'cnn', 'id': '1'},
    {'inputs': 'summarize: A b.', 'targets': 'A.\nB.'},
  ),
  'xsum': ({'document': 'A b.', 'summary': 'A.'}, {'inputs': 'summarize: A b.', 'targets': 'A.'}),
  'samsum': (
    {'dialogue': 'Al: hi', 'summary': 'Al greets.', 'id': '1'},
    {'inputs': 'summarize: Al: hi', 'targets': 'Al greets.'},
  ),
  'wmt14_enfr': ({'fr': 'Bon.', 'en': 'Good.'}, {'inputs': 'translate English to French: Good.', 'targets': 'Bon.'}),
  'wmt14_deen': ({'de': 'Gut.', 'en': 'Good.'}, {'inputs': 'translate German to English: Gut.', 'targets': 'Good.'}),
  'wmt16_enro': ({'ro': 'Bun.', 'en': 'Good.'}, {'inputs': 'translate English to Romanian: Good.', 'targets': 'Bun.'}),
  'conll2003': (
    {'tokens': ['Bob', 'left'], 'pos': [0, 1], 'chunks': [0, 1], 'ner': [1, 0]},
    {'inputs': 'conll2003 : Bob left', 'targets': '[ Bob | person ] left'},
  ),
  'clinc150': (
    {'text': 'hi', 'intent': 0, 'domain': 0, 'intent_name': 'greeting', 'domain_name': 'x'},
    {'inputs': 'clinc150 text: hi', 'targets': 'greeting'},
  ),
}


@pytest.fixture(scope='module', autouse=True)
def tfds():
  """TFDS with the builders of all its families."""
  import tensorflow_datasets
  import tensorflow_datasets.summarization
  import tensorflow_datasets.text
  import tensorflow_datasets.translate

  return tensorflow_datasets


def tfds_tasks():
  assert MODULES
  return [
    entry for entry in map(task.get, task.names()) if isinstance(getattr(entry, 'source', None), sources.TfdsSource)
  ]


def test_names_and_versions_are_those_of_tfds(tfds):
  seen = set()
  for entry in tfds_tasks():
    name, config, version = re.fullmatch(r'(\w+)(?:/([\w.-]+))?:([\d.]+)', entry.source.name).groups()
    if (
      not {name} & {'c4', 'wikipedia', 'conll2003', 'clinc_oos', 'cnn_dailymail', 'xsum', 'samsum'}
      and 'wmt' not in name
    ):
      continue
    builder = tfds.builder_cls(name)
    configs = {known.name: known for known in builder.BUILDER_CONFIGS}
    assert config is None or config in configs, entry.name
    assert version == str((configs[config].version if config else None) or builder.VERSION), entry.name
    seen.add(name)
  assert {'c4', 'wikipedia', 'conll2003', 'clinc_oos', 'cnn_dailymail', 'wmt_t2t_translate'} <= seen


@pytest.mark.parametrize('name', SETS)
def test_a_set_of_tfds_is_read(name, tmp_path, monkeypatch):
  monkeypatch.setenv(prepared.DATA_DIR_VARIABLE, str(tmp_path))
  entry = task.get(name)
  record, expected = SETS[name]
  tfds_sets.prepare(tmp_path, entry.source.name, {split: [record] * 2 for split in entry.splits.values()})
  for split in entry.splits:
    records = entry.source.random_access(entry.source_split(split))
    assert [example for i in range(len(records)) for example in entry.examples(records[i])] == [expected] * 2
    if entry.reference and entry.postprocess:
      assert entry.postprocess(expected['targets']) == entry.reference(records[0])
    if entry.encoder:
      assert len(list(entry.encoder_examples(records[0]))) == 1


def test_languages_of_mc4_and_labels_of_conll_are_those_of_tfds(tfds):
  assert tuple(tfds.builder_cls('c4').builder_configs['multilingual'].languages) == multilingual_corpora.MC4_LANGUAGES
  assert tuple(tfds_sets.features_of('conll2003/conll2003:1.0.0')['ner'].feature.names) == entities.CONLL.tags


def test_a_language_is_two_splits_or_an_error():
  german = task.get('mc4_de')
  assert german.splits == {'train': 'de', 'validation': 'de-validation'}
  with pytest.raises(errors.UsageError, match="unknown language of mC4 'deu'"):
    multilingual_corpora.mc4('deu')
  assert len(mixtures.Mixture('again', task.get('mc4').rates).members()) == len(multilingual_corpora.MC4_LANGUAGES)


def test_many_languages_are_tagged_with_the_one_wanted(tmp_path):
  record = {'translations': {'language': ['en', 'de', 'fr'], 'translation': ['Good.', 'Gut.', '']}}
  pairs = (('en', 'de'), ('de', 'fr'), ('de', 'en'), ('en', 'ja'))
  entry = translation.translation('ted_multi_translate:1.1.0', pairs=pairs)
  expected = [{'inputs': '<2de> Good.', 'targets': 'Gut.'}, {'inputs': '<2en> Gut.', 'targets': 'Good.'}]
  assert list(entry.examples(record)) == expected
  talk = {'translations': {'en': 'Good.', 'de': 'Gut.', 'fr': ''}, 'talk_name': 'x'}
  tfds_sets.prepare(tmp_path, 'ted_multi_translate:1.1.0', {'train': [talk]})
  stored = translation.translation('ted_multi_translate:1.1.0', pairs=pairs, data_dir=str(tmp_path))
  found = stored.examples(stored.source.random_access('train')[0])
  assert sorted(found, key=str) == sorted(expected, key=str)
  with pytest.raises(errors.UsageError, match=r'translation\.pairs'):
    translation.translation('ted_multi_translate:1.1.0', pairs=('en', 'de'))


def test_rates_of_t5():
  rates = dict(multitask.t5_rates(limit=2**19, unsupervised=1e6))
  assert rates['c4_en'] == 1e6 and rates['wmt_t2t_ende'] == rates['wmt16_enro'] == 2**19
  assert rates['glue_rte'] == rates['super_glue_rte'] == 1_245
  assert rates['squad'] == 87_599 and rates['dpr'] == 1_322
  assert dict(multitask.t5_rates())['c4_en'] == 2**19
  final = dict(multitask.t5_rates(limit=2**21, unsupervised=2_620_000, translation_limit=1_000_000))
  assert (final['c4_en'], final['wmt15_enfr'], final['wmt_t2t_ende']) == (2_620_000, 1_000_000, 1_000_000)
  assert final['wmt16_enro'] == 610_320
  assert {rate for _, rate in multitask.t5_equal_rates()} == {1.0}
  warm = dict(multitask.t5_rates(limit=2**21, temperature=2.0))
  assert warm['c4_en'] == 2**10.5 and warm['squad'] == 87_599**0.5 and warm['glue_rte'] == (2490 / 2) ** 0.5
  assert {name for name, _ in multitask.t5_equal_rates()} == set(rates)
  assert all(isinstance(task.get(name), task.Task) for name in rates)
  with pytest.raises(errors.UsageError, match=r"t5_rates: got {'limit': 0"):
    multitask.t5_rates(limit=0)
