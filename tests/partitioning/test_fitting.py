"""A mesh that does not divide a model is refused, by the name of what it does not divide, with meshes that would."""

import re

import jax
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.core import axes
from t5x_lite.core.errors import UsageError
from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.partitioning import fitting
from t5x_lite.partitioning.mesh import MESH_AXES, MeshShape, make_mesh
from t5x_lite.partitioning.rules import STANDARD_RULES
from t5x_lite.training import optimizers
from t5x_lite.training.learner import Learner
from t5x_lite.training.steps import Trainer

SIZES = {'vocab_size': 48, 'emb_dim': 16, 'num_heads': 8, 'head_dim': 4, 'mlp_dim': 32, 'num_layers': 1}
LLAMA = {'positions': 'rotary', 'use_bias': False}


def spec(side, rows, length):
  names = {'input_tokens': np.int32, 'target_tokens': np.int32, 'segment_ids': np.int32, 'positions': np.int32}
  names['loss_weights'] = np.float32
  return {f'{side}_{name}': jax.ShapeDtypeStruct((rows, length), dtype) for name, dtype in names.items()}


def gpt(shape, *, rows=16, length=8, num_microbatches=1, **changes):
  module = Gpt(GptConfig(**(SIZES | LLAMA | changes)))
  learner = Learner(module, optimizers.sgd(0.1), 0.1, num_microbatches=num_microbatches)
  return Trainer(learner, make_mesh(shape), spec('decoder', rows, length))


def refused(shape, **changes):
  """The one line of the refusal, and the meshes that it offers, as shapes."""
  with pytest.raises(UsageError) as error:
    gpt(shape, **changes)
  message = str(error.value)
  assert '\n' not in message
  _, _, told = message.rpartition('that fit: ')
  offered = [dict(re.findall(r'(\w+)=(\d+)', each)) for each in told.split(', ')]
  return message, [MeshShape(**({'data': 1} | {name: int(size) for name, size in each.items()})) for each in offered]


@pytest.mark.parametrize(
  ('shape', 'changes', 'words'),
  [
    (MeshShape(data=1, tensor=8), {'num_heads': 4, 'head_dim': 8}, ['keys_values', '(heads) of 4', 'tensor=8']),
    (MeshShape(data=2, tensor=4), {'num_kv_heads': 2}, ['keys_values', '(heads) of 2', 'tensor=4']),
    (MeshShape(data=2, tensor=4), {'mlp_dim': 34}, ['mlp/wi/kernel', '(mlp) of 34', 'tensor=4']),
    (
      MeshShape(data=2, tensor=4),
      {'vocab_size': 50},
      ['tokens/embedding', '(vocab) of 50', 'tensor=4', 'vocab_size of 52 or 128,'],
    ),
    (MeshShape(data=1, fsdp=8), {'emb_dim': 20}, ['(embed) of 20', 'fsdp=8']),
    (MeshShape(data=1, expert=8), {'num_experts': 4}, ['(expert) of 4', 'expert=8']),
    (MeshShape(data=1, tensor=2, expert=4), {}, ['the mesh has expert=4', 'no experts: expected expert=1']),
    (MeshShape(data=1, fsdp=2, sequence=4), {'length': 10}, ['(length) of 10', 'sequence=4']),
    (MeshShape(data=4, fsdp=2), {'rows': 12}, ['batch of 12 rows', 'data=4 * fsdp=2: 8 or 16']),
    (MeshShape(data=8), {'num_microbatches': 4}, ['batch of 16 rows', '4 microbatches on data=8: 32']),
  ],
  ids=['heads', 'kv heads', 'mlp', 'vocabulary', 'embed', 'experts', 'no experts', 'length', 'rows', 'microbatches'],
)
def test_what_does_not_divide_is_named_and_what_is_offered_fits(shape, changes, words):
  message, offered = refused(shape, **changes)
  for word in (*words, 'meshes of 8 devices that fit: '):
    assert word in message
  assert offered
  for other in offered:
    gpt(other, **changes)


def test_microbatches_that_no_mesh_would_help_offer_none():
  with pytest.raises(
    UsageError, match=r'batch of 16 rows does not divide over 3 microbatches on data=8: 24 would fit$'
  ):
    gpt(MeshShape(), num_microbatches=3)


def test_a_model_that_no_mesh_of_all_devices_divides_is_told_so():
  with pytest.raises(UsageError, match='no mesh of 8 devices fits'):
    gpt(MeshShape(), rows=3, emb_dim=15, head_dim=5, num_heads=3, mlp_dim=9, vocab_size=49, positions='none')


def test_one_device_takes_anything():
  module = Bert(BertConfig(**SIZES | {'num_heads': 3, 'emb_dim': 15, 'mlp_dim': 7, 'vocab_size': 41}))
  learner = Learner(module, optimizers.sgd(0.1), 0.1)
  trainer = Trainer(learner, make_mesh(None, jax.devices()[:1]), spec('encoder', 3, 5))
  assert trainer.abstract_state.params['mlm']['bias'].shape == (41,)


def test_a_trace_finds_constraints_in_loops_and_what_is_computed_again():
  def body(x, _):
    return nn.with_logical_constraint(x, (axes.ACT_BATCH, axes.ACT_LENGTH, axes.ACT_MLP)) * 2, None

  def make(seed):
    x = jax.numpy.zeros((4, 6, 10)) + seed
    x = nn.with_logical_constraint(x, (axes.ACT_BATCH, axes.ACT_LENGTH, axes.ACT_EMBED))
    return jax.lax.scan(jax.checkpoint(body), x, None, length=2)[0]

  shape, found = fitting.trace(make, 0.0, mesh=make_mesh(MeshShape(data=2, tensor=4)), rules=STANDARD_RULES)
  assert shape.shape == (4, 6, 10)
  assert {(each.name, each.length, each.mesh_axes) for each in found} == {
    (axes.ACT_BATCH, 4, ('data', 'fsdp', 'expert')),
    (axes.ACT_LENGTH, 6, ('sequence',)),
    (axes.ACT_MLP, 10, ('tensor',)),
  }


def test_meshes_that_fit_are_all_of_them_the_most_alike_first():
  mesh = make_mesh(MeshShape(data=1, fsdp=1, tensor=8))
  dimensions = [
    fitting.Dimension('a', axes.MLP, 12, ('tensor',)),
    fitting.Dimension('b', axes.ACT_BATCH, 4, ('data', 'fsdp')),
  ]
  found = fitting.meshes_that_fit(dimensions, mesh)
  named = [dict(zip(MESH_AXES, sizes, strict=True)) for sizes in found]
  # 8 = rows x tensor, tensor dividing 12 and rows dividing 4: 2 x 4 and 4 x 2, the rows as data or fsdp or both.
  assert {(each['data'] * each['fsdp'], each['tensor']) for each in named} == {(2, 4), (4, 2)}
  assert len(named) == 2 + 3 and named[0]['tensor'] == 4
