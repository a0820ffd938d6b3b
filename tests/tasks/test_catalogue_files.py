"""Tasks over the files that authors publish: small files in their formats, and what is said of bad ones."""

import gzip
import hashlib
import io
import itertools
import json
import tarfile

import pytest

from t5x_lite.core import errors
from t5x_lite.data import task
from t5x_lite.metrics import registry
from t5x_lite.tasks import (  # noqa: F401 (they register tasks)
  dialogue,
  entities,
  events,
  intents,
  knowledge,
  originals,
  relations,
  summarization,
  translation,
)

SENTENCE = '7\t"The <e1>child</e1> lay in the <e2>cradle</e2>."\r\nEntity-Destination(e1,e2)\r\nComment: x\r\n\r\n'
CASIE_TEXT = 'Hackers stole data. They asked for a ransom, the ransom. All paid.  </text>'


def nugget(text, kind, after=0):
  start = CASIE_TEXT.index(text, after)
  return {'nugget': {'startOffset': start, 'endOffset': start + len(text), 'text': text}, 'subtype': kind}


CASIE = {
  'content': CASIE_TEXT,
  'cyberevent': {
    'hopper': [
      {'events': [nugget('stole', 'Databreach'), nugget('asked for a ransom', 'Ransom')]},
      {'events': [nugget('ransom', 'Ransom'), nugget('the ransom', 'Ransom')]},
    ]
  },
}
SCHEMA = [
  {'service_name': 'Hotels_1', 'slots': [{'name': 'city'}, {'name': 'party_size'}]},
  {'service_name': 'hotel', 'slots': [{'name': 'hotel-pricerange'}]},
]


def turn(speaker, utterance, **states):
  frames = [{'service': service, 'state': {'slot_values': values}} for service, values in states.items()]
  return {'speaker': speaker, 'utterance': utterance, 'frames': frames}


DIALOGUE = {
  'dialogue_id': '1',
  'turns': [
    turn('USER', 'A room\nin Rome', Hotels_1={'city': ['Rome', 'roma']}),
    {'speaker': 'SYSTEM', 'utterance': 'Sure?', 'frames': [{'service': 'Hotels_1'}]},
    turn('USER', 'For 2, cheap', hotel={'hotel-pricerange': ['cheap']}),
  ],
}


@pytest.fixture
def read(tmp_path):
  """The examples of a task over files in a folder of their own; without files, over those of the last call."""
  folders = itertools.count()

  def read(name, split, files):
    folder = read.folder = tmp_path / str(next(folders)) if files else read.folder
    for path, text in files.items():
      (folder / path).parent.mkdir(parents=True, exist_ok=True)
      (folder / path).write_bytes(text if isinstance(text, bytes) else text.encode())
    entry = originals.original(name, str(folder))
    records = entry.source.random_access(entry.source_split(split))
    found = [(records[i], example) for i in range(len(records)) for example in entry.examples(records[i])]
    check_own_targets(entry, found)
    return [example for _, example in found]

  return read


def check_own_targets(entry, found):
  """Targets as predictions are perfect."""
  own = [entry.postprocess(e['targets']) if entry.postprocess else e['targets'] for _, e in found]
  right = [entry.reference(r) if entry.reference else e['targets'] for r, e in found]
  for name in entry.metrics:
    if name not in ('rouge', 'bleu', 'chrf'):
      assert all(value == 100 for value in registry.get(name)(right, own).values())


def test_wnut17_and_conll_read_words_with_tags(read):
  text = 'Dune\tB-creative-work\nMessiah\tI-creative-work\n.\tO\n\t\nBob\tB-person\n'
  assert [example['targets'] for example in read('wnut17', 'train', {'wnut17train.conll': text})] == [
    '[ Dune Messiah | creative work ] .',
    '[ Bob | person ]',
  ]
  text = '-DOCSTART- -X- O O\n\nU.N. NNP I-NP I-ORG\nBob NNP I-NP I-PER\nTim NNP I-NP B-PER\n\n'
  (example,) = read('conll2003', 'train', {'eng.train': text})
  assert example['targets'] == '[ U.N. | organization ] [ Bob | person ] [ Tim | person ]'


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('Dune\tB-creative-wrk\n', "line 1: unknown tag 'B-creative-wrk': did you mean 'B-creative-work'"),
    ('a\tO\nDune\n', 'line 2 has no'),
  ],
)
def test_bad_lines_of_words_are_told(read, text, message):
  with pytest.raises(errors.UsageError, match=message):
    read('wnut17', 'train', {'wnut17train.conll': text})


