"""Tests of downloading and of reading untrusted archives."""
import errno
import functools
import hashlib
import http.server
import os
import pickle
import tarfile
import tempfile
import threading
import tracemalloc

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from mentormix.data import cifar_archive
from mentormix.data import digits as digits_lib
from mentormix.data import download as download_lib
from mentormix.messages import RunError
from mentormix.messages import UserError
from mentormix import testing

CONTENT = np.random.RandomState(0).bytes(300000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(name='server')
def fixture_server(monkeypatch):
  """A local web server; `answers` are (status, bytes), the last one repeats."""

  class Handler(http.server.BaseHTTPRequestHandler):

    def do_GET(self):  # pylint: disable=invalid-name
      server.requests += 1
      status, body = server.answers[
          min(server.requests, len(server.answers)) - 1]
      self.send_response(status)
      self.send_header('Content-Length', str(len(CONTENT)))
      self.end_headers()
      self.wfile.write(body)

    def log_message(self, *unused_args):
      pass

  monkeypatch.setenv('no_proxy', '127.0.0.1')
  server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
  server.requests, server.answers = 0, [(200, CONTENT)]
  server.url = f'http://127.0.0.1:{server.server_port}/file.tar.gz'
  thread = threading.Thread(target=functools.partial(
      server.serve_forever, poll_interval=0.01))
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


@pytest.fixture(name='target')
def fixture_target(tmp_path):
  return str(tmp_path / 'file.tar.gz')


def download(server, target, md5=MD5):
  download_lib.download(server.url, target, md5, delays=(0, 0))


def check_downloaded(target):
  with open(target, 'rb') as stream:
    assert stream.read() == CONTENT
  assert os.listdir(os.path.dirname(target)) == ['file.tar.gz']


def test_download(server, target, capfd):
  download(server, target)
  check_downloaded(target)
  out, err = capfd.readouterr()  # No bar without a terminal.
  assert (out, err) == (f'Downloading {server.url} to {target}\n', '')
  mask = os.umask(0)
  os.umask(mask)
  assert os.stat(target).st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize('bad', [(200, CONTENT[:100000]), (503, b''),
                                 (429, b'')])
def test_download_tries_again(server, target, bad):
  server.answers = [bad, bad, (200, CONTENT)]
  download(server, target)
  check_downloaded(target)
  assert server.requests == 3


@pytest.mark.parametrize('answer, tries, words', [
    ((404, b''), 1, 'answers 404 Not Found'),
    ((503, b''), 3, 'answers 503 Service Unavailable'),
    ((200, CONTENT[:100000]), 3, '100000 bytes read'),
    ((200, CONTENT[::-1]), 1, 'has md5 .* instead of ' + MD5)])
def test_download_fails(server, target, answer, tries, words):
  server.answers = [answer]
  with pytest.raises(UserError, match=f'{words}.*--archive=FILE') as caught:
    download(server, target)
  assert server.url in str(caught.value) and '\n' not in str(caught.value)
  assert server.requests == tries
  assert not os.listdir(os.path.dirname(target))


def test_download_without_a_server(server, target):
  server.url = 'http://127.0.0.1:1/file.tar.gz'
  with pytest.raises(UserError, match=r'\(.*refused\); .*--archive=FILE'):
    download(server, target)
  assert not os.listdir(os.path.dirname(target))


def test_download_makes_its_directory(server, tmp_path):
  download(server, str(tmp_path / 'data' / 'file.tar.gz'))
  check_downloaded(str(tmp_path / 'data' / 'file.tar.gz'))
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot write .*; choose a writable'):
    download(server, str(tmp_path / 'file' / 'f'))
  assert server.requests == 1


def test_download_on_a_full_disk(server, target, monkeypatch):
  def full(unused_descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(RunError, match='the disk is full'):
    download(server, target)
  assert not os.listdir(os.path.dirname(target))


def test_a_long_name_in_an_address(tmp_path):
  url = 'http://127.0.0.1/' + 'x' * 300
  with pytest.raises(UserError, match='--archive=.*more than 240 bytes'):
    download_lib.locate('cifar10', url, None, str(tmp_path))


# Good archives.


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
    None, functools.partial(pickle.dumps, protocol=2),
    functools.partial(pickle.dumps, protocol=4),
    with_bytes(2), with_bytes(3), with_bytes(4)])
def test_read_gives_back_what_was_written(tmp_path, dataset_name, dumps):
  path = str(tmp_path / 'a.tar.gz')
  expected = testing.write_cifar_archive(path, dataset_name, dumps=dumps)
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
           'filenames': ['%d.png' % i for i in range(300)]}
  found = pickle.loads(testing.python2_pickle(value), encoding='bytes')
  np.testing.assert_array_equal(found.pop(b'data'), value['data'])
  assert found[b'labels'] == [1, 300] and found[b'filenames'][299] == b'299.png'


