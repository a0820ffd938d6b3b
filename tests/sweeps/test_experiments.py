"""The experiments of the repository: each is a plan that is fair, and small enough for two cores."""

import pathlib

import pytest

from t5x_lite import sweep
from t5x_lite.cli import environment
from t5x_lite.sweeps import plan_text, spec

FILES = sorted((pathlib.Path(__file__).parents[2] / 'experiments').glob('*.gin'))
MOST_FLOPS = 1.5e14  # of all runs together: about an hour and a half on two cores that train t5_tiny in a minute


def test_every_experiment_says_how_it_is_run_and_what_it_cannot_show():
  assert len(FILES) >= 10
  for path in FILES:
    head = path.read_text(encoding='utf-8').partition('\nSweep:')[0]
    command = f'python -m t5x_lite.sweep --gin_file=experiments/{path.name} --output=sweeps/{path.stem}'
    assert command in head and 'cannot' in head.lower() and all(line.startswith('#') for line in head.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_an_experiment_is_planned(path, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(environment, 'prepare', lambda values: None)
  plans, render = [], plan_text.render
  monkeypatch.setattr(plan_text, 'render', lambda made, name: plans.append(made) or render(made, name))
  assert sweep.main(['sweep', f'--gin_file={path}', '--output=out', '--dry_run']) == 0
  (made,) = plans
  seeds, costs = made.sweep.seeds, [each.cost for each in made.arms]
  assert len(seeds) >= 3 and len(costs) >= 2
  assert len(seeds) * sum(cost.total_flops for cost in costs) < MOST_FLOPS
  assert {each.order for each in made.arms} != {None}
  held = {spec.TOKENS: 'total_tokens', spec.FLOPS: 'total_flops', spec.STEPS: 'steps'}[made.sweep.budget]
  spent = [getattr(cost, held) for cost in costs]
  assert max(spent) <= (1 + 2 * made.sweep.tolerance) * min(spent)
