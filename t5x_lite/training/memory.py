"""Peak memory of this process and of its devices."""

from __future__ import annotations

import resource
import sys

import jax


def peak_host_bytes() -> int:
  """The most resident memory this process has had, in bytes (getrusage counts KiB on Linux and bytes on macOS)."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == 'darwin' else peak * 1024


def peak_device_bytes() -> int | None:
  """The most memory in use on any device of this process, in bytes; None where the platform does not say (CPU)."""
  peaks = [(device.memory_stats() or {}).get('peak_bytes_in_use') for device in jax.local_devices()]
  known = [peak for peak in peaks if peak is not None]
  return max(known, default=None)


def peaks() -> dict[str, int]:
  """`peak_host_bytes`, and `peak_device_bytes` where the platform says it; for a row of metrics."""
  device = peak_device_bytes()
  return {'peak_host_bytes': peak_host_bytes()} | ({} if device is None else {'peak_device_bytes': device})


def describe() -> str:
  """Such as `peak memory: host 1.23 GiB, device 4.56 GiB`."""
  device = peak_device_bytes()
  text = f'peak memory: host {peak_host_bytes() / 2**30:.2f} GiB'
  return text if device is None else f'{text}, device {device / 2**30:.2f} GiB'
