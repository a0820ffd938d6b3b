"""The packaged gin files of BERT, RoBERTa, GPT-2 and 3, XLNet, mT5 and FLAN-T5: published sizes, published training."""

from __future__ import annotations

import re
from typing import Any

import jax
import pytest

from t5x_lite import families
from t5x_lite.cli import calls, command, environment, ginfiles
from t5x_lite.core import batch as batch_lib
from t5x_lite.core import tree
from t5x_lite.data import dataset_checks, dataset_config, features

FOLDER = ginfiles.packaged_folder()
RUNS = sorted(path.name for path in FOLDER.glob('*.gin') if not path.name.startswith('t5_'))
SIZES = sorted(
  path.relative_to(FOLDER).as_posix()
  for path in (FOLDER / 'models').glob('*.gin')
  if re.match(r'(bert|roberta|gpt2|gpt3|xlnet)(_|\.)', path.name)
  and path.name not in ('bert.gin', 'roberta.gin', 'gpt3.gin', 'xlnet.gin')
)

# Width, MLP width, heads, head size, layers; and parameters as counted in the published checkpoints: BERT's with both
# heads and the pooler, RoBERTa's and XLNet's with the language model head.
PUBLISHED = {
  'bert_base': (768, 3072, 12, 64, 12, 110_106_428),
  'bert_large': (1024, 4096, 16, 64, 24, 336_226_108),
  'roberta_base': (768, 3072, 12, 64, 12, 124_697_433),
  'roberta_large': (1024, 4096, 16, 64, 24, 355_412_057),
  'xlnet_base': (768, 3072, 12, 64, 12, 116_750_336),
  'xlnet_large': (1024, 4096, 16, 64, 24, 360_300_800),
  'gpt2': (768, 3072, 12, 64, 12, 124_439_808),
  'gpt2_medium': (1024, 4096, 16, 64, 24, 354_823_168),
  'gpt2_large': (1280, 5120, 20, 64, 36, 774_030_080),
  'gpt2_xl': (1600, 6400, 25, 64, 48, 1_557_611_200),
}
# Brown et al. 2020, table 2.1: layers, width, heads, head size, learning rate, tokens of a batch. For 13B the paper
# has a width of 5140, which does not divide over its heads.
GPT3 = {
  '125m': (12, 768, 12, 64, 6e-4, 0.5e6),
  '350m': (24, 1024, 16, 64, 3e-4, 0.5e6),
  '760m': (24, 1536, 16, 96, 2.5e-4, 0.5e6),
  '1_3b': (24, 2048, 24, 128, 2e-4, 1e6),
  '2_7b': (32, 2560, 32, 80, 1.6e-4, 1e6),
  '6_7b': (32, 4096, 32, 128, 1.2e-4, 2e6),
  '13b': (40, 5120, 40, 128, 1e-4, 2e6),
  '175b': (96, 12288, 96, 128, 6e-5, 3.2e6),
}
# mT5 (Xue et al. 2021) and FLAN-T5 (Chung et al. 2022): parameters as counted in the published checkpoints.
T5_RELATIVES = {
  'mt5_small': 300_176_768,
  'mt5_base': 582_401_280,
  'mt5_large': 1_229_581_312,
  'mt5_xl': 3_742_619_648,
  'mt5_xxl': 12_921_057_280,
  'flan_t5_small': 76_961_152,
  'flan_t5_base': 247_577_856,
  'flan_t5_large': 783_150_080,
  'flan_t5_xl': 2_849_757_184,
  'flan_t5_xxl': 11_135_332_352,
}


