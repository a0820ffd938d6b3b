"""What the configurations of all families have in common; each family's own file adds its fields and its defaults."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from t5x_lite.core.errors import UsageError, unknown
from t5x_lite.nn.adapter import SoftPrompt
from t5x_lite.nn.attend import AUTO, IMPLEMENTATIONS
from t5x_lite.nn.linear import Initializer
from t5x_lite.nn.masks import Mask
from t5x_lite.nn.mlp import activation
from t5x_lite.nn.moe import Routing
from t5x_lite.nn.transformer import REMAT_POLICIES, BlockConfig

_MAY_BE_0 = ('num_experts', 'num_global_tokens', 'max_global_tokens', 'adapter_dim', 'prompt_length')


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Sizes and flavour of a model.

  Attributes:
    vocab_size: rows of the embedding table; at least the tokenizer's vocabulary.
    emb_dim: model width D.
    num_heads: N, in every attention layer.
    head_dim: H.
    num_kv_heads: heads of keys and values in self-attention, a divisor of N; None: N (Ainslie et al. 2023).
    mlp_dim: F.
    mlp_activations: one name, or two for a gated MLP: ('silu', 'linear') is SwiGLU.
    num_experts: MLPs of a layer, of which a router chooses for every token (see `nn.moe`); 0: one MLP and no router.
    experts_per_token: how many it chooses.
    capacity_factor: room of an expert, in even shares of a row's tokens.
    load_balancing_loss: weight of the loss that evens out the use of the experts.
    rotary_base: base of rotary positions; used where the positions of the family are 'rotary'.
    attention_window: how far an encoder's layers see to either side, the position itself included (local attention);
      None: everything.
    num_global_tokens: with it, the first so many positions of an example see all and are seen by all.
    max_global_tokens: of a row at most, where it holds several examples.
    adapter_dim: width of the adapters behind every sub-layer (Houlsby et al. 2019); 0: none.
    prompt_length: trained vectors before those of the tokens (Lester et al. 2021), which count as tokens where there is
      a greatest length; 0: none.
    heads: the outputs that the model has; which there are is up to the family.
    num_labels: outputs of the heads 'classification' and 'tagging'.
    dropout_rate: dropout everywhere.
    dtype: of activations, 'float32' or 'bfloat16'; parameters, logits and softmax are float32 always.
    attention: what computes attention: 'auto', the best that the platform has, or another of
      `nn.attend.IMPLEMENTATIONS`.
    scan_layers: whether the layers of a stack are scanned: faster to compile, one stacked array per parameter.
    remat_policy: what the backward pass computes again; a name in `nn.transformer.REMAT_POLICIES`.
  """

  vocab_size: int = 32128
  emb_dim: int = 512
  num_heads: int = 8
  head_dim: int = 64
  num_kv_heads: int | None = None
  mlp_dim: int = 2048
  mlp_activations: tuple[str, ...] = ('relu',)
  num_experts: int = 0
  experts_per_token: int = 1
  capacity_factor: float = 1.25
  load_balancing_loss: float = 0.01
  rotary_base: float = 10_000.0
  attention_window: int | None = None
  num_global_tokens: int = 1
  max_global_tokens: int = 16
  adapter_dim: int = 0
  prompt_length: int = 0
  heads: tuple[str, ...] = ()
  num_labels: int = 2
  dropout_rate: float = 0.0
  dtype: str = 'float32'
  attention: str = AUTO
  scan_layers: bool = True
  remat_policy: str = 'none'

  def __post_init__(self) -> None:
    name = type(self).__name__
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if type(value) is int and value < self.least(field.name):
        raise UsageError(f'{name}.{field.name} is {value}: expected at least {self.least(field.name)}')
    if self.dtype not in ('float32', 'bfloat16'):
      raise UsageError(f"dtype of activations is {self.dtype!r}: expected 'float32' or 'bfloat16'")
    check_choice(f'attention of {name}', self.attention, IMPLEMENTATIONS)
    if self.remat_policy not in REMAT_POLICIES:
      raise unknown('remat policy', self.remat_policy, REMAT_POLICIES)
    if not 0.0 <= self.dropout_rate < 1.0:
      raise UsageError(f'dropout rate is {self.dropout_rate}: expected at least 0 and less than 1')
    if self.num_kv_heads is not None and self.num_heads % self.num_kv_heads:
      raise UsageError(
        f'{name}.num_kv_heads is {self.num_kv_heads}: expected a divisor of the {self.num_heads} heads of queries'
      )
    if self.num_experts and self.experts_per_token > self.num_experts:
      raise UsageError(
        f'{name}.experts_per_token is {self.experts_per_token}: expected at most num_experts, {self.num_experts}'
      )
    if not self.capacity_factor > 0.0:
      raise UsageError(f'{name}.capacity_factor is {self.capacity_factor}: expected more than 0')
    positions = getattr(self, 'positions', None)
    for kind, size in (('rotary', 'head_dim'), ('sinusoidal', 'emb_dim')):
      if positions == kind and getattr(self, size) % 2:
        raise UsageError(f'{name}.{size} is {getattr(self, size)}: expected an even number for {kind} positions')
    if not self.mlp_activations:
      raise UsageError(f'{name}.mlp_activations is empty: expected one activation, or two for a gated MLP')
    for each in self.mlp_activations:
      activation(each)
    for head in self.heads:
      if head not in self.known_heads():
        raise unknown(f'head of {name}', head, self.known_heads())

  @classmethod
  def known_heads(cls) -> tuple[str, ...]:
    """The heads that this family can have."""
    return ()

  @classmethod
  def least(cls, field: str) -> int:
    """The smallest value that an integer field may have."""
    return 0 if field in _MAY_BE_0 else 1

  def encoder_mask(self, segments: jax.Array, positions: jax.Array) -> Mask:
    """What the positions of a bidirectional stack see, for int32 `[B, L]`."""
    if self.attention_window is None:
      return Mask(segments, segments)
    return Mask.local(
      segments,
      positions,
      window=self.attention_window,
      num_global=self.num_global_tokens,
      max_everywhere=self.max_global_tokens,
    )

  def soft_prompt(self, init: Initializer) -> SoftPrompt:
    """The trained vectors before those of the tokens, drawn as those are."""
    return SoftPrompt(self.prompt_length, self.emb_dim, jnp.dtype(self.dtype), init)

  def routing(self) -> Routing | None:
    """How tokens find their experts, if there are several."""
    if not self.num_experts:
      return None
    return Routing(self.num_experts, self.experts_per_token, self.capacity_factor, self.load_balancing_loss)

  def block_config(self, **changes: Any) -> BlockConfig:
    """The block that these fields describe, with what the family adds."""
    common = {
      'features': self.emb_dim,
      'num_heads': self.num_heads,
      'head_dim': self.head_dim,
      'num_kv_heads': self.num_kv_heads,
      'mlp_dim': self.mlp_dim,
      'activations': tuple(self.mlp_activations),
      'routing': self.routing(),
      'adapter_dim': self.adapter_dim,
      'dropout_rate': self.dropout_rate,
      'attention': self.attention,
      'dtype': jnp.dtype(self.dtype),
    }
    return BlockConfig(**common | changes)


def check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
  """Raises UsageError, with the nearest match, for a value that is none of the known ones."""
  if value not in known:
    raise unknown(what, value, known)


def check_length(length: int, max_length: int) -> None:
  """Raises UsageError for rows longer than the table of positions; a look-up beyond its end would not be told."""
  if length > max_length:
    raise UsageError(
      f'rows of {length} tokens, but the model has positions for {max_length}: expected at most {max_length}, '
      f'or a larger max_length'
    )


def normal_init(stddev: float = 0.02) -> Initializer:
  """Truncated normal, as BERT draws all its weights (Devlin et al. 2019)."""
  return nn.initializers.truncated_normal(stddev)
