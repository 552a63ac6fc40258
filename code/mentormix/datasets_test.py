"""Records and files: what is accepted, and what each fault is called."""
import io
import os
import struct

import numpy as np
from PIL import Image
import pytest

from mentormix import archives
from mentormix import datasets
from mentormix import records
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
  return datasets.check_files(datasets.get(name), split, [str(path)])[1]


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


@pytest.mark.parametrize('names,message', [
    (['00000-of-00003', '00002-of-00003'],
     'files are missing: cifar10_train-00001-of-00003; copy or make'),
    (['00002-of-00003'],
     'missing: cifar10_train-00000-of-00003, cifar10_train-00001-of-00003; '),
    (['00000-of-99999999999999'], 'train-00010-of-99999999999999 and more'),
    (['00000-of-00001', '00000-of-00002', '00001-of-00002'],
     'train-00000-of-00001 and cifar10_train-00000-of-00002 are parts of diff'),
    (['00000-of-00001', '00000-of-00001.bak'], 'are parts of different sets'),
    (['00000-of-00001', '00001-of-00001'], '2 files are named as parts of 1'),
    (['00000-of-00001', '0-of-1'], '2 files are named as parts of 1'),
    (['00000-of-00000'], '1 files are named as parts of 0'),
])
def test_missing_and_mixed_files(tmp_path, names, message):
  for name in names:
    (tmp_path / ('cifar10_train-' + name)).write_bytes(b'')
  (tmp_path / 'cifar10_test-00000-of-00007').write_bytes(b'')
  with pytest.raises(UserError, match=message):
    datasets.find_files(datasets.get('cifar10'), 'train', str(tmp_path))


def test_complete_files(tmp_path):
  for name in ('cifar10_train-00000-of-00002', 'cifar10_train-00001-of-00002',
               'cifar10_test-00000-of-00001'):
    (tmp_path / name).write_bytes(b'')
  find = lambda split: datasets.find_files(
      datasets.get('cifar10'), split, str(tmp_path))
  assert len(find('train')) == 2
  assert len(find('test')) == 1


# Files with three records, of labels 0, 1 and 2, of which the second (or, where
# something is cut off, the third) is damaged: what is done to their bytes, with
# where the records begin; then which labels are left, and what is said.
def _flip(at):
  def damage(data, starts):
    data = bytearray(data)
    data[starts[1] + at] ^= 4
    return bytes(data)
  return damage


def _asks_for_too_much(data, starts):
  length = struct.pack('<Q', 2**60)
  header = length + struct.pack('<I', records.masked_crc32c(length))
  return data[:starts[1]] + header + data[starts[1] + 12:]


DAMAGES = {
    'cut in header': (lambda data, starts: data[:starts[2] + 7], [0, 1],
                      'record 2 cannot be read .the file ends within it'),
    'cut in data': (lambda data, starts: data[:starts[2] + 100], [0, 1],
                    'record 2 cannot be read .the file ends within it'),
    'cut in checksum': (lambda data, starts: data[:-1], [0, 1],
                        'record 2 cannot be read .the file ends within it'),
    'flipped length': (_flip(0), [0, 2],
                       'record 1 cannot be read .its header is damaged'),
    'flipped header checksum': (
        _flip(9), [0, 2], 'record 1 cannot be read .its header is damaged'),
    'flipped data': (_flip(200), [0, 2], 'record 1 cannot be read'),
    'flipped checksum': (_flip(-1), [1, 2], 'record 0 cannot be read'),
    'huge length': (_asks_for_too_much, [0, 2], 'record 1 cannot be read .its '
                    'header asks for 1152921504606846976 bytes'),
    'zeros at the end': (lambda data, starts: data + bytes(5000), [0, 1, 2],
                         'record 3 cannot be read .its header is damaged'),
}


@pytest.fixture
def three(tmp_path):
  """Path of a file with three records, its bytes, where each begins."""
  path = _write(tmp_path / 'three', [_record(label) for label in range(3)])
  with open(path, 'rb') as f:
    data = f.read()
  return path, data, [frame.offset for frame in records.walk(path)]


def _leave_out(paths, tmp_path, most=1):
  return datasets.check_files(datasets.get('cifar10'), 'train', paths, most,
                              str(tmp_path / 'run' / 'good_records'))


def _labels(paths, count):
  return datasets.decode(datasets.get('cifar10'), 'train', paths,
                         count)['label'].tolist()