# Bad archives.


def batch(**changes):
  content = {'data': np.zeros([4, 3072], np.uint8), 'labels': [0, 1, 2, 9]}
  content.update(changes)
  return content


def members(**changes):
  """The members of a tiny archive, some replaced; None leaves one out."""
  content = {name: testing.python2_pickle(batch())
             for name in cifar_archive.OFFICIAL['cifar10'].train + ('test_batch',)}
  content['batches.meta'] = testing.python2_pickle(
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
  testing.write_tar_gz(archive, members(data_batch_1=attack))
  refused(archive, 'data_batch_1')
  assert not ran.exists()
  pickle.loads(attack)
  assert ran.exists()  # The attack is a real one.


@pytest.mark.parametrize('content, what', [
    ([1, 2], 'not a dictionary'),
    (batch(labels=[0, 1, 2, 10]), 'labels other than 0 to 9'),
    (batch(labels=[0, 1, 2]), 'without 4 labels'),
    (batch(labels=['0', 1, 2, 3]), 'labels other than'),
    (batch(labels=[[0], 1, 2, 3]), 'labels other than'),
    (batch(labels={}), 'without 4 labels'),
    ({'data': np.zeros([4, 3072], np.uint8)}, 'without 4 labels'),
    ({'labels': [1]}, 'without images'),
    (batch(data=[0, 1]), 'without images'),
    (batch(data=np.zeros([4, 3071], np.uint8)), 'without images'),
    (batch(data=np.zeros([2, 6144], np.uint8)), 'without images'),
    (batch(data=np.zeros([0, 3072], np.uint8), labels=[]), 'without images')])
def test_odd_content(archive, content, what):
  testing.write_tar_gz(
      archive, members(data_batch_2=testing.python2_pickle(content)))
  refused(archive, 'data_batch_2.*' + what)


@pytest.mark.parametrize('data', [
    np.zeros([4, 3072], np.int8), np.zeros([4, 384], np.float64),
    np.zeros([4, 3, 1024], np.uint8), np.zeros([4, 3072], object),
    np.uint8(3), np.arange(3).astype('S3')])
def test_other_arrays(archive, data):
  content = pickle.dumps(batch(data=data), protocol=2)
  testing.write_tar_gz(archive, members(data_batch_1=content))
  refused(archive, 'data_batch_1')


@pytest.mark.parametrize('names', [None, ['class'] * 9, [1] * 10, 'x'])
def test_odd_class_names(archive, names):
  meta = testing.python2_pickle({} if names is None else {'label_names': names})
  testing.write_tar_gz(archive, members(**{'batches.meta': meta}))
  refused(archive, 'batches.meta')


def test_a_batch_that_is_missing_or_there_twice(archive):
  testing.write_tar_gz(archive, members(data_batch_4=None))
  refused(archive, 'lacks data_batch_4')
  testing.write_tar_gz(archive, members() + members()[:1])
  refused(archive, 'two members batches.meta')


def test_archive_of_the_other_data_set(archive):
  testing.write_cifar_archive(archive, 'cifar100')
  refused(archive, 'holds cifar100, not --dataset_name=cifar10')
  testing.write_cifar_archive(archive, 'cifar10')
  refused(archive, 'holds cifar10, not --dataset_name=cifar100', 'cifar100')


def cifar100_archive(path, change):
  """An archive of cifar100 whose parts went through `change`."""
  testing.write_cifar_archive(path, 'cifar100', dumps=lambda value: (
      testing.python2_pickle(change(value) if 'data' in value else value)))


@pytest.mark.parametrize('change, what', [
    (lambda x: dict(x, coarse_labels=x['coarse_labels'][::-1]),
     'more than one'),
    (lambda x: dict(x, coarse_labels=[20] * len(x['data'])), '0 to 19'),
    (lambda x: {k: v for k, v in x.items() if k != 'coarse_labels'},
     'without 200 coarse_labels'),
    (lambda x: dict(x, fine_labels=[0] * len(x['data']),
                    coarse_labels=[0] * len(x['data'])),
     'no image of class 1')])
def test_odd_superclasses(archive, change, what):
  cifar100_archive(archive, change)
  refused(archive, what, 'cifar100')


def test_paths_in_the_archive_are_only_names(archive, tmp_path):
  testing.write_tar_gz(archive, [
      (prefix + name, data) for prefix, (name, data) in zip(
          ['../../', '/', '/etc/', 'a/../', './', '..//', 'x/'], members())])
  assert len(cifar_archive.read(archive, 'cifar10').train_labels) == 20
  assert os.listdir(str(tmp_path)) == ['archive.tar.gz']


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE,
                                  tarfile.FIFOTYPE, tarfile.CHRTYPE,
                                  tarfile.DIRTYPE])
