"""Tests of downloading and of reading archives from strangers."""
import functools
import hashlib
import http.server
import io
import os
import pickle
import struct
import tarfile
import threading
import tracemalloc

import numpy as np
import pytest

from mentormix import archives
from mentormix import pickles
from mentormix import testing
from mentormix.command import UserError

CONTENT = np.random.RandomState(0).bytes(300000)
MD5 = hashlib.md5(CONTENT).hexdigest()
NO_DELAYS = (0, 0)


class Server(object):
  """A local web server that sends CONTENT, and notes what it was asked."""

  def __init__(self, ranges=True, cuts=0, status=None, content=CONTENT):
    self.requests = []
    outer = self

    class Handler(http.server.BaseHTTPRequestHandler):

      def do_GET(self):  # pylint: disable=invalid-name
        asked = self.headers.get('Range')
        outer.requests.append(asked)
        if status:
          self.send_error(status)
          return
        start = int(asked[len('bytes='):-1]) if asked and ranges else 0
        if start >= len(content):
          self.send_error(416)
          return
        body = content[start:]
        self.send_response(206 if asked and ranges else 200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if len(outer.requests) <= cuts:
          body = body[:100000]
        self.wfile.write(body)

      def log_message(self, *unused_args):
        pass

    self._server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
    self.url = 'http://127.0.0.1:%d/file.tar.gz' % self._server.server_port
    self._thread = threading.Thread(target=functools.partial(
        self._server.serve_forever, poll_interval=0.01))

  def __enter__(self):
    self._thread.start()
    return self

  def __exit__(self, *unused_error):
    self._server.shutdown()
    self._thread.join()
    self._server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
  monkeypatch.setenv('no_proxy', '127.0.0.1')


@pytest.fixture(name='target')
def fixture_target(tmp_path):
  return str(tmp_path / 'file.tar.gz')


def check_downloaded(target):
  with open(target, 'rb') as stream:
    assert stream.read() == CONTENT
  assert os.listdir(os.path.dirname(target)) == [os.path.basename(target)]


def test_download(target, capfd):
  with Server() as server:
    archives.download(server.url, target, MD5, NO_DELAYS)
  check_downloaded(target)
  assert server.requests == [None]
  assert '\r' not in ''.join(capfd.readouterr())  # No bar without a terminal.


def test_download_goes_on_after_a_cut_connection(target):
  with Server(cuts=2) as server:
    archives.download(server.url, target, MD5, NO_DELAYS)
  check_downloaded(target)
  assert server.requests == [None, 'bytes=100000-', 'bytes=200000-']


@pytest.mark.parametrize('ranges', [True, False])
def test_download_resumes_an_earlier_run(target, ranges):
  with open(target + '.part', 'wb') as stream:
    stream.write(CONTENT[:1234])
  with Server(ranges=ranges) as server:
    archives.download(server.url, target, MD5, NO_DELAYS)
  check_downloaded(target)
  assert server.requests == ['bytes=1234-']


@pytest.mark.parametrize('part, requests', [
    (b'x' * 1234, ['bytes=1234-', None]),  # Of something else.
    (b'x' * 300000, ['bytes=300000-', None])])  # And nothing left to send.
def test_download_starts_again_after_a_bad_part(target, part, requests):
  with open(target + '.part', 'wb') as stream:
    stream.write(part)
  with Server() as server:
    archives.download(server.url, target, MD5, NO_DELAYS)
  check_downloaded(target)
  assert server.requests == requests


def test_download_with_wrong_checksum(target):
  with Server(content=CONTENT[::-1]) as server:
    with pytest.raises(UserError, match='md5.*--archive'):
      archives.download(server.url, target, MD5, NO_DELAYS)
  assert len(server.requests) == 1
  assert not os.listdir(os.path.dirname(target))


@pytest.mark.parametrize('status, tries', [(404, 1), (503, 3)])
def test_download_refused(target, status, tries):
  with Server(status=status) as server:
    with pytest.raises(UserError, match='%d.*--archive' % status):
      archives.download(server.url, target, MD5, NO_DELAYS)
  assert len(server.requests) == tries
  assert not os.path.exists(target)


def test_download_without_a_server(target):
  with Server() as server:
    pass
  with pytest.raises(UserError, match='refused.*--archive'):
    archives.download(server.url, target, MD5, NO_DELAYS)


def test_download_into_a_missing_directory(tmp_path):
  with Server() as server:
    with pytest.raises(UserError, match='cannot write'):
      archives.download(server.url, str(tmp_path / 'no' / 'f'), MD5, NO_DELAYS)
  assert len(server.requests) == 1


# Good archives.


def with_bytes_keys(protocol):
  """Dumps what Python 3 has after reading Python 2's pickle as bytes."""
  def dumps(value):
    to_bytes = lambda x: x.encode('ascii') if isinstance(x, str) else x
    return pickle.dumps(
        {to_bytes(key): [to_bytes(x) for x in item]
                        if isinstance(item, list) else to_bytes(item)
         for key, item in value.items()}, protocol=protocol)
  return dumps


@pytest.mark.parametrize('dataset_name', ['cifar10', 'cifar100'])
@pytest.mark.parametrize('dumps', [
    None, functools.partial(pickle.dumps, protocol=2),
    functools.partial(pickle.dumps, protocol=4),
    with_bytes_keys(2), with_bytes_keys(3), with_bytes_keys(4)])
def test_read_gives_back_what_was_written(tmp_path, dataset_name, dumps):
  path = str(tmp_path / 'a.tar.gz')
  expected = testing.write_cifar_archive(path, dataset_name, dumps=dumps)
  found = archives.read(path, dataset_name)
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


def test_read_takes_arrays_in_column_order(tmp_path):
  path = str(tmp_path / 'a.tar.gz')
  expected = testing.write_cifar_archive(path, dumps=lambda value: pickle.dumps(
      {key: np.asfortranarray(item) if key == 'data' else item
       for key, item in value.items()}, protocol=2))
  np.testing.assert_array_equal(archives.read(path, 'cifar10').train_images,
                                expected.train_images)


# Bad archives.


def batch(**changes):
  content = {'data': np.zeros([4, 3072], np.uint8), 'labels': [0, 1, 2, 9]}
  content.update(changes)
  return content


def members(**changes):
  """The members of a tiny archive, some replaced; None leaves one out."""
  content = {name: testing.python2_pickle(batch())
             for name in archives.OFFICIAL['cifar10'].train + ('test_batch',)}
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
    archives.read(path, dataset_name)
  assert path in str(caught.value)
  assert len(str(caught.value)) < 400 + len(path)


def test_tiny_archive_is_fine(archive):
  testing.write_tar_gz(archive, members())
  assert archives.read(archive, 'cifar10').train_labels.tolist() == [
      0, 1, 2, 9] * 5


class Call(object):
  """Pickles to a call of `function`."""

  def __init__(self, function, *args):
    self._call = function, args

  def __reduce__(self):
    return self._call


def test_malicious_pickles_do_not_run(archive, tmp_path):
  trace = str(tmp_path / 'ran')
  touch = 'open(%r, "w").close()' % trace
  attacks = [
      pickle.dumps(Call(os.system, 'touch ' + trace), protocol=protocol)
      for protocol in (0, 2, 4)]
  attacks += [
      pickle.dumps(Call(eval, touch), protocol=2),
      pickle.dumps(Call(exec, touch), protocol=4),
      b'cbuiltins\nexec\n(U' + struct.pack('<B', len(touch))
      + touch.encode('ascii') + b'tR.',
      b'(S%r\nios\nsystem\n.' % touch.encode('ascii'),  # The INST instruction.
      b'\x80\x02cnumpy.testing\nrundocs\n(tR.',
      b'\x80\x02cnumpy.core.multiarray\nfromfile\n(tR.',
      b'\x80\x02cnumpy\nload\nU\x01x\x85R.',
      b'\x80\x02cnumpy\ndtype.__init__\n)R.',
      b'\x80\x04\x8c\x05numpy\x8c\x04load\x93)R.',
      b'\x80\x02cnumpy\nndarray\n)\x81.',  # NEWOBJ.
      b'\x80\x02cnumpy\nndarray\n}U\x01xK\x01sb.',  # BUILD on a class.
      b'\x80\x02\x82\x01.', b'\x80\x02U\x01xQ.',  # EXT1, BINPERSID.
  ]
  for attack in attacks:
    testing.write_tar_gz(archive, members(data_batch_1=attack))
    refused(archive, 'data_batch_1')
    assert not os.path.exists(trace)


def test_the_attacks_would_run_elsewhere(tmp_path):
  trace = str(tmp_path / 'ran')
  pickle.loads(pickle.dumps(Call(os.system, 'touch ' + trace), protocol=2))
  assert os.path.exists(trace)


@pytest.mark.parametrize('data', [
    b'', b'.', b'\x80\x02', b'\x80\x02].', b'a.', b'e.', b'K\x01.',
    b'\x80\x02}K\x01K\x02s.',
    b'\x80\x02' + b']' * 200000 + b'a' * 199999 + b'.',  # Deep nesting,
    b')' + b'\x85' * 200000 + b'.',
    b'})' + b'\x85' * 200000 + b'Ns.',  # as a key: its hash would recurse.
    b'](' + b'](' * 100000 + b'.',
    b'})q\x00' + b'h\x00h\x00\x86q\x00' * 100 + b'Ns.',  # 2 ** 100 long.
    b'\x80\x04\x95' + b'\xff' * 8 + b'.',  # A frame of 2 ** 64 bytes,
    b'\x80\x04\x8e' + b'\xff' * 8 + b'.',  # a string,
    b'T\xff\xff\xff\xff.', b'T\x00\x00\x00\x80.',  # of negative length,
    b']r\xff\xff\xff\xff.',  # a place in a memo.
    b'h\x07.', b'X\x01\x00\x00\x00\xff.', b'c' + b'x' * 1000000,
    b'c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00bz2_ctR.',
], ids=lambda data: '%d bytes' % len(data))
def test_odd_pickles(archive, data):
  testing.write_tar_gz(archive, members(data_batch_3=data))
  refused(archive, 'data_batch_3')


def test_small_pickle_does_not_grow_large(archive):
  encode = b'c_codecs\nencode\nq\x00(X\x10\x00\x00\x00' + b'a' * 16
  encode += b'X\x06\x00\x00\x00latin1tq\x01R'
  testing.write_tar_gz(archive, members(
      data_batch_1=encode + b'h\x00h\x01R' * 100 + b'.'))
  refused(archive, 'data_batch_1.*encodes a string')


def test_every_truncation_and_any_byte_flip_is_survived():
  data = testing.python2_pickle(batch(data=np.zeros([1, 3072], np.uint8),
                                      labels=[0]))
  random = np.random.RandomState(0)
  for position in list(range(0, 200)) + list(range(len(data) - 60, len(data))):
    for damaged in (data[:position], data[:position] + random.bytes(1)
                    + data[position + 1:]):
      try:
        archives._load('path', 'name', damaged)  # pylint: disable=protected-access
      except UserError:
        pass


def test_too_many_instructions(archive, monkeypatch):
  monkeypatch.setattr(pickles, '_MAX_READS', 1000)
  testing.write_tar_gz(archive, members(data_batch_1=b'N' * 1001))
  refused(archive, 'data_batch_1.*too long')


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


def test_missing_batch(archive):
  testing.write_tar_gz(archive, members(data_batch_4=None))
  refused(archive, 'lacks data_batch_4')


def test_batch_twice(archive):
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
  assert len(archives.read(archive, 'cifar10').train_labels) == 20
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
  assert len(archives.read(archive, 'cifar10').train_labels) == 20


def test_bounds(archive, monkeypatch):
  testing.write_tar_gz(archive, members())
  size = os.path.getsize(archive)
  for name, value, what in (('_MAX_MEMBER', 1000, 'larger than'),
                            ('_MAX_MEMBERS', 3, 'more than 3 members'),
                            ('_MAX_ARCHIVE', 30000, 'too much data')):
    with monkeypatch.context() as patch:
      patch.setattr(archives, name, value)
      refused(archive, what)
  assert os.path.getsize(archive) == size


def test_huge_member_is_refused_by_its_header(archive):
  huge = tarfile.TarInfo('data_batch_1')
  huge.size = 1 << 33
  with tarfile.open(archive, 'w:gz') as tar:
    tar.fileobj.write(huge.tobuf(tarfile.GNU_FORMAT))
  refused(archive, 'data_batch_1 is larger than 256 MiB')


@pytest.mark.parametrize('kind', [
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_extensions_are_passed_over(archive, kind):
  """Python's own reader keeps a name for each of these settings."""
  extension = tarfile.TarInfo('x')
  extension.type = kind
  settings = b''.join(b'15 %06d=%05d\n' % (k, k) for k in range(70000))
  extension.size = len(settings)
  testing.write_tar_gz(archive, [(extension, settings)] + members())
  tracemalloc.start()
  assert len(archives.read(archive, 'cifar10').train_labels) == 20
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 6 << 20


def test_a_member_of_negative_size(archive):
  info = tarfile.TarInfo('data_batch_1')
  info.size = -512
  with tarfile.open(archive, 'w:gz') as tar:
    tar.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))
  refused(archive, 'negative size')


def test_a_member_that_ends_too_early(archive):
  info = tarfile.TarInfo('data_batch_1')
  info.size = 2000
  with tarfile.open(archive, 'w:gz') as tar:
    tar.fileobj.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(1000))
  refused(archive, 'data_batch_1 ends too early|lacks batches.meta')


