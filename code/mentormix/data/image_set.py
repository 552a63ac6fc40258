"""Images and labels in memory, as every source of images gives them."""
import typing

import numpy as np

NUM_CLASSES = {'cifar10': 10, 'cifar100': 100, 'digits': 10}  # By data set.
IMAGE_SIZE = 32
DIRECTORY = 'data'  # Where archives and data sets go by default.


class ImageSet(typing.NamedTuple):
  """A data set in memory, in the order of its source."""
  train_images: np.ndarray  # uint8 [N, H, W, 3].
  train_labels: np.ndarray  # int64 [N].
  test_images: np.ndarray  # uint8 [M, H, W, 3].
  test_labels: np.ndarray  # int64 [M].
  class_names: typing.Sequence[str]  # K names.
  superclass: typing.Optional[np.ndarray] = None  # int64 [K], if there are any.
  train_ids: typing.Optional[list] = None  # N strings; None: the index.
  test_ids: typing.Optional[list] = None  # M strings; None: the index.
  usable: typing.Optional[np.ndarray] = None  # bool [N]; None: all of train.
