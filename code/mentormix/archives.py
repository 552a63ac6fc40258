"""Clean images and labels: the official CIFAR archives, and embedded digits.

    find:   locate(...)            -> Source
    fetch:  download(url, path, md5)
    read:   read(path, 'cifar10')  -> ImageSet
            digits()               -> ImageSet

The CIFAR archives are pickles from the internet, and a pickle is a program. So
nothing here unpickles: see pickles.py. Nothing is extracted to disk either:
members are read from the stream, by base name.
"""
import collections
import errno
import gzip
import hashlib
import http.client
import os
import posixpath
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import tqdm

from mentormix import pickles
from mentormix.command import RunError
from mentormix.command import UserError

NUM_CLASSES = {'cifar10': 10, 'cifar100': 100, 'digits': 10}  # The known sets.
IMAGE_SIZE = 32
PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_ROW = 3 * IMAGE_SIZE * IMAGE_SIZE  # Bytes of an image in an archive.

# Bounds on what is read: the largest official member has 155 MB.
_MAX_MEMBER = 256 << 20
_MAX_MEMBERS = 1000
_MAX_NAME = 240  # With .part, file systems take 255.
_MAX_ARCHIVE = 384 << 20  # Twice the official ones.

_WITHOUT_CONTENT = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE,
                    tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)

_CHUNK = 1 << 20
_TIMEOUT = 30  # Seconds without a byte.


class ImageSet(collections.namedtuple(
    'ImageSet', 'train_images train_labels test_images test_labels '
    'superclass class_names train_ids test_ids', defaults=(None, None))):
  """A data set in memory, in the order of its source.

  Attributes:
    train_images: uint8 [N, H, W, 3].
    train_labels: int64 [N].
    test_images: uint8 [M, H, W, 3].
    test_labels: int64 [M].
    superclass: int64 [K], the superclass of each class; None without any.
    class_names: K strings.
    train_ids: N strings, which image each is; None where its index says so.
    test_ids: M strings, or None.
  """
  __slots__ = ()


Official = collections.namedtuple(
    'Official', 'url md5 num_classes train test meta labels coarse names')

_NUM_SUPERCLASSES = 20
_URL = 'https://www.cs.toronto.edu/~kriz/'

OFFICIAL = {
    'cifar10': Official(
        url=_URL + 'cifar-10-python.tar.gz',
        md5='c58f30108f718f92721af3b95e74349a',
        num_classes=NUM_CLASSES['cifar10'],
        train=tuple('data_batch_%d' % batch for batch in range(1, 6)),
        test='test_batch', meta='batches.meta',
        labels='labels', coarse=None, names='label_names'),
    'cifar100': Official(
        url=_URL + 'cifar-100-python.tar.gz',
        md5='eb9058c3a382ffc7106e4002c42a8d85',
        num_classes=NUM_CLASSES['cifar100'],
        train=('train',), test='test', meta='meta',
        labels='fine_labels', coarse='coarse_labels',
        names='fine_label_names'),
}


def check_file(path):
  """Raises UserError unless `path` is a file that can be read."""
  if not os.path.exists(path):
    raise UserError('--archive=%s does not exist; leave --archive out to '
                    'download the official archive' % path)
  if not os.path.isfile(path):
    raise UserError('--archive=%s is not a file; pass the .tar.gz archive as '
                    'it was downloaded' % path)
  if not os.access(path, os.R_OK):
    raise UserError('--archive=%s is not readable; change its permissions'
                    % path)


Source = collections.namedtuple('Source', 'path md5 url')


def locate(dataset_name, archive, md5, directory):
  """Where the images come from; fetches nothing.

  Args:
    dataset_name: a key of NUM_CLASSES.
    archive: a file or an address; None for the official one.
    md5: the checksum to insist on; None for the official one, which a file of
      the user's may differ from.
    directory: where downloads go.

  Returns:
    A `Source`: path and md5 of the file, and the address that it is still to be
    downloaded from, None if it is there.

  Raises:
    UserError: the file or the address is bad, or the checksum another.
  """
  if dataset_name == 'digits':
    return Source(digits_path(), md5_of(digits_path()), None)
  official = OFFICIAL[dataset_name]
  archive = archive or official.url
  if '://' not in archive:
    return _local(archive, md5, official)

  try:
    url = urllib.parse.urlparse(archive)
    name = os.path.basename(url.path)
    understood = url.scheme in ('http', 'https') and url.netloc and name
  except ValueError:
    understood = False
  if not understood:
    raise UserError('--archive=%s is neither a file nor an http or https '
                    'address of one' % archive)
  path = os.path.join(directory, name)
  if len(os.fsencode(name)) > _MAX_NAME:
    raise UserError('--archive=%s names a file of more than %d bytes; get it '
                    'elsewhere and pass the file' % (archive, _MAX_NAME))
  md5 = md5 or official.md5
  if not os.path.exists(path):
    return Source(path, md5, archive)
  check_file(path)
  found = md5_of(path)
  if found != md5:
    raise UserError('%s is there but has md5 %s instead of %s; delete it to '
                    'download it again, or pass --archive=%s to use it as it '
                    'is' % (path, found, md5, path))
  print('Using %s' % path)
  return Source(path, md5, None)


