"""What the tests of records share."""
import numpy as np

from mentormix.data import datasets
from mentormix.data import decoding
from mentormix.data import png
from mentormix.data import record_checks
from mentormix.runtime import tf

PIXELS = np.arange(32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
CIFAR10 = datasets.get('cifar10')


def record(label=3, size=32, **kwargs):
  """A record of a CIFAR image, or of its top left corner."""
  return datasets.encode_example(
      png.encode_png(PIXELS[:size, :size]), label, 1, **kwargs)


def write(path, records):
  """Writes a TFRecord file; returns its path."""
  with tf.python_io.TFRecordWriter(str(path)) as writer:
    for each in records:
      writer.write(each)
  return str(path)


def check(paths, max_bad_records=1):
  """(shards, count) of training files."""
  return record_checks.check_files(CIFAR10, 'train', paths, max_bad_records)


def labels_of(shards, count):
  """The labels of all records that are not skipped, a list."""
  return decoding.decode(CIFAR10, 'train', shards, count)['label'].tolist()
