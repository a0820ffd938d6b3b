"""Every implementation of attention against plain einsum in float64, and who runs what."""

import dataclasses
import functools
import importlib.util
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src.cudnn import fused_attention_stablehlo as cudnn_lib

from t5x_lite.core.errors import UsageError
from t5x_lite.nn import attend as attend_lib
from t5x_lite.nn import weight_dropout
from t5x_lite.nn.attend import Case, Relations, Style, attend, choose
from t5x_lite.nn.attention_inputs import Inputs, Places, Settings
from t5x_lite.nn.blockwise import blockwise_attention
from t5x_lite.nn.dot_product import attention_weights, dot_product_attention, repeat_heads
from t5x_lite.nn.masks import Mask
from t5x_lite.nn.pallas_attention import pallas_attention
from t5x_lite.nn.positions import RelativeBias
from t5x_lite.nn.splash import splash_attention
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.partitioning.rules import STANDARD_RULES
from t5x_lite.partitioning.sharding import scope

SEED = (123_456_789, -987_654_321)
RATE = 0.3
SCALE = 0.7


@dataclasses.dataclass(frozen=True)
class Problem:
  """One random attention problem; shapes by the letters of `core.axes`."""

  batch: int = 2
  queries: int = 9
  keys: int = 9
  heads: int = 2
  kv_heads: int = 2
  width: int = 4
  bias: bool = True
  causal: bool = False
  segments: bool = True
  prefix: bool = False
  window: int | None = None
  layer_window: int | None = None
  drops: bool = False
  offset: int = 0
  seed: int = 0

  def arrays(self, dtype=np.float64):
    """Query, key, value, table of the bias, cotangent."""
    rng = np.random.default_rng(self.seed)
    shapes = (
      (self.batch, self.queries, self.heads, self.width),
      *[(self.batch, self.keys, self.kv_heads, self.width)] * 2,
      (self.heads, 32),
      (self.batch, self.queries, self.heads, self.width),
    )
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]

  def mask(self):
    rng = np.random.default_rng(self.seed + 1)

    def segments(length):
      return jnp.asarray(np.sort(rng.integers(0, 4, (self.batch, length)))[:, ::-1], jnp.int32)

    of_queries, of_keys = (segments(self.queries), segments(self.keys)) if self.segments else (None, None)
    prefix = jnp.asarray(rng.random((self.batch, self.keys)) < 0.3) if self.prefix else None
    return Mask(of_queries, of_keys, prefix, causal=self.causal, window=self.window)

  def relative_bias(self, table):
    return RelativeBias(table, not self.causal, dtype=table.dtype) if self.bias else None

  def layer_window_array(self):
    return None if self.layer_window is None else jnp.int32(self.layer_window)

  def kept(self):
    shape = (self.batch, self.heads, self.queries, self.keys)
    rows, heads, queries, keys = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in range(4))
    seed = tuple(jnp.int32(x) for x in SEED)
    return weight_dropout.keep(seed, rows * self.heads + heads, queries + self.offset, keys, RATE)

  def reference(self, query, key, value, table):
    """By definition; 0 where nothing is seen."""
    logits = jnp.einsum('btnh,bsnh->bnts', query, repeat_heads(key, self.heads)) * SCALE
    if self.bias:
      logits += self.relative_bias(table).materialise(self.queries, self.keys, self.offset)
    visible = self.mask().materialise(self.queries, self.keys, self.offset, self.layer_window_array())
    visible = jnp.ones((), bool) if visible is None else visible
    weights = jnp.where(visible, jax.nn.softmax(jnp.where(visible, logits, -1e30), axis=-1), 0.0)
    if self.drops:
      weights = jnp.where(self.kept(), weights / (1 - RATE), 0.0)
    return jnp.einsum('bnts,bsnh->btnh', weights, repeat_heads(value, self.heads))

  def by(self, kernel, query, key, value, table, interpret=True):
    places = Places(
      mask=self.mask(),
      offset=jnp.int32(self.offset),
      window=self.layer_window_array(),
      seed=jnp.asarray(SEED, jnp.int32) if self.drops else None,
      first=jnp.zeros(2, jnp.int32),
    )
    inputs = Inputs(query, key, value, self.relative_bias(table), places)
    return kernel(inputs, Settings(SCALE, RATE, self.heads, interpret=interpret))


