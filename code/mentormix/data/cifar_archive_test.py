"""Tests of reading untrusted archives."""
import functools
import io
import os
import pickle
import struct
import tarfile
import tempfile

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from mentormix.data import cifar_archive
from mentormix.data import image_set
from mentormix.messages import UserError


def write_cifar_archive(path, dataset_name='cifar10', images_per_batch=40,
                        seed=0, dumps=None):
  """Writes an archive laid out like the official one, but small.

  Images of one class look alike, so that a network can learn them.

  Args:
    path: of the .tar.gz to write.
    dataset_name: cifar10 or cifar100.
    images_per_batch: of each of the five parts of the training set, and of the
      test set; cifar100 has its five parts in one.
    seed: for the labels and the images.
    dumps: object -> bytes; by default as the official archives were pickled.

  Returns:
    What the archive holds, an `ImageSet`.
  """
  dumps = dumps or python2_pickle
  official = cifar_archive.OFFICIAL[dataset_name]
  num_classes = image_set.NUM_CLASSES[dataset_name]
  random = np.random.RandomState(seed)
  names = [f'class {k}' for k in range(num_classes)]
  superclass = np.arange(num_classes) % 20
  folder = f'{dataset_name[:5]}-{dataset_name[5:]}'
  members, parts = [], []
  for name in official.train + (official.test,):
    count = images_per_batch
    if len(official.train) == 1 and name != official.test:
      count *= 5
    labels = random.permutation(np.arange(count) % num_classes)
    images = _images_of(labels, random)
    parts.append((images, labels))
    content = {
        'batch_label': name, 'filenames': [f'{i}.png' for i in range(count)],
        'data': images.transpose(0, 3, 1, 2).reshape(count, -1),
        official.labels: labels.tolist()}
    if official.coarse:
      content[official.coarse] = superclass[labels].tolist()
    members.append((f'{folder}/{name}', dumps(content)))
  members.append((f'{folder}/{official.meta}',
                  dumps({official.names: names, 'num_vis': 3072})))
  write_tar_gz(path, members)
  return image_set.ImageSet(
      train_images=np.concatenate([images for images, _ in parts[:-1]]),
      train_labels=np.concatenate([labels for _, labels in parts[:-1]]),
      test_images=parts[-1][0], test_labels=parts[-1][1],
      superclass=superclass if official.coarse else None,
      class_names=tuple(names))


def _images_of(labels, random):
  """Coarse colour patterns, one per class, under noise: [N, 32, 32, 3]."""
  patterns = np.stack([
      np.random.RandomState(k).randint(0, 256, size=[4, 4, 3])
      for k in range(labels.max() + 1)])
  images = patterns[labels].repeat(8, axis=1).repeat(8, axis=2)
  images = images + random.randint(-20, 21, size=images.shape)
  return np.clip(images, 0, 255).astype(np.uint8)


def write_tar_gz(path, members):
  """Writes a .tar.gz; `members` are pairs (name or TarInfo, bytes)."""
  with tarfile.open(path, 'w:gz', compresslevel=1) as tar:
    for info, data in members:
      if not isinstance(info, tarfile.TarInfo):
        info = tarfile.TarInfo(info)
        info.size = len(data)
      tar.addfile(info, io.BytesIO(data))


class _Python2Pickler(pickle._Pickler):
  """Writes bytes and ASCII text as the byte strings of Python 2."""
  dispatch = dict(pickle._Pickler.dispatch)

  def _save_bytes(self, value):
    size = len(value)
    self.write((b'U' + struct.pack('<B', size) if size < 256
                else b'T' + struct.pack('<i', size)) + value)
    self.memoize(value)

  def _save_str(self, value):
    self._save_bytes(value.encode('ascii'))

  dispatch[bytes], dispatch[str] = _save_bytes, _save_str


def python2_pickle(value):
  """A pickle of plain data and arrays as Python 2 wrote it, protocol 2."""
  f = io.BytesIO()
  _Python2Pickler(f, protocol=2).dump(value)
  return f.getvalue()


def with_bytes(protocol):
  """Dumps what Python 3 has after reading Python 2's pickle as bytes."""
  def to_bytes(x):
    if isinstance(x, dict):
      return {to_bytes(key): to_bytes(item) for key, item in x.items()}
    if isinstance(x, list):
      return [to_bytes(item) for item in x]
    return x.encode('ascii') if isinstance(x, str) else x

  return lambda value: pickle.dumps(to_bytes(value), protocol=protocol)


