"""Tests of damaged files and bad records: how each fault is reported."""
import os
import tempfile

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import numpy as np
import pytest

from mentormix.data import datasets
from mentormix.data import decoding
from mentormix.data import png
from mentormix.data import record_checks
from mentormix.messages import UserError
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
  path = write(tmp_path / 'three', [record(label) for label in range(3)])
  with open(path, 'rb') as f:
    data = f.read()
  return path, data, [offset for offset, _ in datasets.read_records(path)]


@pytest.mark.parametrize('damage', sorted(DAMAGES))
def test_damaged_files(tmp_path, three, damage):
  valid, data, starts = three
  change, index, reason = DAMAGES[damage]
  (tmp_path / 'hurt').write_bytes(change(data, starts))
  paths = [valid, str(tmp_path / 'hurt')]
  for most in (0, 1000):  # Nobody knows how many records are lost.
    with pytest.raises(UserError, match=f'hurt: record {index} cannot be read '
                       f'.{reason}.*make the file again'):
      check(paths, most)


RECORDS = [record(label, source_id=str(label)) for label in range(4)]


@settings(max_examples=50, deadline=None)
@given(flips=strategies.lists(strategies.tuples(
    strategies.integers(0), strategies.integers(0, 7)), max_size=3),
       cut=strategies.none() | strategies.integers(0, 50)
       | strategies.integers(0))
def test_random_damage_is_found_or_changes_nothing(flips, cut):
  """Bits are flipped, or the end is cut off; a cut may fall between records."""
  with tempfile.TemporaryDirectory() as directory:
    path = write(os.path.join(directory, 'hurt'), RECORDS)
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
      _, count = check([path], 0)
    except UserError as error:
      assert str(error).startswith(path)
      assert bytes(data) != valid
      return
    found = [each for _, each in datasets.read_records(path)]
    assert len(found) == count > 0
    assert found == RECORDS[:count]
    assert bytes(data) == valid[:len(data)]
    assert len(data) == sum(len(each) + 16 for each in found)


def test_an_empty_file_is_never_passed_over(tmp_path, three):
  (tmp_path / 'none').write_bytes(b'')
  for most in (0, 1):
    with pytest.raises(UserError, match='none holds no record'):
      check([three[0], str(tmp_path / 'none')], most)


def _changed(*others, **values):
  """A record in which some features are others: lists of numbers or bytes."""
  example = tf.train.Example.FromString(record(*others))
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


@pytest.mark.parametrize('bad,message', [
    (b'\xff\xffnot an example', 'record 1 is not a tf.Example'),
    (b'', 'record 1 does not have exactly one image/encoded'),
    (record(label=10), 'record 1 has image/class/label 10; '
     'cifar10 has classes 0 to 9'),
    (record(label=-1), 'record 1 has image/class/label -1'),
    (record(label=2**32), 'record 1 has image/class/label 4294967296'),
    (record(label=2**63 - 1), 'image/class/label 9223372036854775807'),
    (_changed(class__label=[1, 2]), 'record 1 does not have exactly one'),
    (_changed(class__label=[]), 'record 1 does not have exactly one'),
    (_changed(class__label=[1.0]), 'record 1 does not have exactly one'),
    (_changed(encoded=[b'a', b'b']), 'record 1 does not have exactly one'),
    (_changed(class__clean_label=[10]), 'clean_label 10; .* 0 to 9'),
    (_changed(class__clean_label=[1, 2]), 'not have exactly one .*clean_la'),
    (_changed(source_id=[b'1', b'2']), 'not have exactly one image/source_id'),
], ids=lambda value: value if isinstance(value, str) else 'record')
def test_record_of_something_else(tmp_path, bad, message):
  path = write(tmp_path / 'x', [record(4), bad, record(5)])
  with pytest.raises(UserError, match=message):
    check([path], 0)[1]
  assert labels_of(*check([path])) == [4, 5]


def test_more_bad_records_than_allowed(tmp_path, capsys):
  good, bad = record(1), record(77)
  paths = [write(tmp_path / 'one', [good] + [bad] * 6),
           write(tmp_path / 'two', [bad] * 5 + [good] * 2)]
  with pytest.raises(UserError, match='^11 bad records of 14, with '
                     '--max_bad_records=10 for training and .* first: .*one: record 1 has'):
    check(paths, 10)
  log = capsys.readouterr().out
  assert log.count('has image/class/label 77') == 10
  assert 'and 1 more' in log
  assert 'skipped' not in log
  assert labels_of(*check(paths, 11)) == [1, 1, 1]
  assert '11 bad records of 14 are skipped' in capsys.readouterr().out


def test_clean_labels_are_those_of_the_first_good_record(tmp_path):
  paths = [write(tmp_path / 'one', [b'bad'] * 2),
           write(tmp_path / 'two', [record(1)])]
  shards, count = check(paths, 2)
  assert count == 1 and [len(shard.skipped) for shard in shards] == [2, 0]
  assert datasets.has_clean_labels(shards)
  with pytest.raises(UserError, match='^2 bad records of 2,.*one: record 0 is'):
    check(paths[:1], 2)
