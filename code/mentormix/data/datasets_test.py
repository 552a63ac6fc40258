"""Records and files: what is accepted, and how each fault is reported."""
import io
import os
import tempfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
from PIL import Image

from mentormix.data import datasets
from mentormix.data import decoding
from mentormix.data import image_set
from mentormix.data import png as png_lib
from mentormix.data import record_checks
from mentormix.messages import UserError
from mentormix.runtime import slim
from mentormix.runtime import tf

PIXELS = np.arange(32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)


def _record(label=3, size=32, **kwargs):
  png = png_lib.encode_png(PIXELS[:size, :size])
  return datasets.encode_example(png, label, 1, **kwargs)


def _write(path, records):
  with tf.python_io.TFRecordWriter(str(path)) as writer:
    for record in records:
      writer.write(record)
  return str(path)


def _count(path, name='cifar10', split='train'):
  return record_checks.check_files(datasets.get(name), split, [str(path)])[1]


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
  path = _write(tmp_path / 'x', [_record()])
  assert _count(path) == 1
  assert datasets.has_clean_labels([datasets.Shard(path)])
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
  assert not datasets.has_clean_labels([datasets.Shard(path)])
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


# Files with three records, of which the last or the middle one is damaged: what
# is done to their bytes, given where the records begin; at which record reading
# fails.
def _flip(at):
  def damage(data, starts):
    data = bytearray(data)
    data[starts[1] + at] ^= 4
    return bytes(data)
  return damage


# With their checksums, from the definition of the format.
HUGE_LENGTHS = [bytes.fromhex(x) for x in (
    '0000000000000010c4234e8e', 'ffffffffffffffffa67b113a')]


def _with_length(header):
  return lambda data, starts: data[:starts[1]] + header + data[starts[1] + 12:]


CUT = 'the file is cut off'
DAMAGES = {
    'cut in length': (lambda data, starts: data[:starts[2] + 7], 2, CUT),
    'cut after length': (lambda data, starts: data[:starts[2] + 8], 2, CUT),
    'cut in data': (lambda data, starts: data[:starts[2] + 100], 2, CUT),
    'cut in checksum': (lambda data, starts: data[:-1], 2, CUT),
    'flipped length': (_flip(0), 1, 'corrupted record'),
    'flipped high byte of length': (_flip(5), 1, CUT),
    'flipped header checksum': (_flip(9), 1, 'corrupted record'),
    'flipped data': (_flip(200), 1, 'corrupted record'),
    'flipped checksum': (_flip(-1), 0, 'corrupted record'),
    'huge length': (_with_length(HUGE_LENGTHS[0]), 1, CUT),
    'largest length': (_with_length(HUGE_LENGTHS[1]), 1, CUT),
    'a few zeros at the end': (lambda data, starts: data + bytes(5), 3, CUT),
    'zeros at the end': (
        lambda data, starts: data + bytes(5000), 3, 'corrupted record'),
    'text': (lambda data, starts: b'not a TFRecord', 0, CUT),
    'gzip': (lambda data, starts: b'\x1f\x8b\x08' + bytes(1000), 0, CUT),
}


@pytest.fixture
def three(tmp_path):
  """Path of a file with three records, its bytes, where each begins."""
  path = _write(tmp_path / 'three', [_record(label) for label in range(3)])
  with open(path, 'rb') as f:
    data = f.read()
  return path, data, [offset for offset, _ in datasets.read_records(path)]


def _skip(paths, most=1):
  return record_checks.check_files(datasets.get('cifar10'), 'train', paths, most)


def _labels(shards, count):
  return decoding.decode(datasets.get('cifar10'), 'train', shards,
                         count)['label'].tolist()


@pytest.mark.parametrize('damage', sorted(DAMAGES))
def test_damaged_files(tmp_path, three, damage):
  valid, data, starts = three
  change, index, reason = DAMAGES[damage]
  (tmp_path / 'hurt').write_bytes(change(data, starts))
  paths = [valid, str(tmp_path / 'hurt')]
  for most in (0, 1000):  # Nobody knows how many records are lost.
    with pytest.raises(UserError, match=f'hurt: record {index} cannot be read '
                       f'.{reason}.*make the file again'):
      _skip(paths, most)


RECORDS = [_record(label, source_id=str(label)) for label in range(4)]


@settings(max_examples=50, deadline=None)
@given(flips=strategies.lists(strategies.tuples(
    strategies.integers(0), strategies.integers(0, 7)), max_size=3),
       cut=strategies.none() | strategies.integers(0, 50)
       | strategies.integers(0))
