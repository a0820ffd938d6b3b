import numpy as np
import pytest

from t5x_lite.data import features

LENGTHS = {'inputs': 6, 'targets': 4}


def test_decoder_reads_its_targets_one_later():
  converted = features.EncoderDecoderFeatures(decoder_start_id=7)(
    {
      'inputs': np.array([5, 6, 1], np.int32),
      'targets': np.array([8, 1], np.int32),
    }
  )
  np.testing.assert_array_equal(converted['encoder_input_tokens'], [5, 6, 1])
  np.testing.assert_array_equal(converted['encoder_positions'], [0, 1, 2])
  np.testing.assert_array_equal(converted['decoder_target_tokens'], [8, 1])
  np.testing.assert_array_equal(converted['decoder_input_tokens'], [7, 8])
  np.testing.assert_array_equal(converted['decoder_loss_weights'], [1.0, 1.0])
  np.testing.assert_array_equal(converted['decoder_segment_ids'], [1, 1])


def test_spec_has_the_keys_and_dtypes_of_an_example():
  converter = features.EncoderDecoderFeatures()
  spec = features.batch_spec(converter, LENGTHS, batch_size=3)
  converted = converter({'inputs': np.ones(6, np.int32), 'targets': np.ones(4, np.int32)})
  assert {name: (3, *array.shape) for name, array in converted.items()} == {n: leaf.shape for n, leaf in spec.items()}
  assert {name: array.dtype for name, array in converted.items()} == {n: leaf.dtype for n, leaf in spec.items()}


@pytest.mark.parametrize('length', [1, 2, 5])
@pytest.mark.parametrize('size', range(7))
def test_eos_survives_the_trim(length, size):
  tokens = list(range(10, 10 + size))
  out, cut = features.append_eos_after_trim(tokens, length, eos_id=1)
  assert out.dtype == np.int32
  assert len(out) == min(size + 1, length)
  assert out[-1] == 1
  assert out[:-1].tolist() == tokens[: length - 1]
  assert cut == (size + 1 > length)
