"""Logical axis names, and the letters that stand for shapes everywhere in this codebase.

Letters: B batch, T query length (L where there is one length), S key length, D model width (embed), F MLP width,
N heads, H width of one head (kv), V vocabulary, G gradient-accumulation microbatches, E experts, Y layers.

Parameters and activations have separate names: both have an embed axis, and if one name served both, a rule that shards
parameters over `fsdp` would fight with the one that shards the batch over it.
"""

# Axes of parameters.
EMBED = 'embed'  # D
MLP = 'mlp'  # F
HEADS = 'heads'  # N
JOINED_KV = 'joined_kv'  # N * H, the flattened output axis of a query, key or value kernel
VOCAB = 'vocab'  # V
POSITION = 'position'  # rows of a learned position table
RELPOS_BUCKETS = 'relpos_buckets'
ADAPTER = 'adapter'  # the bottleneck of an adapter, the positions of a soft prompt: too few to shard
LABELS = 'labels'  # outputs of a task head: too few to shard
EXPERT = 'expert'  # E
LAYERS = 'layers'  # Y, the leading axis that `nn.Stack` scans over

# Axes of activations.
ACT_BATCH = 'act_batch'  # B
ACT_LENGTH = 'act_length'  # T, L
ACT_KEY_LENGTH = 'act_key_length'  # S of keys and values in attention: every query needs all of them
ACT_EMBED = 'act_embed'  # D
ACT_MLP = 'act_mlp'  # F
ACT_HEADS = 'act_heads'  # N
ACT_KV = 'act_kv'  # H
ACT_VOCAB = 'act_vocab'  # V
ACT_EXPERT = 'act_expert'  # E
ACT_EXPERT_BATCH = 'act_expert_batch'  # B of tokens that were sent to experts
