"""Checks JobSet manifests against the schema of the resource, without a cluster.

    git clone --depth=1 https://github.com/kubernetes-sigs/jobset
    pip install jsonschema pyyaml
    python experiments/launch/check_jobset.py jobset/config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml

The schema holds that of jobs and pods as well. As in an API server with strict validation, fields that it does not have
are mistakes.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import jsonschema
import yaml


def strict(schema: Any) -> Any:
  """The schema with unknown fields refused, and Kubernetes' int-or-string said as JSON schema says it."""
  if isinstance(schema, list):
    return [strict(part) for part in schema]
  if not isinstance(schema, dict):
    return schema
  made = {name: strict(part) for name, part in schema.items()}
  if made.get('x-kubernetes-int-or-string'):
    made.pop('pattern', None)
  open_ended = made.get('x-kubernetes-preserve-unknown-fields') or 'additionalProperties' in made
  if isinstance(made.get('properties'), dict) and made.get('type') == 'object' and not open_ended:
    made['additionalProperties'] = False
  return made


def main(crd: str) -> int:
  resource = yaml.safe_load(pathlib.Path(crd).read_text())
  (version,) = [version for version in resource['spec']['versions'] if version['storage']]
  schema = strict(version['schema']['openAPIV3Schema'])
  schema['properties']['metadata'] = {'type': 'object'}
  failures = 0
  for path in sorted(pathlib.Path(__file__).parent.glob('jobset_*.yaml')):
    manifest = yaml.safe_load(path.read_text())
    found = list(jsonschema.Draft202012Validator(schema).iter_errors(manifest))
    failures += len(found)
    print(f'{path.name}: {"ok" if not found else ""}')
    for error in found:
      print(f'  {"/".join(map(str, error.absolute_path))}: {error.message[:200]}')
  return min(failures, 1)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1]))
