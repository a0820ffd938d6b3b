"""Says what a run needs before it is launched: `python -m t5x_lite.plan --gin_file=t5_1_1_base.gin --topology=v5e:4x4`.

Compiles the step that the run would take, with the compiler of the topology, which needs no accelerator: memory of a
device by kind, FLOPs, collectives by mesh axis, step time and MFU by a roofline, days and chip-hours, and whether it
fits (exit code 0 either way). Topologies of TPUs want the extra `tpu`: v4, v5e, v5p and v6e, as `v5p:4x4x4`, and
several slices of them, as `v5e:16x16*2`. For a CPU or GPU the local compiler is asked: `cpu:8`, `gpu`, or nothing for
all local devices. `--search` tries meshes, remat policies and numbers of microbatches and ranks them. `--quick` has the
compiler take the least effort: memory and collectives are soon known, and the step time is an upper bound.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from t5x_lite.cli import command
from t5x_lite.core import errors

_STEPS = ('train', 'eval', 'decode')
_GIVEN = ('topology', 'step', 'search', 'num_compiled', 'quick', 'as_json')


def _define(values: flags.FlagValues) -> None:
  flags.DEFINE_string('topology', None, 'Devices to compile for; default: those that are here.', flag_values=values)
  flags.DEFINE_enum('step', 'train', _STEPS, 'Which step to compile.', flag_values=values)
  flags.DEFINE_bool('search', False, 'Rank meshes, remat policies and numbers of microbatches.', flag_values=values)
  flags.DEFINE_integer(
    'search_compile', 3, 'How many of the best to compile, the rest being estimated.', lower_bound=1, flag_values=values
  )
  flags.DEFINE_bool(
    'quick', False, 'Compile with the least effort: soon done, and its time an upper bound.', flag_values=values
  )
  flags.DEFINE_bool('json', False, 'Print one JSON object, for machines.', flag_values=values)


def _plan(session: command.Session) -> int | None:
  from t5x_lite.planning import chips  # JAX is imported by now, and was not at the start.

  given = session.flags
  if given.topology is not None:
    chips.check_name(given.topology)
    if given.num_cpu_devices is not None:
      raise errors.UsageError('--num_cpu_devices and --topology both say how many devices there are: expected one')
  chips.prepare(given.topology)
  return session.call(
    topology=given.topology,
    step=given.step,
    search=given.search,
    num_compiled=given.search_compile,
    quick=given.quick,
    as_json=given.json,
  )


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command.run(argv, 'runs.plan.plan', usage=__doc__, define=_define, work=_plan, given=_GIVEN, joins=False)


if __name__ == '__main__':
  sys.exit(main())
