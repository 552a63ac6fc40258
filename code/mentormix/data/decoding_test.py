"""Tests of decoding records: in memory and through tf-slim's provider."""
import io

import numpy as np
from PIL import Image
import pytest

from mentormix.data import datasets
from mentormix.data import decoding
from mentormix.data import png
from mentormix.data.record_checks_test import check
from mentormix.data.record_checks_test import CIFAR10
from mentormix.data.record_checks_test import labels_of
from mentormix.data.record_checks_test import PIXELS
from mentormix.data.record_checks_test import record
from mentormix.data.record_checks_test import write
from mentormix.messages import UserError
from mentormix.runtime import slim, tf


def _read_one(path, name, split):
  with tf.Graph().as_default(), tf.Session() as session:
    provider = slim.dataset_data_provider.DatasetDataProvider(
        decoding.slim_dataset(datasets.get(name), split,
                              [datasets.Shard(path)], 1),
        shuffle=False)
    items = provider.get(['image', 'label', 'clean_label'])
    coordinator = tf.train.Coordinator()
    threads = tf.train.start_queue_runners(session, coordinator)
    values = session.run(items)
    coordinator.request_stop()
    session.close()
    coordinator.join(threads, stop_grace_period_secs=5,
                     ignore_live_threads=True)
  return values


def test_a_record_reads_back(tmp_path):
  path = write(tmp_path / 'x', [record()])
  assert check([path], 0)[1] == 1
  assert datasets.has_clean_labels([datasets.Shard(path)])
  image, label, clean_label = _read_one(path, 'cifar10', 'train')
  np.testing.assert_array_equal(image, PIXELS)
  assert (label, clean_label) == (3, 1)


def test_cifar100_is_scored_on_the_fine_label(tmp_path):
  path = write(tmp_path / 'x', [record(label=7, fine_label=88)])
  assert _read_one(path, 'cifar100', 'test')[1] == 88
  assert _read_one(path, 'cifar100', 'train')[1] == 7


def test_data_prepared_elsewhere_has_no_clean_label(tmp_path):
  example = tf.train.Example.FromString(record())
  del example.features.feature[datasets.CLEAN_LABEL]
  path = write(tmp_path / 'x', [example.SerializeToString()])
  assert check([path], 0)[1] == 1
  assert not datasets.has_clean_labels([datasets.Shard(path)])
  assert _read_one(path, 'cifar10', 'train')[2] == datasets.UNKNOWN_LABEL


def _jpeg(height, width):
  image = Image.fromarray(np.resize(PIXELS, [height, width, 3]))
  with io.BytesIO() as f:
    image.save(f, 'JPEG')
    return f.getvalue()


PNG = png.encode_png(PIXELS)


@pytest.mark.parametrize('image', [
    PNG[:100], PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:], b'', b'not an image',
    _jpeg(28, 28), _jpeg(32, 32)[:-200],
    _jpeg(16, 64),  # As many pixels.
    bytes(32 * 32 * 3),
], ids=['cut', 'flipped', 'empty', 'text', 'smaller', 'cut JPEG', 'oblong',
        'raw'])
def test_images_that_cannot_be_decoded(tmp_path, image):
  path = write(tmp_path / 'x', [
      record(4), record(5), datasets.encode_example(image, 1), record(6)])
  assert check([path], 0)[1] == 4  # Images are not checked,
  message = ('x: record 2 has an image that cannot be decoded as 32 x 32 '
             'pixels .*--max_bad_records')
  shards = [datasets.Shard(path)]
  with pytest.raises(UserError, match=message):
    labels_of(shards, 4)  # except when they are decoded,
  with pytest.raises(UserError, match=message):
    decoding.check_images(CIFAR10, 'train', shards)
  with pytest.raises(tf.errors.InvalidArgumentError):
    _read_one(write(tmp_path / 'y', [datasets.encode_example(image, 1)]),
              'cifar10', 'train')
  assert labels_of(*check([path])) == [4, 5, 6]  # or skipped.


def test_a_jpeg_is_decoded_as_before(tmp_path):
  path = write(tmp_path / 'x', [datasets.encode_example(_jpeg(32, 32), 1)])
  with tf.Session() as session:
    expected = session.run(tf.image.decode_jpeg(_jpeg(32, 32), channels=3))
  image, _, _ = _read_one(path, 'cifar10', 'train')
  np.testing.assert_array_equal(image, expected)


def test_many_records_and_a_bad_one_of_each_kind(tmp_path):
  """Over more than one chunk, names and order stay right."""
  each = [record(k % 10) for k in range(2300)]
  each[7] = b'bad'
  each[1500] = datasets.encode_example(PNG[:100], 1)
  each[2299] = record(11)
  path = write(tmp_path / 'x', each)
  assert labels_of(*check([path], 3)) == [
      k % 10 for k in range(2300) if k not in (7, 1500, 2299)]
