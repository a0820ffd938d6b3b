"""Records ids of transformers for difficult texts: tiny vocabularies, made here, or published ones that you have.

    pip install transformers sentencepiece protobuf
    python record_tokenizers.py ../../tests/golden/tokenizers
    python record_tokenizers.py ../../tests/golden/tokenizers --published FOLDER

The first writes a directory for each family, in the form in which Hugging Face publishes it, with `expected.json.gz`
beside the files. The second reads FOLDER/NAME for each NAME of PUBLISHED, and writes `published.json.gz`: ids alone.

XLNet and ALBERT are read by transformers from a `tokenizer.json` such as their published directories have, since what
transformers 5 makes of a bare `spiece.model` begins a new word behind every full stop.
"""

# ruff: noqa: RUF001
from __future__ import annotations

import argparse
import gzip
import io
import itertools
import json
import pathlib
import random
import shutil
import tempfile
import types
import unicodedata

import sentencepiece
import tokenizers
import transformers
from transformers.convert_slow_tokenizer import AlbertConverter, XLNetConverter

# Vocabularies and tests alike draw on these.
DIFFICULT = [
  '', ' ', '   ', '\n\n', ' \t\r\n ', 'Hello world', ' leading', 'trailing ', 'a  b   c', 'tab\tnew\nline\r\nend',
  'São João à côté', 'e\u0301te\u0301 n\u0303 A\u030a', 'a\u0300\u0301\u0302b', '\u0301\u0302 x\u0338', '\u02da\u0353z',
  '日本語のテキスト', 'か\u3099き\u3099 \uff76\uff9e', '中文 mixed 漢字text', '한국어',
  '\u1112\u1161\u11ab\u1100\u1173\u11af',
  '👩\u200d👩\u200d👧 family', '👍🏽 ok 🇩🇪', '\u200d\ufe0f', 'nul\x00ctl\x01\x07\x1b[0m\x7f\x85end', '\x1c\x1d\x1e\x1f',
  'v\x0bt\u205f\u034e',
  'nbsp\u00a0x\u2003y\u3000z\u200bw\u2028l\u2029p\ufeffb\u00ad-', '\u061c\u2066x\u2069', '\ufffd\ue000', '\u200f\u0345',
  '12,345.67', '3,000 9, 10,', "``quoted'' text", '…—–“”‘’', "don't I'll we're", '1e-5 -3 +4', 'a.b,c;d:e!f?g',
  'x' * 101, 'ab' * 60, '日' * 60, 'antidisestablishmentarianism' * 4, 'A' * 99 + ' ' + 'B' * 100 + ' ' + 'C' * 101,
  '[CLS] a [SEP] b [MASK] [PAD] [UNK]', '<s> a </s> b <mask> <pad> <unk>', '<sep>a<cls>b <eop> <eod>', '[MASK].',
  '[mask]',
  '<|endoftext|>x<|endoftext|> y', '<extra_id_0> a <extra_id_1>b<extra_id_99>', 'a<extra_id_0>c', 'a <mask>, b<mask>c',
  'ﬁ ligature Ⅳ ① ２００ ½', 'İstanbul ıI ß ẞ', 'Ωμέγα ΣΑΣ', 'Привет, мир', 'שלום', 'مرحبا', 'नमस्ते दुनिया', 'ไทย \u0e33',
  'C++ & <html> @user #tag http://x.y/z?q=1', '\\n \\t', '\u2581 under\u2581score', '##ing ##', 'Ġhello',
  '𝔘𝔫𝔦 \U0002f800',
]  # fmt: skip
PAIRS = [
  ('a b c d e', 'f g h i j k'), ('a b c d e f g h i', 'j'), ('a', 'b c d e f g h'), ('a b c', 'd e f'), ('', 'a'),
  ('', ''),
]  # fmt: skip
LIMITS = [None, 5, 6, 7, 8, 12]
PUBLISHED = {
  'bert-base-cased': 'bert', 'bert-base-uncased': 'bert', 'gpt2': 'gpt2', 'roberta-base': 'roberta',
  'xlnet-base-cased': 'xlnet', 'albert-base': 'albert', 't5-ptt5-32k': 't5', 't5-legal-fr-en-32k': 't5',
}  # fmt: skip
CLASSES = {
  't5': 'T5Tokenizer', 'xlnet': 'XLNetTokenizer', 'albert': 'AlbertTokenizer', 'xlm-roberta': 'XLMRobertaTokenizer',
  'bert': 'BertTokenizer', 'roberta': 'RobertaTokenizer', 'gpt2': 'GPT2Tokenizer',
}  # fmt: skip
CORPUS = [text for text in DIFFICULT if text.strip() and '\x00' not in text and len(text) < 60] + [
  'The end of a sequence has an id of its own.', 'It was the best of times, it was the worst of times.',
  'In 1,024 words or 3,000: he said hello to the world, and the world said nothing.', 'the of and to in is it that was',
] * 3  # fmt: skip