@pytest.fixture
def configure(tmp_path, monkeypatch):
  """Reads and checks a configuration as `train` does, and builds nothing: `configure('bert_tiny.gin')`."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(environment, 'prepare', lambda values: None)
  monkeypatch.setattr(environment, 'start', lambda values, joins: None)

  def configure(*arguments: str) -> Any:
    sessions: list[command.Session] = []
    words = [word if word.startswith('--') else f'--gin_file={word}' for word in arguments]
    given = ('config', 'dry_run')
    assert command.run(['prog', *words], 'runs.train.train', usage='', work=sessions.append, given=given) == 0
    return sessions[0]

  return configure


def build(session: command.Session, name: str) -> Any:
  """The object of the class or function called `name`, made as the run would make it."""
  call = next(call for call in calls.walk(session._call) if call.target.endswith(f'.{name}'))
  return calls.build(call, session._configuration.names.load)


def built(session: command.Session) -> tuple[Any, dataset_config.DatasetConfig]:
  """The model and the training data of a run; no vocabulary is trained for it."""
  load = session._configuration.names.load

  def without_vocabulary(full_name: str) -> Any:
    return (lambda **arguments: None) if full_name.endswith('.embedded_vocabulary') else load(full_name)

  dataset = calls.build(session._call.arguments['dataset'], without_vocabulary)
  learner = session._call.arguments['learner']
  return calls.build(learner.arguments['module'], without_vocabulary), dataset


def count(module: Any, spec: dict[str, jax.ShapeDtypeStruct]) -> int:
  """Parameters of a module, none of them allocated."""
  small = {name: jax.ShapeDtypeStruct((1, 2), leaf.dtype) for name, leaf in spec.items()}
  shapes = jax.eval_shape(module.init, {'params': jax.random.key(0)}, batch_lib.zeros(small))
  return tree.count_parameters(shapes['params'])


def spec_of(dataset: dataset_config.DatasetConfig) -> dict[str, jax.ShapeDtypeStruct]:
  return features.batch_spec(dataset.features, dataset.task_feature_lengths, dataset.batch_size)


@pytest.mark.parametrize('name', RUNS)
def test_the_parts_of_a_run_go_together(configure, name):
  module, dataset = built(configure(name))
  dataset_checks.check_values(dataset)
  families.check(module, dataset.features)
  assert module.flops_per_step(spec_of(dataset)) > 0
  config = module.config
  if hasattr(config, 'max_length'):  # a table of positions has a row for each
    (length,) = dataset.features.side_lengths(dataset.task_feature_lengths).values()
    assert length + getattr(config, 'first_position', 0) <= config.max_length


@pytest.mark.parametrize('name', PUBLISHED)
def test_sizes_are_the_published_ones(configure, name):
  module, dataset = built(configure(f'{name}.gin'))
  config = module.config
  got = (config.emb_dim, config.mlp_dim, config.num_heads, config.head_dim, config.num_layers)
  assert got == PUBLISHED[name][:-1]
  assert config.dropout_rate == 0.1
  assert count(module, spec_of(dataset)) == PUBLISHED[name][-1]


@pytest.mark.parametrize('name', GPT3)
def test_gpt3_is_that_of_its_paper(configure, name):
  layers, width, heads, head_dim, rate, batch_tokens = GPT3[name]
  session = configure(f'gpt3_{name}.gin')
  module, dataset = built(session)
  config = module.config
  got = (config.num_layers, config.emb_dim, config.num_heads, config.head_dim, config.mlp_dim)
  assert got == (layers, width, heads, head_dim, 4 * width)
  assert config.windows == (None, config.attention_window) * (layers // 2)
  joined = heads * head_dim
  layer = 3 * (width + 1) * joined + joined * width + width + 2 * 4 * width**2 + 5 * width + 4 * width
  assert count(module, spec_of(dataset)) == (50257 + 2048) * width + layers * layer + 2 * width
  tokens = dataset.batch_size * 2048
  assert tokens == pytest.approx(batch_tokens, rel=0.05) and dataset.task_feature_lengths == {'targets': 2048}
  values = session.record.values
  assert int(values['LoopConfig.total_steps']) * tokens == pytest.approx(300e9, rel=1e-4)
  schedule = build(session, 'linear_warmup_cosine_decay')
  warm_up, decay = round(375e6 / tokens), round(260e9 / tokens)
  assert float(schedule(warm_up)) == pytest.approx(rate, rel=1e-3)
  assert float(schedule(warm_up // 2)) == pytest.approx(rate / 2, rel=0.02)
  assert float(schedule(decay)) == float(schedule(decay + 1000)) == pytest.approx(rate / 10, rel=1e-3)


@pytest.mark.parametrize('name', T5_RELATIVES)
def test_relatives_of_t5_have_the_published_parameters(configure, name):
  module, dataset = built(configure(f'{name}.gin'))
  assert count(module, spec_of(dataset)) == T5_RELATIVES[name]
  if name.startswith('flan'):
    assert dataset.mixture_or_task_name == 'embedded_mixture' and module.config.dropout_rate == 0.05
  else:
    assert dataset.batch_size == 1024 and dict(dataset.task_feature_lengths) == {'inputs': 1024, 'targets': 229}


def test_every_published_size_has_both_files():
  names = [*PUBLISHED, *(f'gpt3_{name}' for name in GPT3), *T5_RELATIVES]
  names += [f'{family}_tiny' for family in ('bert', 'roberta', 'gpt2', 'xlnet')]
  assert {f'{name}.gin' for name in names} == set(RUNS)
  assert all((FOLDER / 'models' / f'{name}.gin').is_file() for name in names)


@pytest.mark.parametrize('name', SIZES)
def test_a_size_file_has_nothing_but_sizes(name):
  text = (FOLDER / name).read_text()
  bound = {statement.parameter for statement in ginfiles._parse(text, name) if isinstance(statement, ginfiles.Binding)}
  sizes = {'emb_dim', 'mlp_dim', 'num_heads', 'head_dim', 'num_layers'}
  assert bound <= sizes | (
    {'VOCAB_SIZE', 'SCAN_LAYERS', 'initializer_range', 'first_position'} if 'tiny' in name else set()
  )


# The first steps of the schedule, and arguments of the optimiser, with where they were published.
TRAINING = {
  # Devlin et al. 2019, appendix A.2.
  'bert_base.gin': (
    256,
    1_000_000,
    10_000,
    1e-4,
    {'b2': 0.999, 'eps': 1e-6, 'weight_decay': 0.01, 'max_grad_norm': 1.0},
  ),
  # Liu et al. 2019, table 9.
  'roberta_base.gin': (
    8192,
    500_000,
    24_000,
    6e-4,
    {'b2': 0.98, 'eps': 1e-6, 'weight_decay': 0.01, 'max_grad_norm': None},
  ),
  'roberta_large.gin': (8192, 500_000, 30_000, 4e-4, {'b2': 0.98, 'max_grad_norm': None}),
  # Yang et al. 2019, appendix A.4.1.
  'xlnet_large.gin': (8192, 500_000, 40_000, 4e-4, {'eps': 1e-6, 'weight_decay': 0.01}),
}


@pytest.mark.parametrize('name', TRAINING)
def test_training_is_the_published_one(configure, name):
  batch_size, steps, warm_up, rate, optimizer = TRAINING[name]
  session = configure(name)
  _, dataset = built(session)
  schedule = build(session, 'linear_warmup_linear_decay')
  assert dataset.batch_size == batch_size and session.record.values['LoopConfig.total_steps'] == str(steps)
  assert float(schedule(warm_up)) == pytest.approx(rate) and float(schedule(warm_up // 2)) == pytest.approx(rate / 2)
  assert float(schedule((steps + warm_up) // 2)) == pytest.approx(rate / 2) and float(schedule(steps)) == 0.0
  call = next(call for call in calls.walk(session._call) if call.target.endswith('.adamw'))
  assert {key: call.arguments[key] for key in optimizer} == optimizer
  assert session.record.values['Learner.z_loss'] == '0.0'
  assert session.record.values['Learner.loss_normalizing_factor'] == "'NUM_REAL_TARGET_TOKENS'"


def test_prefix_lm_is_an_objective_for_gpt_and_t5(configure):
  module, dataset = built(configure('gpt2_tiny.gin', 'objectives/prefix_lm.gin'))
  families.check(module, dataset.features)
  assert dataset.features.bidirectional_prefix and 'decoder_prefix' in spec_of(dataset)
  lengths = "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 512}"
  _, dataset = built(configure('t5_tiny.gin', 'objectives/prefix_lm.gin', lengths))
  dataset_checks.check_values(dataset)


def test_other_pairs_are_refused(configure):
  for run, objective, expected in (
    ('gpt2_tiny', 'masked_lm', 'MaskedLM goes with EncoderOnlyFeatures'),
    ('bert_tiny', 'causal_lm', 'expected MaskedLM'),
    ('t5_tiny', 'permutation_lm', 'PermutationLM goes with PermutationFeatures'),
    ('xlnet_tiny', 'span_corruption', 'expected PermutationLM'),
  ):
    _, dataset = built(configure(f'{run}.gin', f'objectives/{objective}.gin'))
    with pytest.raises(ValueError, match=expected):
      dataset_checks.check_values(dataset)