@pytest.mark.parametrize('damage', sorted(DAMAGES))
def test_damaged_files(tmp_path, three, capsys, damage):
  sound, data, starts = three
  change, left, message = DAMAGES[damage]
  (tmp_path / 'hurt').write_bytes(change(data, starts))
  hurt = str(tmp_path / 'hurt')
  with pytest.raises(UserError, match='hurt: %s.*--max_bad_records' % message):
    _count(hurt)

  files, count = _leave_out([sound, hurt], tmp_path)
  assert files == [sound, str(tmp_path / 'run' / 'good_records' / 'hurt')]
  assert count == 3 + len(left)
  assert _labels(files, count) == [0, 1, 2] + left
  ends = starts + [len(data)]  # What is good is copied byte by byte.
  with open(files[1], 'rb') as f:
    assert f.read() == b''.join(data[ends[k]:ends[k + 1]] for k in left)
  assert (tmp_path / 'hurt').read_bytes() == change(data, starts)
  log = capsys.readouterr().out
  assert 'hurt: ' + message.split(' .')[0] in log
  assert '1 bad records of %d are left out' % (count + 1) in log


@pytest.mark.parametrize('data', [
    b'no TFRecord', b'\x1f\x8b\x08' + bytes(1000), bytes(20)])
def test_files_that_are_no_tfrecords(tmp_path, three, data):
  (tmp_path / 'other').write_bytes(data)
  with pytest.raises(UserError, match='other: record 0 cannot be read '):
    _count(tmp_path / 'other')
  paths = [three[0], str(tmp_path / 'other')]
  assert _leave_out(paths, tmp_path) == ([three[0]], 3)
  with pytest.raises(UserError, match='none of the records .*other: record 0'):
    _leave_out(paths[1:], tmp_path)


def test_an_empty_file_is_never_passed_over(tmp_path, three):
  (tmp_path / 'none').write_bytes(b'')
  with pytest.raises(UserError, match='none holds no record'):
    _count(tmp_path / 'none')
  with pytest.raises(UserError, match='none holds no record'):
    _leave_out([three[0], str(tmp_path / 'none')], tmp_path)


def _changed(*others, **values):
  """A record in which some features are others: lists of numbers or bytes."""
  example = tf.train.Example.FromString(_record(*others))
  for name, value in values.items():
    feature = example.features.feature['image/' + name.replace('__', '/')]
    feature.Clear()
    if value and isinstance(value[0], bytes):
      feature.bytes_list.value.extend(value)
    elif value and isinstance(value[0], float):
      feature.float_list.value.extend(value)
    else:
      feature.int64_list.value.extend(value)
  return example.SerializeToString()


def _jpeg(height, width):
  image = Image.fromarray(np.resize(PIXELS, [height, width, 3]))
  with io.BytesIO() as f:
    image.save(f, 'JPEG')
    return f.getvalue()


@pytest.mark.parametrize('record,message', [
    (b'\xff\xffnot an example', 'record 1 is not a tf.Example'),
    (b'', 'record 1 lacks image/encoded'),
    (tf.train.Example().SerializeToString(), 'record 1 lacks image/encoded'),
    (tf.train.SequenceExample(feature_lists=tf.train.FeatureLists(
        feature_list={'x': tf.train.FeatureList()})).SerializeToString(),
     'record 1 is not a tf.Example as TensorFlow writes it'),
    # A feature with a field too many, and bytes that TensorFlow would quote.
    (_record() + b'\x0a\x06\x0a\x04J\x02\xff\xfe',
     'record 1 is not a tf.Example as TensorFlow writes it'),
    (_record(label=10), 'record 1 has label 10; --dataset_name=cifar10 has '
                        'classes 0 to 9'),
    (_record(label=-1), 'record 1 has label -1'),
    (_record(label=2**32), 'record 1 has label 4294967296'),
    (_record(label=2**63 - 1), 'record 1 has label 9223372036854775807'),
    (_changed(class__label=[1, 2]), 'record 1 lacks .* or has several'),
    (_changed(class__label=[]), 'record 1 lacks'),
    (_changed(class__label=[1.0]), 'record 1 lacks'),
    (_changed(encoded=[b'a', b'b']), 'record 1 lacks .* or has several'),
    (_changed(class__clean_label=[10]), r'clean_label \[10\]; .* 0 to 9'),
    (_changed(class__clean_label=[1, 2]), r'clean_label \[1, 2\]'),
    (_changed(source_id=[b'1', b'2']), 'not one string as image/source_id'),
    (datasets.encode_example(archives.PNG_SIGNATURE, 1, 1),
     'record 1 has an image that is cut off'),
    (_record(size=28), 'record 1 has an image of 28 x 28 pixels'),
], ids=lambda value: value if isinstance(value, str) else 'record')
def test_record_of_something_else(tmp_path, record, message):
  path = _write(tmp_path / 'x', [_record(4), record, _record(5)])
  with pytest.raises(UserError, match=message):
    _count(path)
  assert _labels(*_leave_out([path], tmp_path)) == [4, 5]


