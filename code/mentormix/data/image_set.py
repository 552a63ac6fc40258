"""Images and labels in memory, as every source of images gives them."""
import typing

import numpy as np

NUM_CLASSES = {'cifar10': 10, 'cifar100': 100, 'digits': 10}  # By data set.
IMAGE_SIZE = 32
PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'


class ImageSet(typing.NamedTuple):
  """A data set in memory, in the order of its source."""
  train_images: np.ndarray  # uint8 [N, H, W, 3].
  train_labels: np.ndarray  # int64 [N].
  test_images: np.ndarray  # uint8 [M, H, W, 3].
  test_labels: np.ndarray  # int64 [M].
  superclass: typing.Optional[np.ndarray]  # int64 [K], of each class; or None.
  class_names: typing.Sequence[str]  # K names.
  train_ids: typing.Optional[list] = None  # N strings; None: the index.
  test_ids: typing.Optional[list] = None  # M strings; None: the index.
