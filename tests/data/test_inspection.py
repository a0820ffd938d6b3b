import dataclasses
import html.parser
import io
import json
import pathlib
import re

import numpy as np
import pytest

from t5x_lite import inspect_data
from t5x_lite.core import errors
from t5x_lite.data import features, hashes, mixtures, opened, pipeline
from t5x_lite.data import task as task_lib
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.data.inspection import facts as inspection_facts
from t5x_lite.data.inspection import report as inspection
from t5x_lite.data.inspection import text as inspection_text
from t5x_lite.data.vocabularies.load_tokenizer import load_tokenizer
from t5x_lite.objectives import masked_lm, span_corruption

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'tokenizers' / 'bert'


@pytest.fixture
def config(registry, add_text_task, add_pair_task, number_tokenizer):
  add_text_task('docs', [list(range(100 + 50 * i, 150 + 50 * i)) for i in range(20)])
  add_pair_task('pairs', [([1000 + i] * 5, [2000 + i] * 9) for i in range(30)])
  registry.register(mixtures.Mixture('both', (('docs', 1.0), ('pairs', 3.0))))
  return pipeline.DatasetConfig(
    mixture_or_task_name='both',
    task_feature_lengths={'inputs': 30, 'targets': 20},
    tokenizer=number_tokenizer,
    batch_size=4,
    objective=span_corruption.SpanCorruption(),
  )


def report(config, num=3, **kwargs):
  out = io.StringIO()
  inspection.inspect(config, num, out, **kwargs)
  return out.getvalue()


def test_shows_examples_of_all_tasks_as_text(config):
  text = report(config)
  headings = [line for line in text.splitlines() if line.startswith('example')]
  assert [heading.split()[2] for heading in headings] == ['docs,', 'pairs,', 'docs,']
  assert '4999' in text  # a sentinel of a text example
  assert 'loss weight 10' in text  # a pair in a row: nine targets and EOS
  assert max(map(len, text.splitlines())) <= inspection_text.WIDTH


def test_figures_are_those_of_the_iterator(config):
  text = report(config, sample_batches=6)
  iterator = pipeline.build(config)
  for _ in range(6):
    next(iterator)
  iterator.close()
  statistics = iterator.statistics()
  assert 'over 6 batches' in text
  for name, share in statistics['share_per_task'].items():
    row = next(line.split() for line in text.splitlines() if line.split()[:1] == [name])
    examples, tokens = statistics['examples_per_task'][name], statistics['tokens_per_task'][name]
    assert row[2:4] == [str(examples), f'{share:.2%}']
    assert row[4:6] == [str(tokens), f'{statistics["token_share_per_task"][name]:.2%}']
  assert f'padding    {1 - statistics["useful_fraction"]:.1%}' in text
  assert 'tokens/s' in text


def test_a_pass_of_one_batch(config):
  config = dataclasses.replace(config, repeat=False, shuffle=False, batch_size=200)
  text = report(config, num=0)
  assert 'over 1 batches' in text
  assert 'example 1' not in text
  assert 'one batch only' in text


def test_long_words_with_sentinels_break_at_the_sentinels(config, number_tokenizer):
  class Joined(type(number_tokenizer)):
    def decode(self, ids):
      return '<extra_id_7>'.join('abc' for _ in ids)

  text = report(dataclasses.replace(config, tokenizer=Joined()))
  lines = [line for line in text.splitlines() if 'abc' in line]
  assert max(map(len, text.splitlines())) <= inspection_text.WIDTH
  assert all(line.endswith(('abc', '<extra_id_7>')) for line in lines)


def test_impossible_configurations_are_usage_errors(config):
  with pytest.raises(errors.UsageError, match='batch_size'):
    report(dataclasses.replace(config, batch_size=0))


def test_the_text_before_is_that_of_the_records_an_example_is_made_of(config):
  """Undone, every text example is what the objective was given, which stands in its documents."""
  data = opened.open_dataset(config)
  examples = inspection_facts.gather(config, 9, sample_batches=1).examples
  consumed = {}
  for example in examples:
    records = {document.record: document.texts for document in example.documents}
    assert all(
      texts
      == list(data.parts[example.task == 'pairs'].task.examples(data.parts[example.task == 'pairs'].records[record]))
      for record, texts in records.items()
    )
    if example.task == 'docs':
      whole = ' '.join(text['text'] for texts in records.values() for text in texts).split()
      assert whole[example.offset :][: example.raw_tokens] == example.raw.split()
      consumed.setdefault('docs', []).extend(example.raw.split())
      kept = {*example.texts['inputs'].split(), *example.texts['targets'].split()}
      assert set(example.raw.split()) <= kept
    else:
      assert example.raw is None
      assert [texts[0] for texts in records.values()] == [example.texts]
  expected = [data.parts[0].records[data.parts[0].order.dealt(0, 1)(number)]['doc'] for number in range(5)]
  assert ' '.join(expected).startswith(' '.join(consumed['docs']))