def value_and_gradients(function, arrays):
  def both(*arrays):
    *arguments, cotangent = arrays
    out, transpose = jax.vjp(function, *arguments)
    return out, transpose(cotangent)

  return jax.jit(both)(*arrays)


def check(problem, kernel):
  """Outputs and gradients of query, key, value and table of the bias, in float64."""
  with jax.enable_x64(True):
    arrays = problem.arrays()
    expected = value_and_gradients(problem.reference, arrays)
    got = value_and_gradients(functools.partial(problem.by, kernel), arrays)
    compare(got, expected, problem, 1e-10)


def check_informed(problem, kernel, *, dtype=np.float64, atol=1e-10):
  """The same of a kernel in a dtype, of queries that are no padding and see something: nobody reads what others get."""
  with jax.enable_x64(True):
    *arguments, cotangent = problem.arrays()
    mask = problem.mask()
    visible = mask.materialise(problem.queries, problem.keys, problem.offset, problem.layer_window_array())
    if visible is not None:
      cotangent = jnp.where(jnp.any(visible, axis=-1)[:, 0, :, None, None], cotangent, 0)
    if mask.query_segments is not None:
      cotangent = jnp.where((mask.query_segments > 0)[:, :, None, None], cotangent, 0)
    expected = value_and_gradients(problem.reference, [*arguments, cotangent])
  with jax.enable_x64(dtype == np.float64):
    arrays = [jnp.asarray(np.asarray(x), dtype) for x in (*arguments, cotangent)]
    out, gradients = value_and_gradients(functools.partial(problem.by, kernel), arrays)
  informed = np.any(np.asarray(cotangent) != 0, axis=(-1, -2), keepdims=True)
  compare((np.where(informed, out, 0), gradients), (np.where(informed, expected[0], 0), expected[1]), problem, atol)


