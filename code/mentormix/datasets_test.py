"""Records and files: what is accepted, and what each fault is called."""
import numpy as np
import pytest

from mentormix import archives
from mentormix import datasets
from mentormix.command import UserError
from mentormix.runtime import slim
from mentormix.runtime import tf
import prepare_data

PIXELS = np.arange(32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)


def _record(label=3, size=32, **kwargs):
  png = prepare_data.encode_png(PIXELS[:size, :size])
  return datasets.encode_example(png, label, 1, **kwargs)


def _write(path, records):
  with tf.python_io.TFRecordWriter(str(path)) as writer:
    for record in records:
      writer.write(record)
  return str(path)


def _count(path, name='cifar10', split='train'):
  return datasets.count_records(datasets.get(name), split, [str(path)])


def _read_one(path, name, split):
  with tf.Graph().as_default(), tf.Session() as session:
    provider = slim.dataset_data_provider.DatasetDataProvider(
        datasets.slim_dataset(datasets.get(name), split, [path], 1),
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
  path = _write(tmp_path / 'x', [_record()])
  assert _count(path) == 1
  assert datasets.has_clean_labels([path])
  image, label, clean_label = _read_one(path, 'cifar10', 'train')
  np.testing.assert_array_equal(image, PIXELS)
  assert (label, clean_label) == (3, 1)


def test_cifar100_is_scored_on_the_fine_label(tmp_path):
  path = _write(tmp_path / 'x', [_record(label=7, fine_label=88)])
  assert _read_one(path, 'cifar100', 'test')[1] == 88
  assert _read_one(path, 'cifar100', 'train')[1] == 7


def test_data_prepared_elsewhere_has_no_clean_label(tmp_path):
  example = tf.train.Example.FromString(_record())
  del example.features.feature[datasets.CLEAN_LABEL]
  path = _write(tmp_path / 'x', [example.SerializeToString()])
  assert _count(path) == 1
  assert not datasets.has_clean_labels([path])
  assert _read_one(path, 'cifar10', 'train')[2] == datasets.UNKNOWN_LABEL


def test_records_are_the_same_bytes_every_time():
  assert _record() == _record() != _record(label=4)


def test_files_are_found_by_name(tmp_path):
  dataset = datasets.get('cifar10')
  for name in ('cifar10_train-1', 'cifar10_train-0', 'cifar10_test-0',
               'noise.json', '.cifar10_train-2'):
    (tmp_path / name).write_bytes(b'')
  files = datasets.find_files(dataset, 'train', str(tmp_path))
  assert files == [str(tmp_path / 'cifar10_train-0'),
                   str(tmp_path / 'cifar10_train-1')]


def test_missing_empty_and_foreign_directories(tmp_path):
  find = lambda name, path: datasets.find_files(
      datasets.get(name), 'train', str(path))
  with pytest.raises(UserError, match='is not a directory'):
    find('cifar10', tmp_path / 'nowhere')
  with pytest.raises(UserError, match='holds nothing'):
    find('cifar10', tmp_path)
  (tmp_path / 'cifar10_train-0').write_bytes(b'')
  with pytest.raises(UserError, match='cifar100_train-.*cifar10_train-0'):
    find('cifar100', tmp_path)
  with pytest.raises(UserError, match='known are cifar10, cifar100'):
    datasets.get('imagenet')


def test_truncated_file(tmp_path):
  path = _write(tmp_path / 'x', [_record()] * 3)
  data = open(path, 'rb').read()
  (tmp_path / 'cut').write_bytes(data[:-100])
  with pytest.raises(UserError, match='cut: record 2 cannot be read'):
    _count(tmp_path / 'cut')


def test_flipped_bit(tmp_path):
  path = _write(tmp_path / 'x', [_record()] * 3)
  data = bytearray(open(path, 'rb').read())
  data[len(data) // 2] ^= 1
  (tmp_path / 'flipped').write_bytes(bytes(data))
  with pytest.raises(UserError, match='flipped: record 1 cannot be read'):
    _count(tmp_path / 'flipped')


def test_empty_file(tmp_path):
  (tmp_path / 'none').write_bytes(b'')
  with pytest.raises(UserError, match='none holds no record'):
    _count(tmp_path / 'none')


@pytest.mark.parametrize('record,message', [
    (b'\xff\xffnot an example', 'record 1 is not a tf.Example'),
    (tf.train.Example().SerializeToString(), 'record 1 lacks image/encoded'),
    (_record(label=10), 'record 1 has label 10; --dataset_name=cifar10 has '
                        'classes 0 to 9'),
    (_record(label=-1), 'record 1 has label -1'),
    (datasets.encode_example(archives.PNG_SIGNATURE, 1, 1),
     'record 1 has an image that is cut off'),
    (_record(size=28), 'record 1 has an image of 28 x 28 pixels'),
])
def test_record_of_something_else(tmp_path, record, message):
  path = _write(tmp_path / 'x', [_record(), record])
  with pytest.raises(UserError, match=message):
    _count(path)
