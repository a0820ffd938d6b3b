"""Puts what a benchmark has measured into README.md, between the marks of its name, and says on what machine.

    python experiments/benchmarks/readme.py startup --rounds=3 --transformers_python=PYTHON
    python experiments/benchmarks/readme.py tpu devices

runs `startup.py` or `tpu.py` with the flags that follow, shows what it prints, and puts that into README.md, a table as
it is and lines as a block. `train_step.py` and `generate.py`, which keep their rows, have a flag `--write` instead.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

_README = pathlib.Path(__file__).with_name('README.md')
_UNITS = {'amx_bf16': 'AMX', 'avx512_bf16': 'AVX512-BF16', 'avx512f': 'AVX-512', 'avx2': 'AVX2'}


def write(name: str, text: str, path: pathlib.Path = _README) -> None:
  """Replaces what stands between `<!-- name: begin -->` and `<!-- name: end -->` of a file."""
  before, begin, rest = path.read_text().partition(f'<!-- {name}: begin -->\n')
  _, end, after = rest.partition(f'<!-- {name}: end -->')
  if not begin or not end:
    raise SystemExit(f'{path.name} has no place for {name}: expected the lines <!-- {name}: begin --> and end')
  path.write_text(f'{before}{begin}{text.strip()}\n{end}{after}')


def machine() -> str:
  """Processor, cores, vector units and memory."""
  cpu = pathlib.Path('/proc/cpuinfo').read_text()
  name = re.search(r'model name\s*: (.*)', cpu)
  flags = re.search(r'flags\s*: (.*)', cpu)
  units = [unit for flag, unit in _UNITS.items() if flags and flag in flags[1].split()]
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
  return f'{os.cpu_count()} cores of {name[1] if name else "?"} ({", ".join(units)}), {memory:.0f} GiB'


def block(text: str) -> str:
  """Markdown of what a script prints: its lines as they are, those that belong to no table in blocks."""
  parts: list[list[str]] = []
  for line in text.strip().splitlines():
    if not parts or line.startswith('|') != parts[-1][0].startswith('|'):
      parts.append([])
    parts[-1].append(line)
  return '\n\n'.join('\n'.join(part if part[0].startswith('|') else ['```', *part, '```']) for part in parts)


def main() -> None:
  if len(sys.argv) < 2 or not (script := _README.with_name(f'{sys.argv[1]}.py')).exists():
    raise SystemExit(__doc__)
  rest = sys.argv[2:]
  name = '_'.join([sys.argv[1], *(word for word in rest[:1] if not word.startswith('-'))])
  command = [sys.executable, str(script), *rest]
  printed = []
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout is not None
    for line in process.stdout:
      print(line, end='', flush=True)
      printed.append(line)
  if process.returncode:
    raise SystemExit(process.returncode)
  write(name, f'{machine()}.\n\n{block("".join(printed))}')


if __name__ == '__main__':
  main()