def compare(got, expected, problem, atol):
  for name, one, other in zip('oqkvb', jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(one, other, atol=atol, err_msg=f'{name} of {problem}')


def plain_attention(inputs, settings):
  """`dot_product_attention`, with bias and mask as arrays."""
  places, lengths = inputs.places, (inputs.query.shape[1], inputs.key.shape[1])
  bias = None if inputs.bias is None else inputs.bias.materialise(*lengths, places.offset)
  mask = places.mask.materialise(*lengths, places.offset, places.window)
  return dot_product_attention(inputs.query, inputs.key, inputs.value, bias=bias, mask=mask, scale=settings.scale)


@st.composite
def problems(draw, most=12):
  kv_heads = draw(st.integers(1, 2))
  queries, causal = draw(st.integers(1, most)), draw(st.booleans())
  return Problem(
    batch=draw(st.integers(1, 2)),
    queries=queries,
    keys=queries if draw(st.booleans()) else draw(st.integers(1, most)),
    heads=kv_heads * draw(st.integers(1, 2)),
    kv_heads=kv_heads,
    width=draw(st.sampled_from((1, 4, 8, 64))),
    bias=draw(st.booleans()),
    causal=causal,
    segments=draw(st.booleans()),
    prefix=causal and draw(st.booleans()),
    window=draw(st.sampled_from((None, None, 1, 5))),
    layer_window=draw(st.sampled_from((None, None, 3))),
    drops=draw(st.booleans()),
    offset=draw(st.sampled_from((0, 0, 3))),
    seed=draw(st.integers(0, 1000)),
  )


@settings(max_examples=4, deadline=None)
@given(problems(), st.integers(1, 8))
def test_blockwise_is_the_reference(problem, block):
  check(problem, functools.partial(blockwise_attention, block=block))


@settings(max_examples=3, deadline=None)
@given(problems())
def test_pallas_is_the_reference(problem):
  check(problem, pallas_attention)


@settings(max_examples=3, deadline=None)
@given(problems())
def test_plain_array_operations_are_the_reference(problem):
  # Shared heads are JAX's own attention, whose softmax is in float32.
  own = problem.heads == problem.kv_heads
  check_informed(dataclasses.replace(problem, drops=False), plain_attention, atol=1e-10 if own else 1e-5)


@pytest.mark.slow
@settings(max_examples=3, deadline=None)
@given(problems(most=200))
def test_splash_is_the_reference_for_many(problem):
  changes = {'bias': False, 'prefix': False, 'drops': False, 'offset': 0, 'layer_window': None}
  check_informed(dataclasses.replace(problem, **changes), splash_attention, dtype=np.float32, atol=1e-4)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(problems(most=40), st.integers(1, 40))
def test_blockwise_is_the_reference_for_many(problem, block):
  check(problem, functools.partial(blockwise_attention, block=block))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(problems(most=400))
def test_pallas_is_the_reference_for_many(problem):
  check(problem, pallas_attention)


@pytest.mark.parametrize(
  'problem',
  [
    Problem(batch=1, queries=150, keys=300, heads=4, kv_heads=2, width=64, drops=True),  # two heads in a register
    Problem(batch=2, queries=384, keys=384, heads=1, kv_heads=1, width=128, causal=True),  # three blocks
  ],
)
def test_pallas_with_several_blocks_is_the_reference(problem):
  check(problem, pallas_attention)


@pytest.mark.parametrize(
  'problem',
  [
    Problem(queries=130, keys=130, width=64, bias=False, causal=True),
    pytest.param(Problem(queries=40, keys=150, width=64, bias=False), marks=pytest.mark.slow),
    pytest.param(Problem(queries=130, keys=130, bias=False, segments=False, window=20), marks=pytest.mark.slow),
    pytest.param(
      Problem(queries=256, keys=256, heads=4, width=64, bias=False, causal=True, window=9), marks=pytest.mark.slow
    ),
  ],
)
def test_splash_is_the_reference_where_there_is_no_padding(problem):
  arrays = problem.arrays(np.float32)
  mask = problem.mask()
  if mask.query_segments is not None:
    arrays[-1] = jnp.where((mask.query_segments > 0)[:, :, None, None], arrays[-1], 0.0)
  out, gradients = value_and_gradients(functools.partial(problem.by, splash_attention), arrays)
  expected_out, expected = value_and_gradients(problem.reference, arrays)
  real = jnp.ones(out.shape[:2], bool) if mask.query_segments is None else mask.query_segments > 0
  np.testing.assert_allclose(out[real], expected_out[real], atol=2e-5)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), gradients, expected)


@pytest.mark.parametrize('kernel', [blockwise_attention, pallas_attention, splash_attention])
def test_a_query_that_sees_nothing_is_zero_and_has_no_gradient(kernel):
  problem = Problem(queries=4, keys=5, bias=kernel is not splash_attention)
  nothing = Mask(jnp.asarray([[1, 1, 2, 2]] * 2, jnp.int32), jnp.asarray([[1, 1, 1, 1, 1]] * 2, jnp.int32))

  class Blind(Problem):
    def mask(self):
      return nothing

  problem = Blind(**dataclasses.asdict(problem))
  out, (d_query, *others) = value_and_gradients(functools.partial(problem.by, kernel), problem.arrays(np.float32))
  assert np.all(np.asarray(out)[:, 2:] == 0) and np.all(np.asarray(d_query)[:, 2:] == 0)
  assert np.any(np.asarray(out)[:, :2] != 0) and np.any(np.asarray(d_query)[:, :2] != 0)
  seen = problem.arrays(np.float32)
  seen[-1] = seen[-1].at[:, 2:].set(0.0)
  _, (_, *expected) = value_and_gradients(functools.partial(problem.by, kernel), seen)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), others, expected)


