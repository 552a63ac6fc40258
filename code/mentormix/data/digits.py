"""The 1,797 handwritten digits that come with this package."""
import os

import numpy as np

from mentormix.data import image_set

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'digits.npz')

_NUM_TRAIN = 1397


def digits():
  """1,797 handwritten digits of 13 people, which need no download.

  Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits,
  UCI Machine Learning Repository, doi 10.24432/C50P49, licence CC BY 4.0; its
  test set, in the order in which scikit-learn's `load_digits` gives it. Changed
  here: 8x8 grey values 0..16 become 32x32 RGB 0..255 by bilinear interpolation,
  in whole numbers, so that the pixels are the same on every machine.

  The first 1,397 are for training and the last 400 for testing, in that order:
  neighbours tend to be by the same hand, so a random split would be easier.

  Returns:
    An `ImageSet` with K = 10 and no superclasses.
  """
  with np.load(PATH, allow_pickle=False) as arrays:
    small, labels = arrays['images'], arrays['labels'].astype(np.int64)
  # Output pixel i lies at (i + 1/2) / 4 - 1/2 between the inputs, in eighths.
  eighths = np.clip(2 * np.arange(image_set.IMAGE_SIZE) - 3, 0, 8 * 7)
  left = eighths // 8
  right = np.minimum(left + 1, 7)
  share = eighths % 8
  def stretch(images):  # [N, 8, W] -> [N, 32, W], times 8
    return (images[:, left] * (8 - share)[:, None]
            + images[:, right] * share[:, None])
  large = stretch(small.astype(np.int64)).transpose(0, 2, 1)
  large = stretch(large).transpose(0, 2, 1)  # 0 .. 16 * 8 * 8
  grey = ((large * 255 + 512) // 1024).astype(np.uint8)
  images = np.repeat(grey[..., None], 3, axis=3)  # [N, 32, 32, 3]
  return image_set.ImageSet(
      train_images=images[:_NUM_TRAIN], train_labels=labels[:_NUM_TRAIN],
      test_images=images[_NUM_TRAIN:], test_labels=labels[_NUM_TRAIN:],
      class_names=tuple('0123456789'))