def test_a_long_name_in_an_address(tmp_path):
  url = 'http://127.0.0.1/' + 'x' * 300
  with pytest.raises(UserError, match='--archive=.*more than 240 bytes'):
    archives.locate('cifar10', url, None, str(tmp_path))


def test_truncated_archives(archive):
  testing.write_tar_gz(archive, members())
  with open(archive, 'rb') as stream:
    whole = stream.read()
  for size in (0, 1, 2, 5, 10, 11, 50, len(whole) // 2, len(whole) - 100,
               len(whole) - 9, len(whole) - 8, len(whole) - 1):
    with open(archive, 'wb') as stream:
      stream.write(whole[:size])
    refused(archive, 'is truncated or damaged|is not a .tar.gz')


def test_flipped_bytes_are_found_or_harmless(archive):
  expected = testing.write_cifar_archive(archive, images_per_batch=2)
  with open(archive, 'rb') as stream:
    whole = stream.read()
  found = 0
  for position in range(0, len(whole), len(whole) // 60):
    damaged = bytearray(whole)
    damaged[position] ^= 0x55
    with open(archive, 'wb') as stream:
      stream.write(damaged)
    try:
      images = archives.read(archive, 'cifar10')
    except UserError:
      found += 1
    else:  # The same data in another spelling, such as zeros from elsewhere.
      np.testing.assert_array_equal(images.train_images, expected.train_images)
  assert found > 50


@pytest.mark.parametrize('content', [
    b'<!DOCTYPE html><html>404</html>', b'PK\x03\x04', b'\x1f\x8bxxxxxxxx',
    b'\x00' * 1000])
def test_something_else_called_tar_gz(archive, content):
  with open(archive, 'wb') as stream:
    stream.write(content)
  refused(archive, 'is not a .tar.gz|damaged')


def test_tar_without_compression(archive):
  stream = io.BytesIO()
  with tarfile.open(fileobj=stream, mode='w') as tar:
    tar.addfile(tarfile.TarInfo('x'))
  with open(archive, 'wb') as out:
    out.write(stream.getvalue())
  refused(archive, 'is not a .tar.gz')


def test_missing_file_and_directory(tmp_path):
  refused(str(tmp_path / 'none'), 'does not exist')
  refused(str(tmp_path), 'not a file')


# Digits.


def test_digits():
  digits = archives.digits()
  assert digits.train_images.shape == (1397, 32, 32, 3)
  assert digits.test_images.shape == (400, 32, 32, 3)
  assert digits.train_images.dtype == np.uint8
  assert digits.train_images.min() == 0 and digits.train_images.max() == 255
  for labels in (digits.train_labels, digits.test_labels):
    counts = np.bincount(labels, minlength=10)
    assert labels.dtype == np.int64 and counts.min() > 0.9 * len(labels) / 10
  assert len(digits.class_names) == 10 and digits.superclass is None


def test_digits_are_those_of_scikit_learn_interpolated():
  datasets = pytest.importorskip('sklearn.datasets')
  small = datasets.load_digits()
  digits = archives.digits()
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
  digits = archives.digits()
  digest = hashlib.sha256(digits.train_images.tobytes()
                          + digits.test_images.tobytes()
                          + digits.train_labels.astype('<i8').tobytes())
  assert digest.hexdigest() == (
      '9a5f4fee388df4da74866aed283c262e6846c8b94909b9a3afe823a6ca98e864')