def test_kept_weights_are_as_many_as_they_should_and_know_nothing_of_each_other():
  kept = np.asarray(Problem(batch=4, queries=64, keys=64, heads=4).kept(), np.float64)
  np.testing.assert_allclose(kept.mean(), 1 - RATE, atol=4e-3)
  for axis in range(4):
    others = tuple(other for other in range(4) if other != axis)
    np.testing.assert_allclose(kept.mean(axis=others), 1 - RATE, atol=0.06)
    for shift in (1, 2, 3):
      both = (kept * np.roll(kept, shift, axis)).mean()
      np.testing.assert_allclose(both, (1 - RATE) ** 2, atol=6e-3)
  other = weight_dropout.keep((jnp.int32(1), jnp.int32(2)), *(jnp.arange(4096, dtype=jnp.int32),) * 3, RATE)
  another = weight_dropout.keep((jnp.int32(2), jnp.int32(2)), *(jnp.arange(4096, dtype=jnp.int32),) * 3, RATE)
  np.testing.assert_allclose(np.mean(np.asarray(other) == np.asarray(another)), RATE**2 + (1 - RATE) ** 2, atol=0.03)


def test_dropout_of_values_is_one_mask_of_the_weights_for_all_queries():
  query, key, value, *_ = Problem(heads=4, kv_heads=2).arrays(np.float32)
  dropout_key = jax.random.key(3)
  got = dot_product_attention(query, key, value, dropout_rate=RATE, dropout_key=dropout_key)
  keep = jax.random.bernoulli(dropout_key, 1 - RATE, (2, 4, 1, 9))
  weights = attention_weights(query, key) * keep.astype(jnp.float32) / (1 - RATE)
  np.testing.assert_allclose(got, jnp.einsum('bnts,bsnh->btnh', weights, repeat_heads(value, 4)), atol=1e-6)


# --- Who runs what ----------------------------------------------------------------------------------------------------

BERT = Case('tpu', jnp.bfloat16, 512, 512, 12, 64, 'none', Mask(jnp.ones((1, 512)), jnp.ones((1, 512))))
GPT = dataclasses.replace(BERT, queries=1024, keys=1024, mask=Mask(causal=True))
T5 = dataclasses.replace(BERT, bias='relative')


@pytest.mark.parametrize(
  ('case', 'expected'),
  [
    (BERT, 'splash'),
    (GPT, 'splash'),
    (T5, 'pallas'),
    (dataclasses.replace(BERT, queries=114), 'pallas'),  # T5's cross-attention
    (dataclasses.replace(BERT, queries=512, keys=8192), 'splash'),
    (dataclasses.replace(BERT, drops_weights=True), 'pallas'),
    (dataclasses.replace(GPT, mask=Mask(prefix=jnp.ones((1, 1024), bool), causal=True)), 'pallas'),
    (dataclasses.replace(GPT, any_window=True), 'pallas'),
    (dataclasses.replace(T5, keys=10_000), 'blockwise'),
    (dataclasses.replace(BERT, bias='array'), 'xla'),
    (dataclasses.replace(BERT, mask=Mask(everywhere=jnp.ones((1, 512), bool), window=9)), 'xla'),
    *((dataclasses.replace(case, platform='cpu'), 'xla') for case in (BERT, GPT, T5)),
    *((dataclasses.replace(case, platform='gpu'), 'cudnn') for case in (BERT, GPT, T5)),
    (dataclasses.replace(BERT, platform='gpu', dtype=jnp.float32), 'xla'),
    (dataclasses.replace(BERT, platform='gpu', drops_weights=True), 'xla'),
    (dataclasses.replace(BERT, platform='gpu', head_dim=60), 'xla'),
    (dataclasses.replace(T5, platform='gpu', queries=113), 'xla'),
    (dataclasses.replace(GPT, platform='gpu', queries=113, mask=Mask()), 'cudnn'),
  ],
)
def test_auto_takes_the_best_that_can(case, expected):
  assert choose('auto', case) == expected