def test_links_and_devices_are_not_followed(archive, kind, tmp_path):
  secret = tmp_path / 'secret'
  secret.write_bytes(testing.python2_pickle(batch()))
  link = tarfile.TarInfo('data_batch_1')
  link.type, link.linkname = kind, str(secret)
  testing.write_tar_gz(archive, [(link, b'')] + members(data_batch_1=None))
  refused(archive, 'lacks data_batch_1')
  # Nor do they stand in the way of the real one.
  testing.write_tar_gz(archive, [(link, b'')] + members())
  assert len(cifar_archive.read(archive, 'cifar10').train_labels) == 20


def test_bounds(archive, monkeypatch):
  testing.write_tar_gz(archive, members())
  for name, value in (('_MAX_MEMBER', 1000), ('_MAX_ARCHIVE', 30000),
                      ('_MAX_HEADERS', 5000)):
    with monkeypatch.context() as patch:
      patch.setattr(cifar_archive, name, value)
      refused(archive, 'holds too much data')
  assert len(cifar_archive.read(archive, 'cifar10').train_labels) == 20


@pytest.mark.parametrize('size, what', [
    (1 << 33, 'data_batch_1 it holds too much'), (-512, 'damaged'),
    (2000, 'damaged|lacks data_batch_2')])
def test_a_member_of_another_size_than_its_header_says(archive, size, what):
  info = tarfile.TarInfo('data_batch_1')
  info.size = size
  with tarfile.open(archive, 'w:gz') as tar:
    tar.fileobj.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(1000))
  refused(archive, what)


@pytest.mark.parametrize('kind', [
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_extensions_of_the_format_are_bounded(archive, kind):
  """Python's reader keeps a name for each of these settings."""
  extension = tarfile.TarInfo('x')
  extension.type = kind
  for count, is_refused in ((1000, False), (70000, True)):
    settings = b''.join(b'16 %06d=%05d\n' % (k, k) for k in range(count))
    extension.size = len(settings)
    testing.write_tar_gz(
        archive, [(extension, settings), ('readme', b'')] + members())
    tracemalloc.start()
    if is_refused:
      refused(archive, 'holds too much data')
    else:
      assert len(cifar_archive.read(archive, 'cifar10').train_labels) == 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 << 20


@pytest.fixture(name='whole', scope='module')
def fixture_whole(tmp_path_factory):
  """The bytes of an archive, and what it holds."""
  path = tmp_path_factory.mktemp('whole') / 'archive.tar.gz'
  expected = testing.write_cifar_archive(str(path), images_per_batch=2)
  return path.read_bytes(), expected


def read_bytes(data):
  """What `archives.read` returns; None if it refuses in one line."""
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
  refused(archive, 'is not a .tar.gz|damaged')


def test_missing_file_and_directory(tmp_path):
  refused(str(tmp_path / 'none'), 'does not exist')
  refused(str(tmp_path), 'not a file')


# Digits.


def test_digits_are_those_of_scikit_learn_interpolated():
  datasets = pytest.importorskip('sklearn.datasets')
  small = datasets.load_digits()
  digits = digits_lib.digits()
  images = np.concatenate([digits.train_images, digits.test_images])
  labels = np.concatenate([digits.train_labels, digits.test_labels])
  np.testing.assert_array_equal(labels, small.target)
  at = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
  for index in (0, 1000, 1796):
    rows = np.stack([np.interp(at, np.arange(8), column)
                     for column in small.images[index].T], axis=1)
    both = np.stack([np.interp(at, np.arange(8), row) for row in rows])
    np.testing.assert_allclose(images[index, :, :, 1], both * 255 / 16,
                               atol=0.51)


def test_digits_are_pinned():
  digits = digits_lib.digits()
  digest = hashlib.sha256(digits.train_images.tobytes()
                          + digits.test_images.tobytes()
                          + digits.train_labels.astype('<i8').tobytes())
  assert digits.train_images.shape == (1397, 32, 32, 3)
  assert digits.test_images.shape == (400, 32, 32, 3)
  assert digits.train_images.dtype == np.uint8
  for labels in (digits.train_labels, digits.test_labels):
    assert labels.dtype == np.int64
    assert np.bincount(labels).min() > 0.9 * len(labels) / 10
  assert len(digits.class_names) == 10 and digits.superclass is None
  assert digest.hexdigest() == (
      '9a5f4fee388df4da74866aed283c262e6846c8b94909b9a3afe823a6ca98e864')