def test_relations_are_read_with_their_direction(read):
  (example,) = read('semeval2010_task8', 'train', {'TRAIN_FILE.TXT': SENTENCE})
  assert example['inputs'] == (
    'semeval2010_task8 : The [ child ] lay in the [ cradle ] . The relationship between [ child ] and [ cradle ] is'
  )
  assert example['targets'] == 'relationship between [ child ] and [ cradle ] = Entity-Destination(e1,e2)'
  assert relations.relation_label('relationship between [ a ] and [ b = c ] = Other') == 'Other'
  assert relations.relation_label('no idea') is None
  with pytest.raises(errors.UsageError, match='line 1 is no numbered sentence'):
    read('semeval2010_task8', 'train', {'TRAIN_FILE.TXT': SENTENCE.replace('e2', 'e1')})


def test_classes_of_relations_mark_both_nouns():
  entry = task.get('semeval2010_task8')
  record = {'sentence': 'The <e1>child</e1>, in a <e2>cradle</e2>', 'relation': 18}
  assert entry.encoder.preprocess(record) == {'text': 'The $ child $ , in a # cradle #', 'label': 18}
  assert len(set(entry.encoder.labels)) == 19


def test_litbank_reads_archives_folders_and_neighbouring_triggers(read):
  text = 'Smoke\tEVENT\nlowering\tEVENT\ndown\tO\n\nNo\tO\n'
  packed = io.BytesIO()
  with tarfile.open(fileobj=packed, mode='w:gz') as archive:
    member = tarfile.TarInfo('tsv/a.tsv')
    member.size = len(text)
    archive.addfile(member, io.BytesIO(text.encode()))
  expected = ['[ Smoke | event ] [ lowering | event ] down', 'No']
  assert [e['targets'] for e in read('litbank_events', 'train', {'events-train.tar.gz': packed.getvalue()})] == expected
  assert [e['targets'] for e in read('litbank_events', 'test', {'test/b.tsv': text})] == expected


def test_casie_cuts_documents_into_sentences_and_keeps_the_longer_trigger(read):
  examples = read('casie', 'train', {'train.jsonl': json.dumps(CASIE)})
  assert [example['targets'] for example in examples] == [
    'Hackers [ stole | databreach ] data .',
    'They [ asked for a ransom | ransom ] , [ the ransom | ransom ] .',
    'All paid .',
  ]
  moved = json.loads(json.dumps(CASIE).replace('Hackers', 'A Hackers'))
  with pytest.raises(errors.UsageError, match='line 1 has an event that its text has not'):
    read('casie', 'train', {'train.jsonl': json.dumps(moved)})


def test_intents_are_read(read):
  text = 'text,category\n"Is it, ""lost""?\nReally?",card_arrival\nWhy?,country_support\n'
  assert read('banking77', 'train', {'train.csv': text})[0] == {
    'inputs': 'banking77 text: Is it, "lost"?\nReally?',
    'targets': 'card_arrival',
  }
  full = gzip.compress(json.dumps({'val': [['hi', 'greeting']], 'oos_val': [['qua', 'oos']]}).encode())
  assert read('clinc150', 'validation', {'data_full.json.gz': full})[0]['targets'] == 'greeting'
  assert read('clinc150', 'validation_oos', {})[0]['targets'] == 'oos'
  with pytest.raises(errors.UsageError, match='line 2: unknown category'):
    read('banking77', 'test', {'test.csv': 'text,category\nWhy?,card_arival\n'})


