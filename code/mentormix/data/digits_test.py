"""Tests of the embedded digits."""
import hashlib

import numpy as np
import pytest

from mentormix.data import digits as digits_lib


def test_digits_are_those_of_scikit_learn_interpolated():
  datasets = pytest.importorskip('sklearn.datasets')
  small = datasets.load_digits()
  digits = digits_lib.digits()
  images = np.concatenate([digits.train_images, digits.test_images])
  labels = np.concatenate([digits.train_labels, digits.test_labels])
  np.testing.assert_array_equal(labels, small.target)
  at = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
  for index in (0, 1000, 1796):
    rows = np.stack([np.interp(at, np.arange(8), column)
                     for column in small.images[index].T], axis=1)
    both = np.stack([np.interp(at, np.arange(8), row) for row in rows])
    np.testing.assert_allclose(images[index, :, :, 1], both * 255 / 16,
                               atol=0.51)


def test_digits_are_pinned():
  digits = digits_lib.digits()
  digest = hashlib.sha256(digits.train_images.tobytes()
                          + digits.test_images.tobytes()
                          + digits.train_labels.astype('<i8').tobytes())
  assert digits.train_images.shape == (1397, 32, 32, 3)
  assert digits.test_images.shape == (400, 32, 32, 3)
  assert digits.train_images.dtype == np.uint8
  for labels in (digits.train_labels, digits.test_labels):
    assert labels.dtype == np.int64
    assert np.bincount(labels).min() > 0.9 * len(labels) / 10
  assert len(digits.class_names) == 10 and digits.superclass is None
  assert digest.hexdigest() == (
      '9a5f4fee388df4da74866aed283c262e6846c8b94909b9a3afe823a6ca98e864')
