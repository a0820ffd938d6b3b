"""Classes, entities and answers of fine-tuned models, from the command line and from Python."""

from __future__ import annotations

import csv
import json
import pathlib

import jax
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite import infer, model_dir, pretrained, stored_models
from t5x_lite.core.errors import UsageError
from t5x_lite.data import task
from t5x_lite.data.vocabularies.load_tokenizer import load_tokenizer
from t5x_lite.inference import answers, classify, entities, heads
from t5x_lite.inference.answers import Window
from t5x_lite.models.bert import Bert, BertConfig

TOKENIZER = str(pathlib.Path(__file__).parent / 'golden' / 'tokenizers' / 'bert')
TEXTS = ['ada lovelace wrote the first program', 'it was in london', 'the word , the engine']
TAGS = ('O', 'B-PER', 'I-PER', 'LOC')
CHANCES = {'O': 0, 'B-PER': 1, 'I-PER': 2, 'LOC': 3}


# --- Tags -------------------------------------------------------------------------------------------------------------


def scores(*rows):
  """Probabilities of the tags named, the rest spread over the others."""
  found = np.empty((len(rows), len(TAGS)), np.float32)
  for row, (name, chance) in zip(found, rows, strict=True):
    row[:] = (1 - chance) / (len(TAGS) - 1)
    row[CHANCES[name]] = chance
  return found


TEXT = 'ada lovelace of london town'
PLACES = [(0, 3), (4, 8), (8, 12), (13, 15), (16, 22), (23, 27)]
WORDS = [0, 1, 1, 2, 3, 4]
TAGGED = scores(('B-PER', 0.9), ('I-PER', 0.6), ('B-PER', 0.8), ('O', 0.7), ('LOC', 0.5), ('LOC', 0.7))


@pytest.mark.parametrize(
  ('strategy', 'expected'),
  [
    ('simple', [('PER', 'ada love', 0.75, [0, 2]), ('PER', 'lace', 0.8, [1, 2]), ('LOC', 'london town', 0.6, [3, 5])]),
    ('first', [('PER', 'ada lovelace', 0.75, [0, 2]), ('LOC', 'london town', 0.6, [3, 5])]),
    ('max', [('PER', 'ada', 0.9, [0, 1]), ('PER', 'lovelace', 0.8, [1, 2]), ('LOC', 'london town', 0.6, [3, 5])]),
  ],
)
def test_neighbours_of_one_type_are_an_entity(strategy, expected):
  found = entities.entities(TEXT, entities.units(TAGGED, PLACES, WORDS, strategy), TAGS)
  assert [(own['label'], own['text'], own['score'], own['words']) for own in found] == [
    (label, text, pytest.approx(score, abs=1e-6), words) for label, text, score, words in expected
  ]
  assert all(TEXT[own['start'] : own['end']] == own['text'] for own in found)


def test_a_word_may_have_the_mean_of_its_tokens():
  found = entities.units(TAGGED, PLACES, WORDS, 'average')
  assert [unit.tag for unit in found] == [1, 1, 0, 3, 3]
  assert found[1].score == pytest.approx((0.8 + 0.4 / 3) / 2, abs=1e-6)


def test_entities_are_shown_in_brackets():
  found = entities.entities(TEXT, entities.units(TAGGED, PLACES, WORDS, 'first'), TAGS)
  assert entities.annotated(TEXT, found) == '[ada lovelace](PER) of [london town](LOC)'


# --- Answers ----------------------------------------------------------------------------------------------------------

CONTEXT = 'ada lovelace, who wrote it'
CONTEXT_PLACES = [(0, 3), (4, 8), (8, 12), (12, 13), (14, 17), (18, 23), (24, 26)]


def window(start, end, null=(-9.0, -9.0), first=0):
  return Window(np.asarray(start, np.float32), np.asarray(end, np.float32), null, first)


def best(*windows, top=1, max_length=30, may_lack=False):
  return answers.answers(CONTEXT, CONTEXT_PLACES, windows, top=top, max_length=max_length, may_lack=may_lack)


def test_a_score_is_the_product_of_the_probabilities_of_both_ends():
  start, end = np.array([4.0, 1, 0, 0, 0, 0, 0]), np.array([0, 0.5, 3.0, 0, 0, 0, 0])
  (found,) = best(window(start, end))
  chances = [np.exp(np.append(logits, -9.0)) / np.exp(np.append(logits, -9.0)).sum() for logits in (start, end)]
  # Three spans have these words: from 'ada' to either piece of 'lovelace', and that is one answer.
  assert found['answer'] == 'ada lovelace' and (found['start'], found['end']) == (0, 12)
  assert found['score'] == pytest.approx(chances[0][0] * (chances[1][1] + chances[1][2]), abs=1e-6)