def _local(path, md5, official):
  """The `Source` of a file of the user's."""
  check_file(path)
  found = md5_of(path)
  if md5 and found != md5:
    raise UserError('--archive=%s has md5 %s, not --md5=%s; get it again, or '
                    'correct --md5' % (path, found, md5))
  if not md5 and found != official.md5:
    print('Note: %s is not the official archive (md5 %s instead of %s)'
          % (path, found, official.md5))
  return Source(path, found, None)


def md5_of(path):
  """The md5 of a file, in hexadecimal."""
  digest = hashlib.md5()
  with open(path, 'rb') as stream:
    for chunk in iter(lambda: stream.read(_CHUNK), b''):
      digest.update(chunk)
  return digest.hexdigest()


# Download.


def download(url, path, md5, delays=(1, 2, 4, 8)):
  """Fetches `url` into the file `path`.

  The file grows as `path`.part, which a later call continues, and gets its
  name once its checksum is right.

  Args:
    url: http or https.
    path: where the file goes; its directory exists.
    md5: the checksum to insist on.
    delays: seconds to wait before each further attempt.

  Raises:
    UserError: the server or the network fails every time, the file cannot be
      written, or the checksum is wrong.
    RunError: the disk is full.
  """
  part = path + '.part'
  print('Downloading %s to %s' % (url, path))
  for delay in tuple(delays) + (None,):
    try:
      resumed = _fetch(url, part)
      found = md5_of(part)
      if found == md5:
        os.replace(part, path)
        return
      os.remove(part)
      if not resumed:
        raise UserError(
            '%s has md5 %s instead of %s and was discarded; try again later, '
            'or get the file elsewhere and pass it with --archive=FILE'
            % (url, found, md5))
      problem = 'the continued file had a wrong checksum'
    except urllib.error.HTTPError as error:
      problem = 'the server answers %d %s' % (error.code, error.reason)
      if error.code == 416 and os.path.exists(part):  # Nothing left to send.
        os.remove(part)
      elif 400 <= error.code < 500 and error.code not in (408, 429):
        break
    except urllib.error.URLError as error:
      problem = error.reason
    except (OSError, http.client.HTTPException, ValueError) as error:
      code = getattr(error, 'errno', None)
      if code in (errno.ENOSPC, errno.EDQUOT):
        raise RunError('%s: the disk is full; free some space and start again'
                       % part)
      if getattr(error, 'filename', None):
        raise UserError('cannot write %s (%s); choose a writable directory'
                        % (part, error.strerror))
      problem = error
    if delay is not None:
      time.sleep(delay)
  raise UserError('cannot download %s (%s); check the network, or get the file '
                  'elsewhere and pass it with --archive=FILE' % (url, problem))


def _fetch(url, part):
  """Fetches `url` into `part`, from where that file ends; True if it had any.

  Raises:
    OSError: the connection or the file failed; what came is kept.
    http.client.HTTPException: the server does not speak http.
  """
  start = os.path.getsize(part) if os.path.exists(part) else 0
  headers = {'Range': 'bytes=%d-' % start} if start else {}
  request = urllib.request.Request(url, headers=headers)
  with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
    if response.status != 206:  # The server sends the whole file.
      start = 0
    length = response.headers.get('Content-Length')
    total = start + int(length) if length else None
    done = start
    with open(part, 'ab' if start else 'wb') as stream, tqdm.tqdm(
        total=total, initial=start, unit='B', unit_scale=True,
        desc=os.path.basename(part), disable=None) as bar:
      for chunk in iter(lambda: response.read(_CHUNK), b''):
        stream.write(chunk)
        done += len(chunk)
        bar.update(len(chunk))
  if total is not None and done < total:
    raise ConnectionError('the connection closed after %d of %d bytes'
                          % (done, total))
  return start > 0


# Archives.