def normalisation_rules(path: pathlib.Path) -> None:
  """NFKC for the characters of the texts and all that compose to Latin letters; control characters vanish."""
  letters = [chr(c) for c in range(0xA0, 0x180)] + list(dict.fromkeys(''.join(DIFFICULT)))
  rules = {}
  for letter in letters:
    for source in (letter, unicodedata.normalize('NFD', letter)):
      target = unicodedata.normalize('NFKC', letter)
      if source != target:
        rules[source] = target
  rules |= dict.fromkeys('\t\n\r\u00a0\u2003\u3000\u200b\u2028\u2029\u2581', ' ')
  rules |= {chr(c): '' for c in [*range(1, 9), *range(14, 32), 0x7F, 0xAD, 0xFEFF]}
  lines = (f'{_hex(source)}\t{_hex(target)}' for source, target in rules.items())
  path.write_text('\n'.join(lines) + '\n')


def _hex(text: str) -> str:
  return ' '.join(f'{ord(c):X}' for c in text)


def sentencepiece_model(path: pathlib.Path, rules: pathlib.Path, **options) -> None:
  """Trains a tiny unigram model."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(CORPUS),
    model_writer=model,
    model_type='unigram',
    vocab_size=300,
    hard_vocab_limit=False,
    character_coverage=0.98,
    normalization_rule_tsv=str(rules),
    num_threads=1,
    minloglevel=2,
    **options,
  )
  path.write_bytes(model.getvalue())


def make_sentencepiece(family: str, folder: pathlib.Path) -> None:
  """`spiece.model` in the layout of a family."""
  own = {
    't5': {'pad_id': 0, 'eos_id': 1, 'unk_id': 2, 'bos_id': -1},
    'xlnet': {
      'unk_id': 0, 'bos_id': 1, 'eos_id': 2, 'control_symbols': ['<cls>', '<sep>', '<pad>', '<mask>', '<eod>'],
      'user_defined_symbols': ['<eop>', '.', '(', ')', '–'],
    },
    'albert': {
      'pad_id': 0, 'unk_id': 1, 'bos_id': -1, 'eos_id': -1, 'control_symbols': ['[CLS]', '[SEP]', '[MASK]'],
      'user_defined_symbols': ['(', ')', '-', '.', '–'],
    },
    'xlm-roberta': {'unk_id': 0, 'bos_id': 1, 'eos_id': 2},
  }  # fmt: skip
  rules = folder / 'rules.tsv'
  normalisation_rules(rules)
  name = 'sentencepiece.bpe.model' if family == 'xlm-roberta' else 'spiece.model'
  sentencepiece_model(folder / name, rules, **own[family])
  rules.unlink()


def make_wordpiece(folder: pathlib.Path) -> None:
  """`vocab.txt` of BERT."""
  trainer = tokenizers.BertWordPieceTokenizer(lowercase=True)
  trainer.train_from_iterator(CORPUS, vocab_size=300, min_frequency=1, show_progress=False)
  trainer.save_model(str(folder))


def make_byte_level(family: str, folder: pathlib.Path) -> None:
  """`vocab.json` and `merges.txt` of GPT-2 or RoBERTa."""
  special = ['<|endoftext|>'] if family == 'gpt2' else ['<s>', '<pad>', '</s>', '<unk>', '<mask>']
  trainer = tokenizers.ByteLevelBPETokenizer()
  trainer.train_from_iterator(CORPUS, vocab_size=360, min_frequency=2, show_progress=False, special_tokens=special)
  trainer.save_model(str(folder))


def published_json(family: str, model: pathlib.Path, do_lower_case: bool) -> tokenizers.Tokenizer:
  """The `tokenizer.json` of XLNet or ALBERT, as their published directories have it."""
  processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
  slow = types.SimpleNamespace(
    vocab_file=str(model),
    keep_accents=False,
    do_lower_case=do_lower_case,
    convert_tokens_to_ids=processor.piece_to_id,
    bos_token='<s>',
    eos_token='</s>',
    unk_token='<unk>',
  )
  converter = {'xlnet': XLNetConverter, 'albert': AlbertConverter}[family]
  made = json.loads(converter(slow).converted().to_str())
  made['added_tokens'] = []
  return tokenizers.Tokenizer.from_str(json.dumps(made))


def open_reference(family: str, folder: pathlib.Path) -> transformers.PreTrainedTokenizerBase:
  """The directory as transformers reads it."""
  with tempfile.TemporaryDirectory() as temporary:
    copy = pathlib.Path(temporary)
    names = {'encoder.json': 'vocab.json', 'vocab.bpe': 'merges.txt'}
    for file in folder.iterdir():
      shutil.copyfile(file, copy / names.get(file.name, file.name))
    if family in ('xlnet', 'albert'):
      published_json(family, copy / 'spiece.model', family == 'albert').save(str(copy / 'tokenizer.json'))
    config = copy / 'tokenizer_config.json'
    if not config.exists():
      config.write_text(json.dumps(config_of(family, folder.name)))
    tokenizer = transformers.AutoTokenizer.from_pretrained(copy)
  if family == 'roberta':
    tokenizer.add_tokens([tokenizers.AddedToken('<mask>', lstrip=True, special=True)], special_tokens=True)
  assert type(tokenizer).__name__ == CLASSES[family], type(tokenizer)
  return tokenizer


def config_of(family: str, name: str) -> dict:
  """`tokenizer_config.json` of a published directory."""
  config = {'tokenizer_class': CLASSES[family]}
  if family != 'xlnet':
    config['model_max_length'] = 1024 if family == 'gpt2' else 512
  return config | ({'do_lower_case': 'uncased' in name} if name.startswith('bert-base') else {})


def record(tokenizer: transformers.PreTrainedTokenizerBase, texts: list[str], limits=LIMITS) -> dict:
  """Ids of texts, frames of pairs cut to each limit, and the special ids."""
  framed = []
  for (first, second), limit in itertools.product([*PAIRS, ('a b c d e f g h', None)], limits):
    cut = {} if limit is None else {'truncation': 'longest_first', 'max_length': limit}
    # In lists: alone, an empty second text counts as none.
    made = tokenizer([first], None if second is None else [second], return_token_type_ids=True, **cut)
    framed.append([first, second, limit, made['input_ids'][0], made['token_type_ids'][0]])
  roles = ('bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask')
  limit = tokenizer.model_max_length
  return {
    'transformers_version': transformers.__version__,
    'ids': tokenizer(texts, add_special_tokens=False)['input_ids'],
    'framed': framed,
    'roles': {role: i for role in roles if (i := getattr(tokenizer, f'{role}_token_id')) is not None},
    'vocab_size': len(tokenizer),
    'padding_side': tokenizer.padding_side,
    'model_max_length': limit if limit < 10**9 else None,
  }


def random_texts(count: int) -> list[str]:
  """Characters that meet nowhere else, spaces and combining ones many times."""
  generator = random.Random(0)
  blocks = [(0x20, 0x500), (0x900, 0x980), (0x1100, 0x1200), (0x2000, 0x2100), (0x3000, 0x3100), (0x1F3F0, 0x1F610)]
  letters = [chr(c) for start, end in blocks for c in range(start, end)] + [' ', '\u0301', '\u0308', '\u200d'] * 60
  return [''.join(generator.choices(letters, k=generator.randint(2, 12))) for _ in range(count)]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('target', type=pathlib.Path)
  parser.add_argument('--published', type=pathlib.Path)
  arguments = parser.parse_args()
  transformers.logging.set_verbosity_error()
  arguments.target.mkdir(parents=True, exist_ok=True)
  texts = DIFFICULT + random_texts(40)
  write(arguments.target / 'texts.json', texts)
  if arguments.published:
    found = {
      name: record(open_reference(family, arguments.published / name), texts, (None, 8))
      for name, family in PUBLISHED.items()
    }
    write(arguments.target / 'published.json.gz', found)
    return
  for family in CLASSES:
    folder = arguments.target / family
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if family in ('gpt2', 'roberta'):
      make_byte_level(family, folder)
    elif family == 'bert':
      make_wordpiece(folder)
    else:
      make_sentencepiece(family, folder)
    write(folder / 'tokenizer_config.json', config_of(family, family))
    write(folder / 'expected.json.gz', record(open_reference(family, folder), texts))


def write(path: pathlib.Path, content) -> None:
  text = json.dumps(content, separators=(',', ':')) + '\n'
  path.write_bytes(gzip.compress(text.encode(), mtime=0) if path.suffix == '.gz' else text.encode())


if __name__ == '__main__':
  main()