def test_a_span_is_in_order_not_too_long_and_of_whole_words():
  (found,) = best(window([0, 0, 9, 0, 0, 0, 0], [9, 0, 1, 0, 0, 0, 0]))
  assert found['answer'] == 'lovelace'
  (found,) = best(window([9, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 9]), max_length=4)
  assert found['answer'] == 'ada lovelace,'


def test_windows_are_compared_by_their_logits_and_what_they_share_counts_once():
  sure = window([0, 5, 0, 0], [0, 0, 5, 0])
  unsure = window([1, 0, 0, 2], [1, 0, 0, 2], first=3)
  (found,) = best(sure, unsure)
  assert found['answer'] == 'lovelace' and found['score'] < best(sure)[0]['score']
  twice = window([5, 0, 0, 0], [0, 5, 0, 0], first=1)
  totals = sum(answers.log_total([sure[side], twice[side]], [-9.0] * 2) for side in (0, 1))
  # 'lovelace' is also from its first piece to that alone, and of its second alone.
  expected = np.exp(10 - totals) + 2 * np.exp(5 - totals)
  assert best(sure, twice, top=3)[0]['score'] == pytest.approx(expected, abs=1e-6)


def test_no_answer_is_one_where_it_may_be():
  context = ([2.0, 0, 0, 0, 0, 0, 0], [0, 0, 2.0, 0, 0, 0, 0])
  assert best(window(*context, null=(4.0, 4.0)), may_lack=True)[0]['answer'] == ''
  assert best(window(*context, null=(4.0, 4.0)))[0]['answer'] == 'ada lovelace'
  # The least of all windows counts.
  both = window(*context, null=(4.0, 4.0)), window([0.0], [0.0], null=(-4.0, -4.0))
  assert best(*both, may_lack=True)[0]['answer'] == 'ada lovelace'
  assert answers._whole_words('量子力学', 1, 2) == (1, 2)


# --- Models -----------------------------------------------------------------------------------------------------------


def saved(folder, head, num_labels=3, seed=0, **config):
  """A BERT of random weights with a head, as transformers would have saved it."""
  sizes = {'vocab_size': 300, 'emb_dim': 8, 'num_heads': 2, 'head_dim': 4, 'mlp_dim': 12, 'num_layers': 1}
  module = Bert(BertConfig(**sizes, heads=(head,), num_labels=num_labels, max_length=40, initializer_range=0.5))
  init = jax.jit(lambda: nn.meta.unbox(module.init({'params': jax.random.key(seed)}, stored_models._any_batch())))
  config = {**stored_models._exported_config(module), **config}
  stored = stored_models.StoredModel('here', module, config, None, lambda: load_tokenizer(TOKENIZER))
  pretrained.Pretrained(module, init()['params'], stored, pretrained.Report()).save(folder)
  return folder


NAMES = {'0': 'bad', '1': 'so so', '2': 'good'}


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
  return saved(tmp_path_factory.mktemp('c') / 'hf', 'classification', id2label=NAMES)


@pytest.fixture(scope='module')
def tagger(tmp_path_factory):
  names = {str(number): name for number, name in enumerate(TAGS)}
  return saved(tmp_path_factory.mktemp('t') / 'hf', 'tagging', 4, id2label=names)


@pytest.fixture(scope='module')
def reader(tmp_path_factory):
  return saved(tmp_path_factory.mktemp('a') / 'hf', 'span', 2)


