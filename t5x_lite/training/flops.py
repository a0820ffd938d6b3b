"""Peak FLOP/s of a device, and model FLOPs utilisation (MFU; Chowdhery et al. 2022, PaLM, appendix B)."""

from __future__ import annotations

import functools
import re
import time

import jax
import jax.numpy as jnp

_TERA = 1e12

# Dense peaks of bfloat16 matrix products with float32 accumulation, in TFLOP/s, of one JAX device; of float16 on V100
# and T4, which have no bfloat16. The first name found as whole words in the device kind counts (an 'RTX A4000' is no
# A40); longer names come first.
# TPU: cloud.google.com/tpu/docs/v2 ... /v6e, /tpu7x give them per chip. A device is one of the two cores of a chip on
# v2 and v3 and one of the two chiplets on 7x, elsewhere a chip.
# NVIDIA: data sheets of each product; where they give figures "with sparsity", half of that.
# AMD: instinct.amd.com data sheets; a device is one of the two dies of an MI250X.
_PEAKS = {
  'TPU v2': 45 / 2,
  'TPU v3': 123 / 2,
  'TPU v4 lite': 138,
  'TPU v4': 275,
  'TPU v5 lite': 197,
  'TPU v5e': 197,
  'TPU v5': 459,  # What v5p calls itself.
  'TPU v5p': 459,
  'TPU v6 lite': 918,
  'TPU v6e': 918,
  'TPU7x': 2307 / 2,
  'TPU v7x': 2307 / 2,
  'GB200': 2500,
  'B200': 2250,
  'B100': 1750,
  'GH200': 989,
  'H200': 989,
  'H100 NVL': 835,
  'H100 PCIe': 756,
  'H100': 989,
  'A100': 312,
  'A800': 312,
  'H800': 989,
  'A30': 165,
  'A10G': 70,
  'A10': 125,
  'A40': 149.7,
  'L40S': 362,
  'L40': 181,
  'L4': 121,
  'T4': 65,
  'V100-PCIE': 112,
  'V100': 125,
  'RTX 5090': 209.5,
  'RTX 4090': 165,
  'RTX 3090': 71,
  'MI325X': 1307,
  'MI300X': 1307,
  'MI250X': 383 / 2,
}

_CPU_SIZE = 1024  # 2 * 1024^3 FLOPs: some 10 to 50 ms on two cores.
_CPU_SECONDS = 0.15


def peak_flops(device: jax.Device | None = None) -> float | None:
  """Peak FLOP/s of one device (default: the first), or None if its kind is not known.

  A CPU has no figure to look up, since it depends on cores, clock and vector width: it is measured as the fastest
  float32 matrix product, once per process and in at most 0.3 s. All CPU "devices" of a process share it.
  """
  device = device or jax.devices()[0]
  if device.platform == 'cpu':
    return _measured_cpu_peak() / jax.local_device_count()
  return lookup(device.device_kind)


def lookup(device_kind: str) -> float | None:
  """Peak FLOP/s of an accelerator by its JAX device kind, such as 'NVIDIA H100 80GB HBM3' or 'TPU v5 lite'."""
  if re.search(r'\bMIG\b', device_kind):  # A slice of a GPU has a share of its peak that the name does not say.
    return None
  for name, peak in _PEAKS.items():
    if re.search(rf'\b{re.escape(name)}\b', device_kind, re.IGNORECASE):
      return peak * _TERA
  return None


@functools.cache
def _measured_cpu_peak() -> float:
  size = _CPU_SIZE
  multiply = jax.jit(jnp.matmul)
  left = jax.device_put(jnp.ones((size, size), jnp.float32), jax.local_devices()[0])
  multiply(left, left).block_until_ready()
  best, end = float('inf'), time.perf_counter() + _CPU_SECONDS
  while time.perf_counter() < end:
    start = time.perf_counter()
    multiply(left, left).block_until_ready()
    best = min(best, time.perf_counter() - start)
  return 2 * size**3 / best


def utilisation(flops: float | None, seconds: float, num_devices: int, peak: float | None) -> float | None:
  """MFU: the share of the devices' peak that the model's own FLOPs make up; None where either is unknown.

  Args:
    flops: of the model over these seconds, forward and backward, without what is recomputed.
    seconds: that they took.
    num_devices: all devices of the mesh.
    peak: FLOP/s of one device.
  """
  if flops is None or peak is None or seconds <= 0:
    return None
  return flops / (seconds * num_devices * peak)