def read(path, dataset_name):
  """Reads an archive in the official "python version" format.

  The number of images is whatever the archive holds.

  Args:
    path: a .tar.gz file.
    dataset_name: cifar10 or cifar100.

  Returns:
    An `ImageSet`.

  Raises:
    UserError: the file is not such an archive, or damaged; the line names it.
  """
  official = OFFICIAL[dataset_name]
  members = _read_members(path, dataset_name)
  parts = {name: _load(path, name, members.pop(name))
           for name in sorted(members)}

  class_names = _class_names(path, official, parts[official.meta])
  batches = [_read_batch(path, name, official, parts.pop(name))
             for name in official.train + (official.test,)]
  images = [batch[0] for batch in batches]
  labels = [batch[1] for batch in batches]
  superclass = None
  if official.coarse:
    coarse = [batch[2] for batch in batches]
    superclass = _superclass(path, official.num_classes,
                             np.concatenate(labels), np.concatenate(coarse))
  return ImageSet(
      train_images=np.concatenate(images[:-1]),
      train_labels=np.concatenate(labels[:-1]),
      test_images=images[-1], test_labels=labels[-1],
      superclass=superclass, class_names=class_names)


def _bad(path, what):
  return UserError('%s %s; get it again, or pass another --archive'
                   % (path, what))


class _Bounded(object):
  """A stream that ends in an error before it fills the machine."""

  def __init__(self, stream, limit):
    self._stream = stream
    self._left = limit

  def read(self, size):
    data = self._stream.read(size)
    self._left -= len(data)
    if self._left < 0:
      raise ValueError('it holds too much data')
    return data


def _read_members(path, dataset_name):
  """The contents of the wanted members, by base name: {str: bytes}."""
  official = OFFICIAL[dataset_name]
  wanted = set(official.train + (official.test, official.meta))
  check_file(path)
  found = {}
  names = set()
  try:
    with open(path, 'rb') as raw:
      head = raw.read(2)
      if head != b'\x1f\x8b':
        raise _bad(path, 'is not a .tar.gz archive (it starts with %r)'
                   % (head + raw.read(14)))
      raw.seek(0)
      with gzip.GzipFile(fileobj=raw) as unzipped:
        stream = _Bounded(unzipped, _MAX_ARCHIVE)
        for name, size in _files(stream):
          names.add(name)
          if name not in wanted:
            _skip(stream, size)
            continue
          if name in found:
            raise ValueError('it has two members %s' % name)
          if size > _MAX_MEMBER:
            raise ValueError('member %s is larger than %d MiB'
                             % (name, _MAX_MEMBER >> 20))
          found[name] = stream.read(size)
          if len(found[name]) < size:
            raise ValueError('member %s ends too early' % name)
          stream.read(-size % tarfile.BLOCKSIZE)
        while stream.read(_CHUNK):  # To the end, where the checksum is.
          pass
  except UserError:
    raise
  except MemoryError:
    raise RunError('%s does not fit into memory' % path)
  except Exception as error:  # Whatever gzip and tarfile trip over.
    raise _bad(path, 'is truncated or damaged (%s)' % error)

  missing = sorted(wanted - set(found))
  if missing:
    for other in sorted(OFFICIAL):
      if other != dataset_name and OFFICIAL[other].test in names:
        raise UserError('--archive=%s holds %s, not --dataset_name=%s; change '
                        'one of the two' % (path, other, dataset_name))
    raise _bad(path, 'lacks %s of %s' % (missing[0], dataset_name))
  return found


def _files(stream):
  """Goes through a tar; what it yields is to be read to the end of its block.

  Headers alone are understood. Python's own reader also follows extensions,
  which have no bounds: a name of gigabytes, millions of settings. So a name
  longer than a header holds is cut.

  Args:
    stream: where the tar begins.

  Yields:
    (base name, size in bytes) of each file; links, directories and devices
    have nothing for us.
  """
  for _ in range(_MAX_MEMBERS + 1):
    header = stream.read(tarfile.BLOCKSIZE)
    if not header.strip(b'\0'):  # The end.
      return
    member = tarfile.TarInfo.frombuf(header, 'utf-8', 'backslashreplace')
    if member.size < 0:
      raise ValueError('it has a member of negative size')
    if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
      yield posixpath.basename(member.name), member.size
    elif member.type not in _WITHOUT_CONTENT:
      _skip(stream, member.size)
  raise ValueError('it has more than %d members' % _MAX_MEMBERS)


def _skip(stream, size):
  """Reads past `size` bytes of a tar, and to the end of the block."""
  left = size + -size % tarfile.BLOCKSIZE
  while left and stream.read(min(left, _CHUNK)):
    left -= min(left, _CHUNK)