def run(folder, tmp_path, lines, *flags, name='out.jsonl', source='in.jsonl'):
  source, output = tmp_path / source, tmp_path / name
  source.write_text(''.join(line + '\n' for line in lines))
  code = infer.main(
    ['infer', f'--checkpoint={folder}', f'--input={source}', f'--output={output}', '--batch_size=8', *flags]
  )
  if name.endswith('csv'):
    return code, list(csv.DictReader(output.read_text().splitlines()))
  return code, [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []


def test_classes_have_names_and_probabilities_and_bad_lines_cost_nothing(classifier, tmp_path, capsys):
  long = ' '.join(['program'] * 60)
  lines = [json.dumps({'text': text}) for text in TEXTS] + [
    'oops', '{"text": " "}', json.dumps({'text': TEXTS[0], 'pair': TEXTS[1]}), json.dumps({'text': long}), '{"x": 1}',
  ]  # fmt: skip
  code, rows = run(classifier, tmp_path, lines, '--mode=classify')
  assert code == 0 and [row['line'] for row in rows] == list(range(1, 9))
  told = capsys.readouterr().err
  for line, error in ((4, 'not JSON'), (5, 'the text is empty'), (8, 'expected a string under "text"')):
    assert error in rows[line - 1]['error'] and f'line {line}: ' in told
  model = pretrained.load_pretrained(classifier)
  ids, types = model.tokenizer.with_special_tokens(*map(model.tokenizer.encode, TEXTS[:2]))
  logits = model(input_ids=np.array([ids]), token_type_ids=np.array([types]))['logits'][0]
  expected = dict(zip(NAMES.values(), heads.softmax(logits), strict=True))
  assert rows[5]['probabilities'] == pytest.approx(expected, abs=2e-6)
  assert rows[5]['prediction'] == max(expected, key=expected.get) and rows[5]['pair'] == TEXTS[1]
  assert rows[6]['truncated'] and 'truncated' not in rows[5]
  found = model.classify(TEXTS[0], TEXTS[1])
  assert found == [{name: value for name, value in rows[5].items() if name != 'line'}]


def test_text_has_tabs_between_two_and_csv_columns(classifier, tmp_path):
  texts = [TEXTS[0], f'{TEXTS[0]}\t{TEXTS[1]}', 'a\tb\tc']
  _, rows = run(classifier, tmp_path, texts, '--mode=classify', source='in.txt')
  assert 'pair' not in rows[0] and rows[1]['pair'] == TEXTS[1] and 'got 3 texts' in rows[2]['error']
  lines = ['text,text_pair', f'{TEXTS[0]},{TEXTS[1]}']
  _, (row,) = run(classifier, tmp_path, lines, '--mode=classify', name='out.csv', source='in.csv')
  assert row['prediction'] == rows[1]['prediction'] and json.loads(row['probabilities']) == rows[1]['probabilities']


def test_several_labels_may_hold_and_one_output_may_be_a_grade(classifier, tmp_path):
  for problem, check in (('multi_label_classification', list), ('regression', list)):
    model = pretrained.load_pretrained(classifier)
    model.config = {**model.config, 'problem_type': problem}
    (row,) = model.classify(TEXTS[0])
    assert isinstance(row['prediction'], check)
    if problem != 'regression':
      held = [name for name, chance in row['probabilities'].items() if chance >= 0.5]
      assert row['prediction'] == held and not 0.999 < sum(row['probabilities'].values()) < 1.001


def test_a_person_is_told_the_likeliest_first(classifier, monkeypatch, capsys):
  asked = iter([TEXTS[0], ''])

  def line(prompt=''):
    try:
      return next(asked)
    except StopIteration:
      raise EOFError from None

  monkeypatch.setattr('builtins.input', line)
  assert infer.main(['infer', f'--checkpoint={classifier}', '--mode=classify', '--interactive']) == 0
  told = capsys.readouterr().out.splitlines()
  chances = [float(each.split('  ')[0]) for each in told[:3]]
  assert chances == sorted(chances, reverse=True) and 'the text is empty' in told[3]


def test_words_have_tags_and_long_texts_are_read_in_windows(tagger, tmp_path):
  long = ' '.join(TEXTS * 6)
  lines = [json.dumps({'text': long}), json.dumps({'words': TEXTS[0].split()}), '{"words": "a b"}', '{"words": []}']
  _, rows = run(tagger, tmp_path, lines, '--mode=tag')
  assert [len(row['words']) == len(row['tags']) for row in rows[:2]] == [True, True]
  assert ''.join(rows[0]['words']) == long.replace(' ', '') and rows[1]['words'] == TEXTS[0].split()
  assert 'list of texts under "words"' in rows[2]['error'] and 'no words to tag' in rows[3]['error']
  model = pretrained.load_pretrained(tagger)
  (one,) = model.tag(TEXTS[0])
  (same,) = model.tag(words=[TEXTS[0].split()])
  assert one['tags'] == same['tags'] == rows[1]['tags']
  ids, _ = model.tokenizer.with_special_tokens(model.tokenizer.encode(TEXTS[0]))
  tags = model(input_ids=np.array([ids]))['logits'][0].argmax(-1)[1:-1]
  begins = ~model.tokenizer.piece_continues[np.array(ids[1:-1])]
  assert one['tags'] == [TAGS[tag] for tag in tags[begins]]


def test_answers_are_text_of_contexts_of_any_length(reader, tmp_path):
  long = '. '.join(TEXTS * 6)
  lines = [
    json.dumps({'question': 'who wrote it ?', 'context': TEXTS[0]}),
    json.dumps({'question': 'where ?', 'context': long}),
    '{"question": "", "context": "x"}', '{"question": "who ?"}',
  ]  # fmt: skip
  _, rows = run(reader, tmp_path, lines, '--mode=answer', '--top=3', '--doc_stride=4')
  for row, context in zip(rows, (TEXTS[0], long), strict=False):
    assert len(row['answers']) == 3 and row['prediction'] == row['answers'][0]['answer']
    for own in row['answers']:
      assert context[own['start'] : own['end']] == own['answer'] and 0 <= own['score'] <= 1
  assert 'the question is empty' in rows[2]['error'] and '--context=FILE' in rows[3]['error']
  model = pretrained.load_pretrained(reader)
  found = model.answer(['who wrote it ?', 'who wrote it ?'], TEXTS[0], top=3, doc_stride=4)
  assert found == [{name: value for name, value in rows[0].items() if name != 'line'}] * 2
  (tmp_path / 'context.txt').write_text(TEXTS[0])
  flags = ('--mode=answer', '--top=3', '--doc_stride=4', f'--context={tmp_path / "context.txt"}')
  _, asked = run(reader, tmp_path, ['who wrote it ?', f'where ?\t{long}'], *flags, source='in.txt')
  assert [row['answers'] for row in asked] == [row['answers'] for row in rows[:2]]


@pytest.mark.parametrize(
  ('flags', 'told'),
  [
    (('--mode=tag',), 'model Bert has the heads classification, which tag nothing: expected tagging; fine-tune it'),
    (('--mode=answer',), 'which answer nothing: expected span'),
    (('--mode=clasify',), "unknown mode 'clasify': did you mean 'classify'?"),
    (('--mode=tag', '--aggregation_strategy=none'), "unknown aggregation_strategy 'none'"),
    (('--mode=answer', '--context=nowhere.txt'), 'nowhere.txt: No such file'),
    (('--mode=answer', '--handle_impossible_answers'), "did you mean '--handle_impossible_answer'"),
  ],
)
def test_what_cannot_be_is_refused_in_one_line(classifier, tmp_path, capsys, flags, told):
  code, rows = run(classifier, tmp_path, ['{"text": "one"}'], *flags)
  error = capsys.readouterr().err
  assert code == 2 and told in error and len(error.splitlines()) == 1 and not rows


def test_python_says_which_text_is_bad_and_a_new_head_answers_nothing(classifier, reader):
  model = pretrained.load_pretrained(classifier)
  with pytest.raises(UsageError, match='text 1: the text is empty'):
    model.classify(['a', ''])
  with pytest.raises(UsageError, match="got 1 under 'text', 2 under 'pair'"):
    model.classify('a', ['b', 'c'])
  with pytest.raises(UsageError, match='nobody has trained its head to classify'):
    pretrained.load_pretrained(reader, heads='classification').classify('a')


@pytest.mark.slow
def test_choices_are_scored_one_by_one(tmp_path):
  folder = saved(tmp_path / 'hf', 'multiple_choice')
  rows = [
    {'text': TEXTS[0], 'choices': ['program', 'the word']},
    {'text': TEXTS[0], 'question': 'the _ word', 'choices': '["first", "engine", "it"]'},
    {'text': TEXTS[0], 'choices': ['one']},
  ]
  _, found = run(folder, tmp_path, map(json.dumps, rows), '--mode=classify')
  assert len(found[1]['probabilities']) == 3 and sum(found[1]['probabilities']) == pytest.approx(1, abs=1e-5)
  assert found[0]['prediction'] == rows[0]['choices'][found[0]['choice']] and 'got 1 choices' in found[2]['error']
  model = pretrained.load_pretrained(folder)
  assert model.classify([TEXTS[0]], choices=[rows[0]['choices']])[0]['probabilities'] == found[0]['probabilities']


def test_the_names_of_labels_are_those_of_the_task_of_a_run(tmp_path):
  # Of a task of the catalogue, and of one that is not.
  (tmp_path / 'config.gin').write_text("NAME = 'glue_rte'\nMIXTURE_OR_TASK_NAME = %NAME\n")
  found = model_dir.encoder_task(tmp_path / 'config.gin')
  assert found.labels == ('entailment', 'not_entailment')
  module = Bert(BertConfig(heads=('classification',), num_labels=2))
  assert stored_models._labels(module, found)['id2label'] == {'0': 'entailment', '1': 'not_entailment'}
  assert stored_models._labels(Bert(BertConfig(heads=('mlm',))), found) == {}
  grade = task.EncoderTask('regression', lambda record: record)
  assert stored_models._labels(module, grade) == {'problem_type': 'regression'}
  (tmp_path / 'config.gin').write_text("MIXTURE_OR_TASK_NAME = 'somebodys_own'\n")
  assert model_dir.encoder_task(tmp_path / 'config.gin') is None


def test_a_list_of_choices_may_be_json_in_a_csv():
  assert classify.texts_field({'choices': '["a", "b"]'}, 'choices') == ['a', 'b']
  for bad in ('a, b', ['a', 3], None, ['a', ' ']):
    with pytest.raises(ValueError, match='expected a list of texts under "choices"'):
      classify.texts_field({'choices': bad}, 'choices')