PNG = prepare_data.encode_png(PIXELS)


@pytest.mark.parametrize('image', [
    PNG[:100], PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:], b'', b'no image',
    _jpeg(28, 28), _jpeg(32, 32)[:-200],
    _jpeg(16, 64),  # As many pixels.
    bytes(32 * 32 * 3),
], ids=['cut', 'flipped', 'empty', 'text', 'smaller', 'cut JPEG', 'oblong',
        'raw'])
def test_images_that_cannot_be_decoded(tmp_path, image):
  path = _write(tmp_path / 'x', [
      _record(4), _record(5), datasets.encode_example(image, 1), _record(6)])
  assert _count(path) == 4  # Images are not looked at,
  message = ('x: record 2 has an image that cannot be decoded as 32 x 32 '
             'pixels .*--max_bad_records')
  with pytest.raises(UserError, match=message):
    _labels([path], 4)  # but when they are decoded,
  with pytest.raises(UserError, match=message):
    datasets.check_images(datasets.get('cifar10'), 'train', [path])
  with pytest.raises(tf.errors.InvalidArgumentError):
    _read_one(_write(tmp_path / 'y', [datasets.encode_example(image, 1)]),
              'cifar10', 'train')
  assert _labels(*_leave_out([path], tmp_path)) == [4, 5, 6]  # or left out.


def test_a_jpeg_is_decoded_as_it_was(tmp_path):
  path = _write(tmp_path / 'x', [datasets.encode_example(_jpeg(32, 32), 1)])
  with tf.Session() as session:
    expected = session.run(tf.image.decode_jpeg(_jpeg(32, 32), channels=3))
  image, _, _ = _read_one(path, 'cifar10', 'train')
  np.testing.assert_array_equal(image, expected)


def test_more_bad_records_than_allowed(tmp_path, capsys):
  good, bad = _record(1), _record(77)
  paths = [_write(tmp_path / 'one', [good] + [bad] * 6),
           _write(tmp_path / 'two', [bad] * 5 + [good] * 2)]
  with pytest.raises(UserError, match='^11 bad records of 14 are more than '
                     '--max_bad_records=10; .* first: .*one: record 1 has'):
    _leave_out(paths, tmp_path, 10)
  log = capsys.readouterr().out
  assert log.count('has label 77') == 10
  assert 'and 1 more' in log
  assert not (tmp_path / 'run').exists()
  files, count = _leave_out(paths, tmp_path, 11)
  assert _labels(files, count) == [1, 1, 1]


def test_what_an_earlier_start_left_is_replaced(tmp_path, three):
  path = _write(tmp_path / 'x', [_record(3), b'bad', _record(4)])
  directory = tmp_path / 'run' / 'good_records'
  directory.mkdir(parents=True)
  (directory / 'x').write_bytes(b'older')
  (directory / 'x.tmp').write_bytes(b'was being written')
  files, count = _leave_out([path], tmp_path)
  assert files == [str(directory / 'x')]
  assert _labels(files, count) == [3, 4]
  assert os.listdir(str(directory)) == ['x']
  assert _leave_out([three[0]], tmp_path) == ([three[0]], 3)


def test_where_all_is_good_nothing_is_written(tmp_path, three):
  assert _leave_out([three[0]], tmp_path) == ([three[0]], 3)
  assert not (tmp_path / 'run').exists()


def test_many_records_and_a_bad_one_of_each_kind(tmp_path):
  """Over more than one chunk, names and order stay right."""
  each = [_record(k % 10) for k in range(2300)]
  each[7] = b'bad'
  each[1500] = datasets.encode_example(PNG[:100], 1)
  each[2299] = _record(11)
  path = _write(tmp_path / 'x', each)
  files, count = _leave_out([path], tmp_path, 3)
  assert _labels(files, count) == [
      k % 10 for k in range(2300) if k not in (7, 1500, 2299)]
