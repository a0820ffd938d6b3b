"""Puts what a benchmark has measured into README.md, between the marks of its name, and says on what machine."""

from __future__ import annotations

import os
import pathlib
import re

_README = pathlib.Path(__file__).with_name('README.md')
_UNITS = {'amx_bf16': 'AMX', 'avx512_bf16': 'AVX512-BF16', 'avx512f': 'AVX-512', 'avx2': 'AVX2'}


def write(name: str, text: str) -> None:
  """Replaces what stands between `<!-- name: begin -->` and `<!-- name: end -->`."""
  before, begin, rest = _README.read_text().partition(f'<!-- {name}: begin -->\n')
  _, end, after = rest.partition(f'<!-- {name}: end -->')
  if not begin or not end:
    raise SystemExit(f'{_README.name} has no place for {name}: expected the lines <!-- {name}: begin --> and end')
  _README.write_text(f'{before}{begin}{text.strip()}\n{end}{after}')


def machine() -> str:
  """Processor, cores, vector units and memory."""
  cpu = pathlib.Path('/proc/cpuinfo').read_text()
  name = re.search(r'model name\s*: (.*)', cpu)
  flags = re.search(r'flags\s*: (.*)', cpu)
  units = [unit for flag, unit in _UNITS.items() if flags and flag in flags[1].split()]
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
  return f'{os.cpu_count()} cores of {name[1] if name else "?"} ({", ".join(units)}), {memory:.0f} GiB'