@pytest.mark.parametrize(
  ('asked', 'case', 'message'),
  [
    ('splash', T5, "attention 'splash' has no bias: expected 'auto' or 'xla' or 'blockwise' or 'pallas'"),
    ('pallas', dataclasses.replace(T5, platform='cpu'), "runs on a TPU, and this is a cpu: expected 'auto' or 'xla'"),
    ('cudnn', BERT, 'runs on a GPU, and this is a tpu'),
    ('cudnn', dataclasses.replace(BERT, platform='gpu', dtype=jnp.float32), 'they are float32'),
    ('splash', dataclasses.replace(BERT, drops_weights=True), "no dropout of single weights: .*'pallas'"),
    ('pallas', dataclasses.replace(T5, keys=10_000), "at most 4096 keys of a row, and there are 10000: .*'blockwise'"),
  ],
)
def test_what_cannot_be_is_refused_and_what_can_is_named(asked, case, message):
  with pytest.raises(UsageError, match=message):
    choose(asked, case)


def test_an_unknown_implementation_is_refused():
  with pytest.raises(UsageError, match="unknown attention 'splahs': did you mean 'splash'"):
    Style('splahs')


@pytest.fixture
def on(monkeypatch):
  """Makes the choice for another platform than the one that is there; kernels are interpreted."""

  def pretend(platform):
    monkeypatch.setattr(attend_lib, 'platform', lambda: platform)
    for name, kernel in (('pallas', pallas_attention), ('splash', splash_attention)):
      interpreted = functools.partial(interpret, kernel)
      monkeypatch.setitem(attend_lib._KERNELS, name, interpreted)

  def interpret(kernel, inputs, settings):
    return kernel(inputs, dataclasses.replace(settings, interpret=True))

  return pretend


@pytest.mark.parametrize(
  'shape', [pytest.param(MeshShape(), marks=pytest.mark.slow), MeshShape(data=2, tensor=2, sequence=2)]
)
@pytest.mark.parametrize('name', ['blockwise', 'pallas'])
def test_many_devices_give_what_one_gives(name, shape, on):
  on('tpu')
  problem = Problem(batch=8, queries=10, keys=10, causal=True)
  *arrays, cotangent = problem.arrays(np.float32)
  style = Style(name, SCALE, RATE, shared_dropout=False)

  def loss(query, key, value, table):
    relations = Relations(problem.mask(), problem.relative_bias(table))
    out = attend(query, key, value, relations, style, dropout_key=jax.random.key(5))
    return jnp.sum(out * cotangent)

  run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))
  expected = run(*arrays)
  with scope(make_mesh(shape), STANDARD_RULES):
    got = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))(*arrays)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5), got, expected)


# --- What the compilers of accelerators make of it --------------------------------------------------------------------


def step(style, causal, biased, drops=False):
  """Loss and gradients of attention in half precision."""

  def loss(query, key, value, table, query_segments, key_segments):
    bias = RelativeBias(table, not causal, dtype=query.dtype) if biased else None
    relations = Relations(Mask(query_segments, key_segments, causal=causal), bias)
    out = attend(query, key, value, relations, style, dropout_key=jax.random.key(0) if drops else None)
    return jnp.sum(jnp.square(out.astype(jnp.float32)))

  return jax.value_and_grad(loss, argnums=(0, 1, 2, 3))


def specs(batch, queries, keys, heads, width, place=None):
  shapes = [(batch, queries, heads, width), (batch, keys, heads, width), (batch, keys, heads, width)]
  arrays = [(shape, jnp.bfloat16) for shape in shapes] + [((heads, 32), jnp.float32)]
  arrays += [((batch, queries), jnp.int32), ((batch, keys), jnp.int32)]
  return [jax.ShapeDtypeStruct(shape, dtype, sharding=place) for shape, dtype in arrays]


