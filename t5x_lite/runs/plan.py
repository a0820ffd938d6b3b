"""What a run would need: memory, FLOPs, collectives, time, before there is a device to run it on."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

from t5x_lite import families
from t5x_lite.core import errors
from t5x_lite.data import features as features_lib
from t5x_lite.data import row_predictions
from t5x_lite.data.features import FeatureConverter
from t5x_lite.partitioning.mesh import MeshShape
from t5x_lite.planning import chips, report
from t5x_lite.planning.search import search as search_plans
from t5x_lite.planning.steps import Planner
from t5x_lite.training.learner import Learner


def plan(
  *,
  learner: Learner,
  features: FeatureConverter,
  task_feature_lengths: Mapping[str, int],
  batch_size: int,
  train_steps: int,
  objective: Any = None,
  mesh: MeshShape = MeshShape(),  # noqa: B008, a frozen value
  offload_optimizer: bool = False,
  topology: str | None = None,
  step: str = 'train',
  search: bool = False,
  num_compiled: int = 3,
  quick: bool = False,
  as_json: bool = False,
) -> int:
  """Compiles a step for a topology and prints what it needs. Reads no data and no vocabulary, and writes nothing.

  Args:
    learner: model, loss and optimiser.
    features: which arrays a batch has.
    task_feature_lengths: tokens, by feature.
    batch_size: rows of the global batch.
    train_steps: of the run, for its days and chip-hours.
    objective: of the run; one that says how many positions it predicts at most spares the other logits.
    mesh: how devices are arranged.
    offload_optimizer: whether the optimiser's state waits in the host's memory.
    topology: such as `v5e:4x4`; None: the devices that are here.
    step: 'train', 'eval' or 'decode'.
    search: rank meshes, remat policies and numbers of microbatches instead, for training.
    num_compiled: how many of them to compile.
    quick: compile with the least effort, so that the time is an upper bound.
    as_json: print one JSON object for machines.

  Returns:
    The exit code, 0: also where it does not fit, which is an answer.

  Raises:
    UsageError: no such topology, no compiler for it, or something that does not fit together.
  """
  if search and step != 'train':
    raise errors.UsageError(f'--search ranks training steps: expected --step=train, got --step={step}')
  families.check(learner.module, features)
  spec = features_lib.batch_spec(features, task_feature_lengths, batch_size)
  families.check_length(learner.module, spec)
  if learner.max_predictions is None:
    most = row_predictions.most_predicted(objective, features, task_feature_lengths)
    learner = dataclasses.replace(learner, max_predictions=most)
  where = chips.topology(topology)
  planner = Planner(learner, spec, where, step, offload_optimizer=offload_optimizer, quick=quick)
  steps = train_steps if step == 'train' else None
  if not search:
    made = planner.compile(mesh)
    print(json.dumps(report.as_json(made, steps)) if as_json else report.as_text(made, steps))
    return 0
  plans = search_plans(planner, num_compiled, lambda line: print(line, file=sys.stderr))
  if as_json:
    rows = [report.as_json(each, steps) | {'flags': report.flags(each)} for each in plans]
    print(json.dumps({'best': rows[0], 'plans': rows}))
  else:
    print(report.as_text(plans[0], steps), report.search_text(plans), sep='\n\n')
  return 0
