"""Classes, entities and answers of random models: labels, spans and scores are those of transformers' pipelines.

Runs where torch, transformers and this library are installed; answers where transformers has a pipeline for them, which
are versions before 5:

    python -m pytest experiments/parity/test_pipelines.py
"""

from __future__ import annotations

import pathlib
import re

import numpy as np
import pytest
import tokenizers
import torch
import transformers
import twins

import t5x_lite
from t5x_lite.data.vocabularies.load_tokenizer import load_tokenizer

TOKENIZERS = pathlib.Path(__file__).parents[2] / 'tests' / 'golden' / 'tokenizers'
FAMILIES = {'bert': 'Bert', 'roberta': 'Roberta', 'xlnet': 'XLNet'}
TEXTS = [
  'Ada Lovelace wrote the first program in 1843.',
  "The engine's designer, Charles Babbage, lived in London; he never finished it.",
  'word',
  "Straße, (naïve) café! unbelievably long-winded sentences about computation follow here, don't they?",
]
TAGS = ('O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC')


def saved(family: str, head: str, folder: pathlib.Path, seed: int, **more):
  """A random model with a head, its tokenizer, and the folder where both lie."""
  if family == 'roberta':  # with pieces as long as words: the golden one has the space before them as a piece
    trained = tokenizers.ByteLevelBPETokenizer()
    special = ['<s>', '<pad>', '</s>', '<unk>', '<mask>']
    trained.train_from_iterator(TEXTS * 9, vocab_size=500, special_tokens=special, show_progress=False)
    trained.save_model(str(folder))
    tokenizer = transformers.RobertaTokenizerFast(str(folder / 'vocab.json'), str(folder / 'merges.txt'))
    tokenizer.save_pretrained(folder)
  else:
    load_tokenizer(str(TOKENIZERS / family)).save(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  if family == 'xlnet':  # which transformers 5 no longer passes by itself
    tokenizer.model_input_names = ['input_ids', 'token_type_ids', 'attention_mask']
  sizes = {'vocab_size': len(tokenizer), 'hidden_size': 24, 'num_attention_heads': 3, 'num_hidden_layers': 2}
  sizes |= {'intermediate_size': 40, 'max_position_embeddings': 260}
  if family == 'xlnet':
    sizes = {'vocab_size': len(tokenizer), 'd_model': 24, 'n_head': 3, 'n_layer': 2, 'd_inner': 40}
  if family == 'roberta':
    sizes |= {'type_vocab_size': 1, 'pad_token_id': tokenizer.pad_token_id}
  config = getattr(transformers, f'{FAMILIES[family]}Config')(**sizes, **more)
  model = getattr(transformers, f'{FAMILIES[family]}For{head}')(config).eval()
  twins.randomise(model, seed, 0.25)
  model.save_pretrained(folder)
  return model, tokenizer, folder


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize(
  'more',
  [
    {'id2label': {0: 'bad', 1: 'so so', 2: 'good'}},
    {'num_labels': 4, 'problem_type': 'multi_label_classification'},
    {'num_labels': 1},
    {'num_labels': 1, 'problem_type': 'regression'},
  ],
  ids=['classes', 'several at once', 'one', 'grade'],
)
def test_classes(family, more, tmp_path):
  model, tokenizer, folder = saved(family, 'SequenceClassification', tmp_path, 0, **more)
  pipeline = transformers.pipeline('text-classification', model=model, tokenizer=tokenizer, top_k=None)
  ours = t5x_lite.load_pretrained(folder)
  found = [*ours.classify(TEXTS), *ours.classify(TEXTS, TEXTS[::-1])]
  pairs = [{'text': one, 'text_pair': two} for one, two in zip(TEXTS, TEXTS[::-1], strict=True)]
  expected = [pipeline(each) for each in (*TEXTS, *pairs)]
  for own, theirs in zip(found, expected, strict=True):
    (theirs,) = theirs if isinstance(theirs[0], list) else [theirs]
    named = {each['label']: each['score'] for each in theirs}
    if more.get('problem_type') == 'regression':
      assert own['prediction'] == pytest.approx(named['LABEL_0'], abs=2e-6)
      continue
    assert own['probabilities'] == pytest.approx(named, abs=2e-6)
    if 'probability' in own:
      assert own['prediction'] == max(named, key=named.get)


@pytest.mark.parametrize('family', FAMILIES)
def test_choices(family, tmp_path):
  model, tokenizer, folder = saved(family, 'MultipleChoice', tmp_path, 1)
  choices = ['a short one', 'another, which is longer', 'the third']
  encoded = tokenizer([TEXTS[0]] * 3, choices, padding=True, return_tensors='pt')
  with torch.no_grad():
    expected = model(**{name: value[None] for name, value in encoded.items()}).logits.softmax(-1)[0]
  (found,) = t5x_lite.load_pretrained(folder).classify(TEXTS[0], choices=[choices])
  assert found['probabilities'] == pytest.approx(expected.tolist(), abs=2e-6)
  assert found['prediction'] == choices[int(expected.argmax())]


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('strategy', ['simple', 'first', 'average', 'max'])
def test_entities(family, strategy, tmp_path):
  if family == 'xlnet' and strategy != 'simple':
    pytest.skip('the golden vocabulary has the space before words as a piece, which transformers takes for a word')
  model, tokenizer, folder = saved(family, 'TokenClassification', tmp_path, 2, id2label=dict(enumerate(TAGS)))
  pipeline = transformers.pipeline('ner', model=model, tokenizer=tokenizer, aggregation_strategy=strategy)
  count = 0
  for text, row in zip(TEXTS, t5x_lite.load_pretrained(folder).tag(TEXTS, aggregation_strategy=strategy), strict=True):
    expected = pipeline(text)
    apart = 1 if family == 'xlnet' else 0  # a character: theirs have the space beside them
    for own, theirs in zip(row['entities'], expected, strict=True):
      assert own['label'] == theirs['entity_group'] and own['score'] == pytest.approx(float(theirs['score']), abs=2e-5)
      assert abs(own['start'] - theirs['start']) <= apart and abs(own['end'] - theirs['end']) <= apart
    count += len(expected)
  assert count > 5


CONTEXT = ' '.join(TEXTS[:2])
QUESTIONS = ['Who wrote the first program?', 'Where did he live?', 'What was not finished, and by whom?']


@pytest.mark.skipif(int(transformers.__version__.split('.')[0]) > 4, reason='transformers 5 has no such pipeline')
@pytest.mark.parametrize('family', ['bert', 'roberta'])
@pytest.mark.parametrize('may_lack', [False, True])
def test_answers(family, may_lack, tmp_path):
  model, tokenizer, folder = saved(family, 'QuestionAnswering', tmp_path, 3)
  pipeline = transformers.pipeline('question-answering', model=model, tokenizer=tokenizer)
  ours = t5x_lite.load_pretrained(folder)
  for top in (1, 4):
    options = {'max_answer_len': 12, 'handle_impossible_answer': may_lack}
    rows = ours.answer(QUESTIONS, CONTEXT, top=top, **options)
    for question, row in zip(QUESTIONS, rows, strict=True):
      expected = pipeline(question=question, context=CONTEXT, top_k=top, **options)
      expected = [expected] if top == 1 else expected
      same = [(e['answer'], e['start'], e['end'], pytest.approx(e['score'], abs=2e-6)) for e in expected]
      assert [(e['answer'], e['start'], e['end'], e['score']) for e in row['answers']] == same


@pytest.mark.parametrize('family', FAMILIES)
def test_answers_of_long_contexts_are_the_best_sums_of_logits(family, tmp_path):
  """Over all windows, as SQuAD's scripts compare them, with one softmax; spans of the same words are one answer."""
  head = 'QuestionAnsweringSimple' if family == 'xlnet' else 'QuestionAnswering'
  model, tokenizer, folder = saved(family, head, tmp_path, 4)
  ours = t5x_lite.load_pretrained(folder)
  words = np.random.default_rng(0).permutation(' '.join(TEXTS[:2]).split() * 14)
  context, question = ' '.join(f'{word}{number}' for number, word in enumerate(words)), QUESTIONS[0]
  first = tokenizer.padding_side == 'right'
  encoded = tokenizer(
    *((question, context) if first else (context, question)),
    truncation='only_second' if first else 'only_first',
    max_length={'bert': 260, 'roberta': 258, 'xlnet': 384}[family],
    stride=20,
    return_overflowing_tokens=True,
    return_offsets_mapping=True,
    padding=True,
    return_tensors='pt',
  )
  assert len(encoded['input_ids']) > 1
  names = [name for name in ('input_ids', 'attention_mask', 'token_type_ids') if name in encoded]
  with torch.no_grad():
    output = model(**{name: encoded[name] for name in names})
  inside = torch.tensor([[own == int(first) for own in encoded.sequence_ids(w)] for w in range(len(output[0]))])
  counted = inside | (encoded['input_ids'] == tokenizer.cls_token_id)
  totals = sum(float(logits[counted].double().logsumexp(0)) for logits in (output.start_logits, output.end_logits))
  spans: dict[tuple[int, int], tuple[float, int, int]] = {}
  step = int(inside[0].sum()) - 20
  for window, places in enumerate(encoded['offset_mapping'].tolist()):
    own = [index for index, is_inside in enumerate(inside[window].tolist()) if is_inside]
    scored = [
      (float(output.start_logits[window, begin] + output.end_logits[window, end]), begin, end)
      for begin in own
      for end in range(begin, min(begin + 30, own[-1] + 1))
    ]
    for score, begin, end in sorted(scored, reverse=True)[:12]:
      tokens = begin - own[0] + window * step, end - own[0] + window * step  # which two windows may share
      spans[tokens] = max((score, places[begin][0], places[end][1]), spans.get(tokens, (-np.inf, 0, 0)))
  edges = {place: found.span() for found in re.finditer(r'\w+', context) for place in range(*found.span())}
  chances: dict[str, float] = {}
  for score, start, end in spans.values():
    start += len(context[start:end]) - len(context[start:end].lstrip())  # of a piece that is a space, too
    end -= len(context[start:end]) - len(context[start:end].rstrip())
    text = context[edges.get(start, (start,))[0] : edges.get(end - 1, (0, end))[1]]
    chances[text] = chances.get(text, 0.0) + np.exp(score - totals)
  (row,) = ours.answer(question, context, doc_stride=20, top=1)
  best = max(chances, key=chances.get)
  assert (row['prediction'], row['score']) == (best, pytest.approx(chances[best], abs=2e-6))