def test_an_intent_is_read_with_its_slots(read):
  files = {'valid/seq.in': 'play abba now\n', 'valid/seq.out': 'O B-artist B-timeRange\n', 'valid/label': 'PlayMusic\n'}
  assert read('snips', 'validation', files) == [
    {'inputs': 'snips : play abba now', 'targets': '(( play music )) play [ abba | artist ] [ now | time range ]'}
  ]
  assert read('snips_intent', 'validation', {}) == [
    {'inputs': 'snips_intent text: play abba now', 'targets': 'PlayMusic'}
  ]
  assert intents.parsed_intent_and_slots('play abba') == {'intent': '', 'words': ['play', 'abba'], 'tags': ['O', 'O']}
  with pytest.raises(errors.UsageError, match='line 1 has 1 tags for 3 words'):
    read(
      'snips',
      'train',
      {name.replace('valid', 'train'): text for name, text in (files | {'valid/seq.out': 'O\n'}).items()},
    )


@pytest.mark.parametrize('name', ['sgd', 'multiwoz'])
def test_a_dialogue_gives_the_state_after_every_turn_of_the_user(read, name):
  examples = read(
    name, 'train', {'train/dialogues_001.json': json.dumps([DIALOGUE]), 'schema.json': json.dumps(SCHEMA)}
  )
  assert examples == [
    {'inputs': f'{name} : [User]: A room in Rome', 'targets': '[belief] hotels 1 city Rome [belief]'},
    {
      'inputs': f'{name} : [User]: A room in Rome [Agent]: Sure? [User]: For 2, cheap',
      'targets': '[belief] hotel price range cheap , hotels 1 city Rome [belief]',
    },
  ]


def test_states_that_the_schema_has_not_are_told(read):
  files = {'train/dialogues_001.json': json.dumps([DIALOGUE]), 'train/schema.json': json.dumps(SCHEMA[:1])}
  with pytest.raises(errors.UsageError, match=r"dialogues_001.json, dialogue 0: unknown service 'hotel'"):
    read('sgd', 'train', files)


def test_long_dialogues_lose_their_beginning():
  turns = [{'speaker': 'USER', 'utterance': str(i)} for i in range(9)]
  example = dialogue.belief({'turns': turns, 'state': {}}, name='sgd', history_words=3)
  assert example == {'inputs': 'sgd : 7 [User]: 8', 'targets': '[belief] [belief]'}
  assert dialogue.slots_of('[belief] [belief]') == dialogue.slots_of('nothing') == frozenset()
  assert dialogue.slots_of('[belief] a b San Jose, CA , c d e') == {'a b San Jose, CA', 'c d e'}


def test_triples_are_asked_for_both_ends_and_known_answers_are_told(read):
  files = {
    'train.txt': 'm1\t/r\tm2\n',
    'valid.txt': 'm1\t/r\tm3\n',
    'entity2text.txt': 'm1\tRome\nm2\tItaly\nm3\tItaly\n',
    'relation2text.txt': '/r\tlies in\n',
  }
  assert read('fb15k237', 'train', files) == [
    {'inputs': 'predict tail: Rome | lies in |', 'targets': 'Italy m2'},
    {'inputs': 'predict head: Italy m2 | lies in |', 'targets': 'Rome'},
  ]
  entry = originals.original('fb15k237', str(read.folder))
  assert entry.reference(entry.source.random_access('train')[0]) == {
    'answer': 'Italy m2',
    'known': ['Italy m2', 'Italy m3'],
  }
  with pytest.raises(errors.UsageError, match='line 1 has 2 columns'):
    read('wn18rr', 'test', {'test.txt': 'a\tb\n'})


def test_stories_are_read_as_tfds_reads_them(read):
  story = '(CNN) A line\n\nIt "ends."\n\n@highlight\n\nFirst thing\n\n@highlight\n\nSecond!\n'
  address = 'http://a/b.html'
  known = hashlib.sha1(address.encode()).hexdigest()
  files = {
    f'cnn/stories/{known}.story': story,
    'dailymail/stories/other.story': story,
    'all_val.txt': f'{address}\n',
  }
  expected = {'inputs': 'summarize: (CNN) A line. It "ends."', 'targets': 'First thing.\nSecond!'}
  assert read('cnn_dailymail', 'validation', files) == [expected]
  assert read('cnn_dailymail', 'train', {}) == [expected] * 2
  with pytest.raises(errors.UsageError, match=r'has no all_test.txt'):
    read('cnn_dailymail', 'test', {})