@pytest.mark.parametrize('dataset_name', ['cifar10', 'cifar100'])
@pytest.mark.parametrize('dumps', [
    None, functools.partial(pickle.dumps, protocol=4), with_bytes(2)])
def test_read_gives_back_what_was_written(tmp_path, dataset_name, dumps):
  path = str(tmp_path / 'a.tar.gz')
  expected = write_cifar_archive(path, dataset_name, dumps=dumps)
  found = cifar_archive.read(path, dataset_name)
  for field in ('train_images', 'train_labels', 'test_images', 'test_labels'):
    np.testing.assert_array_equal(getattr(found, field),
                                  getattr(expected, field))
  assert found.train_images.shape == (200, 32, 32, 3)
  assert found.train_images.dtype == np.uint8
  assert found.train_labels.dtype == np.int64
  assert found.class_names == expected.class_names
  if dataset_name == 'cifar100':
    np.testing.assert_array_equal(found.superclass, expected.superclass)
  else:
    assert found.superclass is None


def test_python2_pickle_is_one():
  value = {'data': np.zeros([3, 3072], np.uint8), 'labels': [1, 300],
           'filenames': [f'{i}.png' for i in range(300)]}
  found = pickle.loads(python2_pickle(value), encoding='bytes')
  np.testing.assert_array_equal(found.pop(b'data'), value['data'])
  assert found[b'labels'] == [1, 300] and found[b'filenames'][299] == b'299.png'


# Bad archives.


def batch(**changes):
  content = {'data': np.zeros([4, 3072], np.uint8), 'labels': [0, 1, 2, 9]}
  content.update(changes)
  return content


def members(**changes):
  """The members of a tiny archive, some replaced; None leaves one out."""
  names = cifar_archive.OFFICIAL['cifar10'].train + ('test_batch',)
  content = {name: python2_pickle(batch()) for name in names}
  content['batches.meta'] = python2_pickle(
      {'label_names': ['class'] * 10})
  content.update(changes)
  return [(name, data) for name, data in sorted(content.items())
          if data is not None]


@pytest.fixture(name='archive')
def fixture_archive(tmp_path):
  return str(tmp_path / 'archive.tar.gz')


def refused(path, match, dataset_name='cifar10'):
  """Asserts one short line that names the file."""
  with pytest.raises(UserError, match=match) as caught:
    cifar_archive.read(path, dataset_name)
  assert path in str(caught.value)
  assert len(str(caught.value)) < 400 + len(path)


class Call:
  """Pickles to a call of `function`."""

  def __init__(self, function, *args):
    self._call = function, args

  def __reduce__(self):
    return self._call


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_a_pickle_does_not_run(archive, tmp_path, protocol):
  ran = tmp_path / 'ran'
  attack = pickle.dumps(Call(os.mkdir, str(ran)), protocol=protocol)
  write_tar_gz(archive, members(data_batch_1=attack))
  refused(archive, 'data_batch_1')
  assert not ran.exists()
  pickle.loads(attack)
  assert ran.exists()  # The attack is a real one.


@pytest.mark.parametrize('content, what', [
    ([1, 2], ''),
    (batch(labels=[0, 1, 2, 10]), 'labels other than 0 to 9'),
    (batch(labels=[0, 1, 2]), 'no 4 labels'),
    (batch(labels=['0', 1, 2, 3]), 'no 4 labels'),
    ({'data': np.zeros([4, 3072], np.uint8)}, "'labels'"),
    ({'labels': [1]}, "'data'"),
    (batch(data=[0, 1]), 'no images'),
    (batch(data=np.zeros([4, 3071], np.uint8)), 'no images'),
    (batch(data=np.zeros([2, 6144], np.uint8)), 'no images')])
def test_odd_content(archive, content, what):
  write_tar_gz(
      archive, members(data_batch_2=python2_pickle(content)))
  refused(archive, 'data_batch_2.*' + what)


@pytest.mark.parametrize('data', [
    np.zeros([4, 3072], np.int8), np.zeros([4, 384], np.float64),
    np.zeros([4, 3, 1024], np.uint8), np.zeros([4, 3072], object),
    np.uint8(3)])
def test_other_arrays(archive, data):
  content = pickle.dumps(batch(data=data), protocol=2)
  write_tar_gz(archive, members(data_batch_1=content))
  refused(archive, 'data_batch_1')


@pytest.mark.parametrize('meta', [
    [], {}, {'label_names': ['class'] * 9}, {'label_names': 3}])