def test_lost_examples_are_told(config, registry, add_text_task, add_pair_task):
  pairs = [([7] * 5, [8]), ([7] * 5, [8]), ([7] * 99, [8]), ([], []), ([9], [9])]
  task = dataclasses.replace(add_pair_task('some', pairs), long_examples=task_lib.DROP)
  facts = inspection_facts.gather(
    dataclasses.replace(config, mixture_or_task_name=task, shuffle=False, repeat=False), 3, sample_batches=5
  )
  (found,) = facts.tasks
  assert (found.documents.read, found.documents.empty, found.documents.duplicates) == (5, 1, 1)
  assert (found.examples, found.truncated, found.dropped) == (4, 0, 1)
  assert [example.dropped for example in facts.examples] == [0, 0, 1]
  assert [example.documents[0].record for example in facts.examples] == [0, 1, 3]
  text = inspection_text.render(facts)
  assert '5 of 5 read: 1 empty, 1 duplicates' in text
  assert '1 dropped before' in text


def test_the_sample_of_records_is_limited(config):
  documents = [task.documents for task in inspection_facts.gather(config, 1, sample_records=7).tasks]
  assert [found.read for found in documents] == [7, 7]


def test_duplicates_are_counted_over_as_many_records_as_one_wants(tmp_path, capsys):
  lines = [f'document {n % 70}' for n in range(100)] + [' '] * 5
  (tmp_path / 'text.jsonl').write_text(''.join(json.dumps({'text': line}) + '\n' for line in lines))

  def documents(*flags):
    files = ['--gin_file=t5_tiny.gin', '--gin_file=data/files.gin', f'--gin.files.path={tmp_path}/text.jsonl']
    assert inspect_data.main(['inspect_data', *files, '--gin.BATCH_SIZE=2', '--num=1', '--json', *flags]) == 0
    found = json.loads(capsys.readouterr().out)['tasks'][0]['documents']
    return found['read'], found['duplicates'], found['empty']

  assert documents() == (105, 30, 5)
  assert documents('--documents=80') == (80, 10, 0)


def test_json_is_all_facts_and_holds_whole_rows(config):
  shown = json.loads(report(config, as_json=True, hashed_batches=5, hosts=2, sample_batches=1))
  batch = next(pipeline.build(dataclasses.replace(config, prefetch=0)))
  assert sorted(row['index'] for row in shown['sample']['rows']) == [0, 1, 2, 3]
  for row in shown['sample']['rows']:
    for side, found in row['sides'].items():
      for name, column in found['columns'].items():
        np.testing.assert_array_equal(batch[f'{side}_{name}'][row['index']], column)
      assert len(found['pieces']['input_tokens']) == found['length']
  assert shown['document_order_hash'] == hashes.order_hash(opened.open_dataset(config))
  expected = list(hashes.batch_hashes(config, 5))
  assert shown['batch_hashes']['hash'] == expected[-1].stream
  assert shown['batch_hashes']['each'] == [one.batch for one in expected]
  assert expected[-1].stream in report(config, hashed_batches=5)


class Page(html.parser.HTMLParser):
  """Checks that tags are closed, and collects the tokens of rows: `(classes, title, text)`."""

  def __init__(self):
    super().__init__()
    self.open, self.tokens = [], []

  def handle_starttag(self, tag, attrs):
    assert tag not in ('script', 'img', 'link'), 'not self-contained'
    if tag != 'meta':
      self.open.append(tag)
    if tag == 'span':
      self.tokens.append([dict(attrs).get('class', '').split(), dict(attrs).get('title', ''), ''])

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if 'span' in self.open:
      self.tokens[-1][2] += data


def test_the_page_colours_tokens_by_segment_and_weight(config, tmp_path):
  class Markup(type(config.tokenizer)):
    def decode(self, ids):
      return ' '.join(f'<{i}>&"' for i in ids)

  config = dataclasses.replace(
    config,
    tokenizer=Markup(),
    mixture_or_task_name='docs',
    objective=masked_lm.MaskedLM(),
    features=features.EncoderOnlyFeatures(),
    task_feature_lengths={'inputs': 20},
  )
  Markup.mask_id = Markup.cls_id = Markup.sep_id = 3
  path = tmp_path / 'page.html'
  text = report(config, page=str(path), sample_batches=1)
  assert str(path) in text
  page = Page()
  page.feed(path.read_text(encoding='utf-8'))
  page.close()
  assert page.open == []
  batch = next(pipeline.build(dataclasses.replace(config, prefetch=0)))
  tokens = [token for token in page.tokens if 'padding' not in token[0]]
  assert len(tokens) == np.count_nonzero(batch['encoder_segment_ids'])
  assert sum('loss' in token[0] for token in tokens) == batch['encoder_loss_weights'].sum() > 0
  assert all(('loss' in classes) == ('loss_weights 1' in title) for classes, title, _ in tokens)
  numbers = [int(re.search(r'segment_ids (\d+)', title)[1]) for _, title, _ in tokens]
  assert [classes[0] for classes, _, _ in tokens] == [f's{(number - 1) % 8}' for number in numbers]
  assert all('input_tokens' in title and 'positions' in title for _, title, _ in tokens)