def test_other_summaries_are_read(read):
  rows = {'document': 'A b.', 'summary': 'A.', 'id': 1}, {'document': ' ', 'summary': 'left out'}
  text = '\n'.join(map(json.dumps, rows))
  assert read('xsum', 'train', {'train.json': text}) == [{'inputs': 'summarize: A b.', 'targets': 'A.'}]
  row = {'dialogue': '#Person1#: Hi.', 'summary1': 'They meet.', 'summary2': 'x'}
  assert read('dialogsum', 'test', {'dialogsum.test.jsonl': json.dumps(row)})[0]['targets'] == 'They meet.'
  row = {'source': ['We do.', 'It works.'], 'target': ['We do it.', 'It does.']}
  assert read('scitldr', 'validation', {'dev.jsonl': json.dumps(row)}) == [
    {'inputs': 'summarize: We do. It works.', 'targets': 'We do it.'}
  ]
  assert task.get('scitldr').reference(row) == ['We do it.', 'It does.']
  with pytest.raises(errors.UsageError, match="line 1 has a str as 'source', expected list"):
    read('scitldr', 'test', {'test.jsonl': json.dumps(row | {'source': 'We do.'})})


def test_parallel_files_are_translated_in_every_direction(read):
  files = {'val.en': 'A dog\n\n', 'val.de': 'Ein Hund\nleer\n', 'val.fr': 'Un chien\nvide\n'}
  assert read('multi30k_defr', 'validation', files)[0] == {
    'inputs': 'translate German to French: Ein Hund',
    'targets': 'Un chien',
  }
  examples = read('multi30k', 'validation', {})
  assert {'inputs': '<2de> Un chien', 'targets': 'Ein Hund'} in examples
  assert len(examples) == 6 + 2  # the second line is empty in English
  with pytest.raises(errors.UsageError, match=r'train\.en 2, train\.de 1, train\.fr 1 lines'):
    read('multi30k', 'train', {'train.en': 'a\nb\n', 'train.de': 'c\n', 'train.fr': 'd\n'})


def test_your_own_parallel_files_have_the_pairs_that_are_asked_for(tmp_path):
  for name, text in {'train.en': 'A dog\n', 'train.cs': 'Pes\n', 'train.xx': 'a\nb\n'}.items():
    (tmp_path / name).write_text(text)
  entry = translation.parallel_text(str(tmp_path), pairs=(('en', 'cs'), ('cs', 'en')), name='mine')
  (record,) = entry.source.random_access('train')
  assert entry.name == 'mine' and entry.examples(record) == (
    {'inputs': '<2cs> A dog', 'targets': 'Pes'},
    {'inputs': '<2en> Pes', 'targets': 'A dog'},
  )
  with pytest.raises(errors.UsageError, match=r'has no val\.en or valid\.en'):
    entry.num_examples('validation')
  with pytest.raises(errors.UsageError, match=r'train\.en 1, train\.xx 2 lines'):
    translation.parallel_text(str(tmp_path), pairs=(('en', 'xx'),)).num_examples('train')
  with pytest.raises(errors.UsageError, match=r"parallel_text\.pairs: got \('en', 'de'\), expected pairs"):
    translation.parallel_text(str(tmp_path), pairs=('en', 'de'))


@pytest.mark.parametrize('name', ['wnut17', 'semeval2010_task8', 'sgd', 'fb15k237', 'multi30k', 'snips', 'casie'])
def test_without_their_files_tasks_say_what_to_do(name):
  entry = task.get(name)
  with pytest.raises(errors.UsageError, match=f"TFDS does not have this set: .*original.name = '{name}'"):
    entry.num_examples('train')