def test_random_damage_is_found_or_changes_nothing(flips, cut):
  """Bits are flipped, or the end is cut off; a cut may fall between records."""
  with tempfile.TemporaryDirectory() as directory:
    path = _write(os.path.join(directory, 'hurt'), RECORDS)
    with open(path, 'r+b') as f:
      valid = f.read()
      data = bytearray(valid)
      for at, bit in flips:
        data[at % len(data)] ^= 1 << bit
      if cut is not None:
        del data[len(data) - cut % (len(data) + 1):]
      f.seek(0)
      f.truncate()
      f.write(data)
    try:
      _, count = record_checks.check_files(datasets.get('cifar10'), 'train', [path])
    except UserError as error:
      assert str(error).startswith(path)
      assert bytes(data) != valid
      return
    found = [record for _, record in datasets.read_records(path)]
    assert len(found) == count > 0
    assert found == RECORDS[:count]
    assert bytes(data) == valid[:len(data)]
    assert len(data) == sum(len(record) + 16 for record in found)


def test_an_empty_file_is_never_passed_over(tmp_path, three):
  (tmp_path / 'none').write_bytes(b'')
  for most in (0, 1):
    with pytest.raises(UserError, match='none holds no record'):
      _skip([three[0], str(tmp_path / 'none')], most)


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
    (_changed(source_id=[b'1', b'2']), 'not have exactly one string as image'),
    (datasets.encode_example(image_set.PNG_SIGNATURE, 1, 1),
     'record 1 has an image that is cut off'),
    (_record(size=28), 'record 1 has an image of 28 x 28 pixels'),
], ids=lambda value: value if isinstance(value, str) else 'record')
def test_record_of_something_else(tmp_path, record, message):
  path = _write(tmp_path / 'x', [_record(4), record, _record(5)])
  with pytest.raises(UserError, match=message):
    _count(path)
  assert _labels(*_skip([path])) == [4, 5]


PNG = png_lib.encode_png(PIXELS)


@pytest.mark.parametrize('image', [
    PNG[:100], PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:], b'', b'not an image',
    _jpeg(28, 28), _jpeg(32, 32)[:-200],
    _jpeg(16, 64),  # As many pixels.
    bytes(32 * 32 * 3),
], ids=['cut', 'flipped', 'empty', 'text', 'smaller', 'cut JPEG', 'oblong',
        'raw'])
def test_images_that_cannot_be_decoded(tmp_path, image):
  path = _write(tmp_path / 'x', [
      _record(4), _record(5), datasets.encode_example(image, 1), _record(6)])
  assert _count(path) == 4  # Images are not checked,
  message = ('x: record 2 has an image that cannot be decoded as 32 x 32 '
             'pixels .*--max_bad_records')
  shards = [datasets.Shard(path)]
  with pytest.raises(UserError, match=message):
    _labels(shards, 4)  # except when they are decoded,
  with pytest.raises(UserError, match=message):
    decoding.check_images(datasets.get('cifar10'), 'train', shards)
  with pytest.raises(tf.errors.InvalidArgumentError):
    _read_one(_write(tmp_path / 'y', [datasets.encode_example(image, 1)]),
              'cifar10', 'train')
  assert _labels(*_skip([path])) == [4, 5, 6]  # or skipped.


def test_a_jpeg_is_decoded_as_before(tmp_path):
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
    _skip(paths, 10)
  log = capsys.readouterr().out
  assert log.count('has label 77') == 10
  assert 'and 1 more' in log
  assert 'skipped' not in log
  assert _labels(*_skip(paths, 11)) == [1, 1, 1]
  assert '11 bad records of 14 are skipped' in capsys.readouterr().out


def test_clean_labels_are_those_of_the_first_good_record(tmp_path):
  paths = [_write(tmp_path / 'one', [b'bad'] * 2),
           _write(tmp_path / 'two', [_record(1)])]
  shards, count = _skip(paths, 2)
  assert count == 1 and [len(shard.skipped) for shard in shards] == [2, 0]
  assert datasets.has_clean_labels(shards)
  with pytest.raises(UserError, match='none of the records .*one: record 0 is'):
    _skip(paths[:1], 2)


def test_many_records_and_a_bad_one_of_each_kind(tmp_path):
  """Over more than one chunk, names and order stay right."""
  each = [_record(k % 10) for k in range(2300)]
  each[7] = b'bad'
  each[1500] = datasets.encode_example(PNG[:100], 1)
  each[2299] = _record(11)
  path = _write(tmp_path / 'x', each)
  assert _labels(*_skip([path], 3)) == [
      k % 10 for k in range(2300) if k not in (7, 1500, 2299)]