def _load(path, name, data):
  """The dictionary that a member holds, with its keys as str."""
  try:
    content = pickles.load(data)
  except MemoryError:
    raise RunError('%s: %s does not fit into memory' % (path, name))
  except Exception as error:  # The bytes are a stranger's: anything may fail.
    raise _bad(path, 'has a member %s that is not a plain %s pickle (%s)'
               % (name, 'CIFAR', error or type(error).__name__))
  if not isinstance(content, dict):
    raise _bad(path, 'has a member %s that is not a dictionary' % name)
  return {_text(key): value for key, value in content.items()}


def _text(string):
  """Python 2 wrote bytes where Python 3 writes str."""
  return string.decode('latin1') if isinstance(string, bytes) else string


def _class_names(path, official, meta):
  """The K names in the order of the labels."""
  names = meta.get(official.names)
  if (not isinstance(names, list) or len(names) != official.num_classes
      or not all(isinstance(name, (bytes, str)) for name in names)):
    raise _bad(path, 'has a member %s without %d %s'
               % (official.meta, official.num_classes, official.names))
  return tuple(_text(name) for name in names)


def _read_batch(path, name, official, batch):
  """Images uint8 [n, 32, 32, 3], labels int64 [n], superclasses [n] or None."""
  def bad(what):
    return _bad(path, 'has a member %s %s' % (name, what))

  pixels = batch.get('data')
  if (not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8
      or pixels.ndim != 2 or not len(pixels) or pixels.shape[1] != _ROW):
    raise bad('without images, uint8 [n, %d]' % _ROW)
  def column(key, bound):
    values = batch.get(key)
    if not isinstance(values, list) or len(values) != len(pixels):
      raise bad('without %d %s' % (len(pixels), key))
    # A bool is an int, but not a label.
    if not all(type(x) is int and 0 <= x < bound for x in values):  # pylint: disable=unidiomatic-typecheck
      raise bad('with %s other than 0 to %d' % (key, bound - 1))
    return np.array(values, dtype=np.int64)

  labels = column(official.labels, official.num_classes)
  coarse = None
  if official.coarse:
    coarse = column(official.coarse, _NUM_SUPERCLASSES)
  images = pixels.reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE).transpose(0, 2, 3, 1)
  return np.ascontiguousarray(images), labels, coarse


def _superclass(path, num_classes, labels, coarse):
  """The one superclass of every class: int64 [K]."""
  superclass = np.full(num_classes, -1, dtype=np.int64)
  superclass[labels] = coarse
  if np.any(superclass < 0):
    raise _bad(path, 'has no image of class %d' % np.argmin(superclass))
  if np.any(superclass[labels] != coarse):
    raise _bad(path, 'puts a class into more than one superclass')
  return superclass


# Handwritten digits.

_DIGITS_TRAIN = 1397


def digits():
  """1,797 handwritten digits of 13 people, which need no download.

  Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits,
  UCI Machine Learning Repository, doi 10.24432/C50P49, licence CC BY 4.0; its
  test set, in the order in which scikit-learn's `load_digits` gives it. Changed
  here: 8x8 grey values 0..16 become 32x32 RGB 0..255 by bilinear interpolation,
  in whole numbers, so that the pixels are the same on every machine.

  The first 1,397 are for training and the last 400 for testing, in that order:
  neighbours tend to be by the same hand, so a random split would be easier.

  Returns:
    An `ImageSet` with K = 10 and no superclasses.
  """
  with np.load(digits_path(), allow_pickle=False) as arrays:
    small, labels = arrays['images'], arrays['labels'].astype(np.int64)
  # Output pixel i lies at (i + 1/2) / 4 - 1/2 between the inputs, in eighths.
  eighths = np.clip(2 * np.arange(IMAGE_SIZE) - 3, 0, 8 * 7)
  left = eighths // 8
  right = np.minimum(left + 1, 7)
  share = eighths % 8
  def stretch(images):  # [N, 8, W] -> [N, 32, W], times 8
    return (images[:, left] * (8 - share)[:, None]
            + images[:, right] * share[:, None])
  large = stretch(small.astype(np.int64)).transpose(0, 2, 1)
  large = stretch(large).transpose(0, 2, 1)  # 0 .. 16 * 8 * 8
  grey = ((large * 255 + 512) // 1024).astype(np.uint8)
  images = np.repeat(grey[..., None], 3, axis=3)  # [N, 32, 32, 3]
  return ImageSet(
      train_images=images[:_DIGITS_TRAIN], train_labels=labels[:_DIGITS_TRAIN],
      test_images=images[_DIGITS_TRAIN:], test_labels=labels[_DIGITS_TRAIN:],
      superclass=None, class_names=tuple('0123456789'))


def digits_path():
  """Where the embedded digits lie."""
  return os.path.join(os.path.dirname(os.path.abspath(__file__)), 'digits.npz')
