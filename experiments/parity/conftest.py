"""Both libraries on the CPU, and this folder's modules importable; nothing is collected where one is missing."""

import importlib.util
import os
import pathlib
import sys

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
sys.path.insert(0, str(pathlib.Path(__file__).parent))

if any(importlib.util.find_spec(name) is None for name in ('torch', 'transformers')):
  collect_ignore_glob = ['test_*.py']