def test_odd_class_names(archive, meta):
  write_tar_gz(archive, members(**{
      'batches.meta': python2_pickle(meta)}))
  refused(archive, 'batches.meta')


def test_archive_of_the_other_data_set(archive):
  write_cifar_archive(archive, 'cifar100')
  refused(archive, 'holds cifar100, not --dataset_name=cifar10')
  write_cifar_archive(archive, 'cifar10')
  refused(archive, 'holds cifar10, not --dataset_name=cifar100', 'cifar100')


@pytest.mark.parametrize('change, what', [
    (lambda x: dict(x, coarse_labels=x['coarse_labels'][::-1]),
     'in one superclass'),
    (lambda x: dict(x, coarse_labels=[20] * len(x['data'])), '0 to 19'),
    (lambda x: {k: v for k, v in x.items() if k != 'coarse_labels'},
     'coarse_labels'),
    (lambda x: dict(x, fine_labels=[0] * len(x['data']),
                    coarse_labels=[0] * len(x['data'])),
     'in one superclass')])
def test_odd_superclasses(archive, change, what):
  write_cifar_archive(archive, 'cifar100', dumps=lambda value: (
      python2_pickle(change(value) if 'data' in value else value)))
  refused(archive, what, 'cifar100')


def test_paths_in_the_archive_are_only_names(archive, tmp_path):
  write_tar_gz(archive, [
      (prefix + name, data) for prefix, (name, data) in zip(
          ['../../', '/', '/etc/', 'a/../', './', '..//', 'x/'], members())])
  assert len(cifar_archive.read(archive, 'cifar10').train_labels) == 20
  assert os.listdir(str(tmp_path)) == ['archive.tar.gz']


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE,
                                  tarfile.FIFOTYPE, tarfile.CHRTYPE,
                                  tarfile.DIRTYPE])
def test_links_and_devices_are_not_followed(archive, kind, tmp_path):
  secret = tmp_path / 'secret'
  secret.write_bytes(python2_pickle(batch()))
  link = tarfile.TarInfo('data_batch_1')
  link.type, link.linkname = kind, str(secret)
  write_tar_gz(archive, [(link, b'')] + members(data_batch_1=None))
  refused(archive, 'no valid data_batch_1')
  # Nor do they stand in the way of the real one.
  write_tar_gz(archive, [(link, b'')] + members())
  assert len(cifar_archive.read(archive, 'cifar10').train_labels) == 20


def test_the_size_is_bounded(archive, monkeypatch):
  write_tar_gz(archive, members())
  monkeypatch.setattr(cifar_archive, '_MAX_BYTES', 30000)
  refused(archive, 'holds too much data')


@pytest.fixture(name='whole', scope='module')
def fixture_whole(tmp_path_factory):
  """The bytes of an archive, and what it holds."""
  path = tmp_path_factory.mktemp('whole') / 'archive.tar.gz'
  expected = write_cifar_archive(str(path), images_per_batch=2)
  return path.read_bytes(), expected


def read_bytes(data):
  """What `cifar_archive.read` returns; None if it refuses in one line."""
  with tempfile.TemporaryDirectory() as directory:
    path = os.path.join(directory, 'archive.tar.gz')
    with open(path, 'wb') as stream:
      stream.write(data)
    try:
      return cifar_archive.read(path, 'cifar10')
    except UserError as error:
      assert path in str(error) and len(str(error)) < 400 + len(path)
      return None


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(cut=strategies.floats(0, 1, exclude_max=True))
def test_a_truncated_archive_is_refused(whole, cut):
  assert read_bytes(whole[0][:int(cut * len(whole[0]))]) is None


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(flips=strategies.lists(
    strategies.tuples(strategies.floats(0, 1, exclude_max=True),
                      strategies.integers(1, 255)), min_size=1, max_size=3))
def test_flipped_bytes_are_found_or_harmless(whole, flips):
  damaged = bytearray(whole[0])
  for place, change in flips:
    damaged[int(place * len(damaged))] ^= change
  images = read_bytes(bytes(damaged))
  if images is not None:  # The same data, such as after a flip in a timestamp.
    for found, expected in zip(images, whole[1]):
      np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('content', [
    b'<!DOCTYPE html><html>404</html>', b'PK\x03\x04', b'\x1f\x8bxxxxxxxx',
    b'\x00' * 1000])
def test_something_else_called_tar_gz(archive, content):
  with open(archive, 'wb') as stream:
    stream.write(content)
  refused(archive, 'is not a .tar.gz archive, or is truncated or damaged')
