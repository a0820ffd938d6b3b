import jax
import psutil
import pytest

from t5x_lite.training import flops, memory


@pytest.mark.parametrize(
  ('kind', 'tera'),
  [
    ('TPU v2', 22.5),
    ('TPU v3', 61.5),
    ('TPU v4', 275),
    ('TPU v5 lite', 197),
    ('TPU v5e', 197),
    ('TPU v5', 459),
    ('TPU v5p', 459),
    ('TPU v6 lite', 918),
    ('TPU v6e', 918),
    ('TPU7x', 1153.5),
    ('NVIDIA A100-SXM4-40GB', 312),
    ('NVIDIA A10G', 70),
    ('NVIDIA A10', 125),
    ('NVIDIA H100 80GB HBM3', 989),
    ('NVIDIA H100 PCIe', 756),
    ('NVIDIA H200', 989),
    ('NVIDIA GH200 480GB', 989),
    ('NVIDIA B200', 2250),
    ('NVIDIA GB200', 2500),
    ('NVIDIA L4', 121),
    ('NVIDIA L40S', 362),
    ('Tesla T4', 65),
    ('Tesla V100-SXM2-16GB', 125),
    ('Tesla V100-PCIE-16GB', 112),
  ],
)
def test_peaks_of_device_kinds(kind, tera):
  assert flops.lookup(kind) == pytest.approx(tera * 1e12)


@pytest.mark.parametrize(
  'kind', ['NVIDIA RTX A4000', 'NVIDIA T400', 'NVIDIA RTX A1000', 'NVIDIA H100 80GB HBM3 MIG 1g.10gb', 'Quantum 9', '']
)
def test_an_unknown_device_is_not_mistaken_for_a_known_one(kind):
  assert flops.lookup(kind) is None


def test_the_peak_of_this_cpu_is_measured_once_and_shared_by_its_devices():
  peak = flops.peak_flops()
  assert 1e8 < peak < 1e14
  assert flops.peak_flops(jax.devices()[-1]) == peak


def test_utilisation():
  assert flops.utilisation(3e12, seconds=2.0, num_devices=3, peak=1e12) == pytest.approx(0.5)
  assert flops.utilisation(None, 1.0, 1, 1e12) is None
  assert flops.utilisation(1e12, 1.0, 1, None) is None


def test_peak_memory_is_in_bytes_and_no_less_than_what_is_in_use():
  in_use = psutil.Process().memory_info().rss
  assert in_use <= memory.peak_host_bytes() * 1.01 < 100 * in_use
  assert memory.describe().startswith('peak memory: host ')