@pytest.mark.parametrize(('causal', 'biased'), [(False, False), (True, False), (False, True)])
def test_cudnn_lowers_for_cuda(causal, biased, on, monkeypatch):
  """Lowering alone: there may be no GPU, nor the library whose version is asked for."""
  on('gpu')
  monkeypatch.setattr(cudnn_lib, 'check_cudnn_version', lambda: 91_000)
  traced = jax.jit(step(Style(), causal, biased)).trace(*specs(2, 64, 64, 4, 64))
  text = traced.lower(lowering_platforms=('cuda',)).as_text()
  assert '__cudnn$fmha' in text and 'Backward' in text
  assert 'stablehlo.exponential' not in text  # no softmax of our own


LIBTPU = importlib.util.find_spec('libtpu') is not None


@pytest.mark.slow
@pytest.mark.skipif(not LIBTPU, reason='needs the TPU compiler: pip install libtpu')
@pytest.mark.parametrize(
  ('shape', 'causal', 'biased', 'drops', 'kernel'),
  [
    ((8, 512, 512, 12, 64), False, False, False, 'splash'),  # BERT
    ((8, 512, 512, 12, 64), False, False, True, 'attention_'),  # BERT with its dropout
    ((4, 1024, 1024, 12, 64), True, False, False, 'splash'),  # GPT-2
    ((8, 512, 512, 12, 64), False, True, False, 'attention_'),  # T5's encoder
    ((8, 114, 114, 12, 64), True, True, False, 'attention_'),  # T5's decoder
    ((8, 114, 512, 12, 64), False, False, False, 'attention_'),  # its cross-attention
    ((2, 2048, 2048, 8, 128), True, True, True, 'attention_'),
    ((2, 4224, 4224, 4, 64), True, True, False, None),  # too many keys for the kernel: blockwise
  ],
)
def test_tpu_programs_have_no_array_of_queries_by_keys(shape, causal, biased, drops, kernel, monkeypatch):
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')
  monkeypatch.setenv('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  from jax.experimental import topologies

  topology = topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2')
  mesh = make_mesh(MeshShape(data=2, tensor=2), topology.devices)
  batch, queries, keys, heads, _ = shape
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  style = Style(dropout_rate=0.1, shared_dropout=False)
  with scope(mesh, STANDARD_RULES):
    compiled = jax.jit(step(style, causal, biased, drops)).lower(*specs(*shape, place=everywhere)).compile()
  text = compiled.as_text()
  names = re.findall(r'custom_call_target="tpu_custom_call"', text)
  assert len(names) >= 2 if kernel else not names
  assert kernel is None or kernel in text
  rows = batch * heads // 4  # on one of four devices
  for shape in {tuple(map(int, dims.split(','))) for dims in re.findall(r'\b[a-z]+\d*\[([\d,]+)\]', text)}:
    assert not is_square(shape, queries, keys, rows), shape


def is_square(shape, queries, keys, rows):
  """Whether an array has queries, keys and as much besides as there are rows and heads; lengths may be filled up."""
  for i, j in itertools.permutations(range(len(shape)), 2):
    fits = all(shape[axis] in (size, -(-size // 128) * 128) for axis, size in ((i, queries), (j, keys)))
    if fits and math.prod(shape) >= rows * shape[i] * shape[j]:
      return True
  return False


def test_squares_are_told_from_what_is_none():
  assert is_square((8, 12, 114, 512), 114, 512, 24) and is_square((6, 4, 128, 512), 114, 512, 24)
  assert is_square((24, 512, 512), 512, 512, 24)
  assert not is_square((4, 512, 512), 512, 512, 24) and not is_square((8, 512, 12, 64), 512, 512, 24)