LABELLED = {
  'classification': {'text': 'the cat', 'pair': 'was it', 'label': 1},
  'regression': {'text': 'the cat', 'label': 0.5},
  'multiple_choice': {'text': 'the cat', 'choices': ['was', 'it was'], 'label': 1},
  'span': {'text': 'who', 'pair': 'it was the cat', 'answers': ['the cat'], 'starts': [7]},
  'tagging': {'words': ['the', 'cat'], 'tags': [0, 1]},
}
ASKED = {
  'classification': {'label 1'},
  'regression': {'label 0.5'},
  'multiple_choice': {'label 0', 'label 1'},
  'span': {'span_start', 'span_end'},
  'tagging': {'label 0', 'label 1'},
}


@pytest.mark.parametrize('head', LABELLED)
def test_examples_for_heads_show_texts_and_labels(head, tmp_path, registry, add_text_task):
  pytest.importorskip('tokenizers')
  encoder = task_lib.EncoderTask(head, lambda record: LABELLED[head])
  config = pipeline.DatasetConfig(
    mixture_or_task_name=dataclasses.replace(add_text_task('labelled', [[1, 2]] * 3), encoder=encoder),
    task_feature_lengths={'inputs': 64},
    tokenizer=load_tokenizer(GOLDEN),
    batch_size=2,
    features=EncoderTaskFeatures(head, max_query_length=16),
  )
  path = tmp_path / 'page.html'
  shown = json.loads(report(config, num=1, as_json=True, page=str(path), sample_batches=1))
  (example,) = shown['examples']
  assert set(example['documents'][0]['texts'][0]) == set(LABELLED[head])
  assert 'the cat' in example['texts']['inputs'] and example['raw'] is None
  assert shown['tasks'][0]['documents']['duplicates'] == 2
  found = set(re.findall('<i>(.*?)</i>', path.read_text(encoding='utf-8')))
  assert {asked for texts in found for asked in re.findall(r'label [\d.]+|span_\w+', texts)} == ASKED[head]
  assert 'the cat' in report(config, num=1, sample_batches=1)


def test_labels_and_tags_are_shown_by_name(registry, add_text_task):
  pytest.importorskip('tokenizers')
  for head, told in (('classification', 'label: yes'), ('tagging', 'tags: no | yes'), ('regression', 'label: 0.5')):
    encoder = task_lib.EncoderTask(head, lambda record, head=head: LABELLED[head], ('no', 'yes'))
    config = pipeline.DatasetConfig(
      mixture_or_task_name=dataclasses.replace(add_text_task(head, [[1, 2]]), encoder=encoder),
      task_feature_lengths={'inputs': 64},
      tokenizer=load_tokenizer(GOLDEN),
      batch_size=2,
      features=EncoderTaskFeatures(head),
    )
    assert told in report(config, num=1, sample_batches=1)


@pytest.mark.parametrize('page', ['', 'missing/page.html', '.'])
def test_a_page_that_cannot_be_written_is_told_before_anything_is_read(config, page, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(inspection_facts, 'gather', lambda *_, **__: pytest.fail('read'))
  with pytest.raises(errors.UsageError, match='expected the name of a file'):
    report(config, page=page)


@pytest.mark.parametrize(
  ('arguments', 'told'),
  [
    (['--hash=0'], 'hash'),
    (['--hosts=0'], 'hosts'),
    (['--hash=two'], 'hash'),
    (['--hosts=4'], 'nothing to hash'),
    (['--hash=1', '--hosts=3', '--gin.BATCH_SIZE=2'], '3 hosts for a batch size of 2'),
    (['--html=no/such/folder/page.html'], 'page.html'),
  ],
)
def test_bad_flags_are_told_in_one_line(arguments, told, capsys):
  assert inspect_data.main(['inspect_data', '--gin_file=t5_small.gin', *arguments]) == 2
  shown = capsys.readouterr()
  assert told in shown.err and shown.err.count('\n') == 1 and not shown.out
