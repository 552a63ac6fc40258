"""Clean images and labels: the official CIFAR archives and embedded digits.

    find:      locate(...)            -> Source
    download:  download(url, path, md5)
    read:      read(path, 'cifar10')  -> ImageSet
               digits()               -> ImageSet

An archive may come from anywhere, so its pickles are read by pickles.py, which
runs nothing, and its members are read from a bounded stream, by base name.
Nothing is extracted to disk.
"""
import errno
import gzip
import os
import posixpath
import tarfile
import time
import typing
import urllib.parse

import numpy as np
import tqdm

from mentormix import files
from mentormix import pickles
from mentormix.command import RunError
from mentormix.command import UserError

NUM_CLASSES = {'cifar10': 10, 'cifar100': 100, 'digits': 10}  # By data set.
IMAGE_SIZE = 32
PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_ROW = 3 * IMAGE_SIZE * IMAGE_SIZE  # Bytes of an image in an archive.

# Bounds on what is read; the official archives have 177 MB in all.
_MAX_MEMBER = 256 << 20
_MAX_ARCHIVE = 384 << 20
_MAX_HEADERS = 1 << 16  # Everything but the contents of the members.

_MAX_NAME = 240  # File systems take 255 bytes; `files.replaced` adds some.
_TIMEOUT = 30  # Seconds without a byte.


class ImageSet(typing.NamedTuple):
  """A data set in memory, in the order of its source."""
  train_images: np.ndarray  # uint8 [N, H, W, 3].
  train_labels: np.ndarray  # int64 [N].
  test_images: np.ndarray  # uint8 [M, H, W, 3].
  test_labels: np.ndarray  # int64 [M].
  superclass: typing.Optional[np.ndarray]  # int64 [K], of each class; or None.
  class_names: typing.Sequence[str]  # K names.
  train_ids: typing.Optional[list] = None  # N strings; None: the index.
  test_ids: typing.Optional[list] = None  # M strings; None: the index.


class Official(typing.NamedTuple):
  """An official archive and the names within it."""
  url: str
  md5: str
  num_classes: int
  train: tuple  # Members with training images, in order.
  test: str  # Member with the test images.
  meta: str  # Member with the names of the classes.
  labels: str  # Key of the labels in a member with images.
  coarse: typing.Optional[str]  # Key of the superclasses; None without any.
  names: str  # Key of the class names in `meta`.


_NUM_SUPERCLASSES = 20
_URL = 'https://www.cs.toronto.edu/~kriz/'

OFFICIAL = {
    'cifar10': Official(
        url=_URL + 'cifar-10-python.tar.gz',
        md5='c58f30108f718f92721af3b95e74349a',
        num_classes=NUM_CLASSES['cifar10'],
        train=tuple(f'data_batch_{batch}' for batch in range(1, 6)),
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
    raise UserError(f'--archive={path} does not exist; leave --archive out to '
                    'download the official archive')
  if not os.path.isfile(path):
    raise UserError(f'--archive={path} is not a file; pass the .tar.gz archive '
                    'as it was downloaded')
  if not os.access(path, os.R_OK):
    raise UserError(f'--archive={path} is not readable; change its permissions')


# Finding and downloading archives.


class Source(typing.NamedTuple):
  """Where the images come from."""
  path: str  # Of the file.
  md5: str  # Of the file.
  url: typing.Optional[str]  # To download it from; None if it is there.


def locate(dataset_name, archive, md5, directory):
  """Finds where the images come from; downloads nothing.

  Args:
    dataset_name: a key of NUM_CLASSES.
    archive: a file or a URL; None for the official URL.
    md5: the checksum that the file must have; None for the official one, which
      only a local file may differ from.
    directory: where downloads go.

  Returns:
    A `Source`.

  Raises:
    UserError: the file or the URL is bad, or the checksum is wrong.
  """
  if dataset_name == 'digits':
    return Source(digits_path(), files.md5_of(digits_path()), None)
  official = OFFICIAL[dataset_name]
  archive = archive or official.url
  if '://' not in archive:
    return _local(archive, md5, official)

  try:
    url = urllib.parse.urlparse(archive)
    name = os.path.basename(url.path)
    valid = url.scheme in ('http', 'https') and url.netloc and name
  except ValueError:
    valid = False
  if not valid:
    raise UserError(f'--archive={archive} is neither a file nor the http or '
                    'https URL of a file')
  if len(os.fsencode(name)) > _MAX_NAME:
    raise UserError(f'--archive={archive} names a file of more than '
                    f'{_MAX_NAME} bytes; get it elsewhere and pass the file')
  path = os.path.join(directory, name)
  md5 = md5 or official.md5
  if not os.path.exists(path):
    return Source(path, md5, archive)
  check_file(path)
  found = files.md5_of(path)
  if found != md5:
    raise UserError(f'{path} exists but has md5 {found} instead of {md5}; '
                    'delete it to download it again, or pass '
                    f'--archive={path} to use it as it is')
  print(f'Using {path}')
  return Source(path, md5, None)


def _local(path, md5, official):
  """The `Source` of a local file."""
  check_file(path)
  found = files.md5_of(path)
  if md5 and found != md5:
    raise UserError(f'--archive={path} has md5 {found}, not --md5={md5}; get '
                    'it again, or correct --md5')
  if not md5 and found != official.md5:
    print(f'Note: {path} is not the official archive (md5 {found} instead of '
          f'{official.md5})')
  return Source(path, found, None)


def download(url, path, md5, delays=(1, 2, 4, 8)):
  """Downloads `url` to `path`, which exists only once it is complete.

  Args:
    url: http or https.
    path: where the file goes; its directory is made if need be.
    md5: the checksum that the file must have.
    delays: seconds to wait before each further attempt.

  Raises:
    UserError: the server or the network fails every time, the file cannot be
      written, or the checksum is wrong.
    RunError: the disk is full.
  """
  from requests import exceptions  # pylint: disable=g-import-not-at-top
  print(f'Downloading {url} to {path}', flush=True)
  for delay in tuple(delays) + (None,):
    try:
      os.makedirs(os.path.dirname(path), exist_ok=True)
      return _fetch(url, path, md5)
    except exceptions.HTTPError as error:
      status = error.response.status_code
      problem = f'the server answers {status} {error.response.reason}'
      if 400 <= status < 500 and status not in (408, 429):
        break
    except (exceptions.RequestException, ValueError) as error:
      problem = error
      while problem.__context__:  # The others only say where it happened.
        problem = problem.__context__
    except OSError as error:
      if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise RunError(f'{path}: the disk is full; free some space and run the '
                       'command again')
      raise UserError(f'cannot write {path} ({error.strerror}); choose a '
                      'writable directory')
    if delay is not None:
      time.sleep(delay)
  raise UserError(f'cannot download {url} ({problem}); check the network, or '
                  'get the file elsewhere and pass it with --archive=FILE')


def _fetch(url, path, md5):
  """Downloads a file once.

  Raises:
    UserError: the checksum is wrong.
    OSError: the network (a RequestException) or the disk failed.
  """
  import pooch  # Slow to load.  pylint: disable=g-import-not-at-top
  with files.replaced(path, 'wb') as stream:
    # Without a total, a tqdm bar has no truth value; pooch sets the right one.
    with tqdm.tqdm(total=1, unit='B', unit_scale=True, disable=None,
                   desc=os.path.basename(path)) as bar:
      pooch.HTTPDownloader(
          progressbar=bar, chunk_size=1 << 16, timeout=_TIMEOUT,
          headers={'Accept-Encoding': 'identity'})(url, stream, None)
    found = files.md5_of(stream.name)
    if found != md5:
      raise UserError(
          f'{url} has md5 {found} instead of {md5} and was discarded; try '
          'again later, or get the file elsewhere and pass it with '
          '--archive=FILE')


# Reading archives.


def read(path, dataset_name):
  """Reads an archive in the official "python version" format.

  The number of images is whatever the archive holds.

  Args:
    path: a .tar.gz file.
    dataset_name: cifar10 or cifar100.

  Returns:
    An `ImageSet`.

  Raises:
    UserError: the file is not such an archive or is damaged; the line names it.
  """
  official = OFFICIAL[dataset_name]
  members = _read_members(path, dataset_name)
  parts = {name: _load(path, name, members.pop(name))
           for name in sorted(members)}

  class_names = _class_names(path, official, parts[official.meta])
  batches = [_read_batch(path, name, official, parts.pop(name))
             for name in official.train + (official.test,)]
  images, labels, coarse = zip(*batches)
  superclass = None
  if official.coarse:
    superclass = _superclass(path, official.num_classes,
                             np.concatenate(labels), np.concatenate(coarse))
  return ImageSet(
      train_images=np.concatenate(images[:-1]),
      train_labels=np.concatenate(labels[:-1]),
      test_images=images[-1], test_labels=labels[-1],
      superclass=superclass, class_names=class_names)


def _bad(path, what):
  return UserError(f'{path} {what}; get it again, or pass another --archive')


class _Bounded:
  """A stream that raises ValueError once it has given more than it may.

  Attributes:
    left: how many more bytes it may give.
  """

  def __init__(self, stream, left):
    self._stream = stream
    self.left = left

  def read(self, size):
    data = self._stream.read(size)
    self.left -= len(data)
    if self.left < 0:
      raise ValueError('it holds too much data')
    return data


def _read_members(path, dataset_name):
  """The contents of the wanted members, by base name: {str: bytes}."""
  official = OFFICIAL[dataset_name]
  wanted = official.train + (official.test, official.meta)
  check_file(path)
  with open(path, 'rb') as raw:
    head = raw.read(16)
    if not head.startswith(b'\x1f\x8b'):
      raise _bad(path, f'is not a .tar.gz archive (it starts with {head})')
    raw.seek(0)
    try:
      found = {}
      for name, data in _files(raw):
        if name in found and name in wanted:
          raise ValueError(f'it has two members {name}')
        found[name] = data
    except MemoryError:
      raise RunError(f'{path} does not fit into memory')
    except Exception as error:  # Whatever gzip and tarfile raise.
      raise _bad(path, f'is truncated or damaged ({error})')
  for name in wanted:
    if name in found:
      continue
    for other in sorted(OFFICIAL):
      if other != dataset_name and OFFICIAL[other].test in found:
        raise UserError(f'--archive={path} holds {other}, not '
                        f'--dataset_name={dataset_name}; change one of the two')
    raise _bad(path, f'lacks {name} of {dataset_name}')
  return {name: found[name] for name in wanted}


def _files(raw):
  """Yields (base name, bytes) of each regular file in a .tar.gz stream."""
  total = 0
  with gzip.GzipFile(fileobj=raw) as unzipped:
    stream = _Bounded(unzipped, _MAX_HEADERS)
    with tarfile.open(fileobj=stream, mode='r|') as tar:
      for member in tar:
        if not member.isreg() or member.issparse():
          continue
        name = posixpath.basename(member.name)
        total += member.size
        if not 0 <= member.size <= _MAX_MEMBER or total > _MAX_ARCHIVE:
          raise ValueError(f'with member {name} it holds too much data')
        stream.left += member.size
        data = tar.extractfile(member).read()
        if len(data) < member.size:
          raise ValueError(f'member {name} ends too early')
        yield name, data
    while stream.read(1 << 16):  # To the end, where the checksum is.
      pass


def _load(path, name, data):
  """The dictionary that a member holds, with its keys as str."""
  try:
    content = pickles.load(data)
  except MemoryError:
    raise RunError(f'{path}: {name} does not fit into memory')
  except Exception as error:  # Untrusted bytes can raise anything.
    raise _bad(path, f'has a member {name} that is not a plain CIFAR pickle '
               f'({error or type(error).__name__})')
  if not isinstance(content, dict):
    raise _bad(path, f'has a member {name} that is not a dictionary')
  return {_text(key): value for key, value in content.items()}


def _text(string):
  """Python 2 wrote bytes where Python 3 writes str."""
  return string.decode('latin1') if isinstance(string, bytes) else string


def _class_names(path, official, meta):
  """The K names in the order of the labels."""
  names = meta.get(official.names)
  if (not isinstance(names, list) or len(names) != official.num_classes
      or not all(isinstance(name, (bytes, str)) for name in names)):
    raise _bad(path, f'has a member {official.meta} without '
               f'{official.num_classes} {official.names}')
  return tuple(_text(name) for name in names)


def _read_batch(path, name, official, batch):
  """Images uint8 [n, 32, 32, 3], labels int64 [n], superclasses [n] or None."""
  def column(key, bound):
    values = batch.get(key)
    if not isinstance(values, list) or len(values) != len(pixels):
      raise _bad(path, f'has a member {name} without {len(pixels)} {key}')
    # A bool is an int, but not a label.
    if not all(type(x) is int and 0 <= x < bound for x in values):  # pylint: disable=unidiomatic-typecheck
      raise _bad(path, f'has a member {name} with {key} other than 0 to '
                 f'{bound - 1}')
    return np.array(values, dtype=np.int64)

  pixels = batch.get('data')
  if (not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8
      or pixels.ndim != 2 or not len(pixels) or pixels.shape[1] != _ROW):
    raise _bad(path, f'has a member {name} without images, uint8 [n, {_ROW}]')
  labels = column(official.labels, official.num_classes)
  coarse = official.coarse and column(official.coarse, _NUM_SUPERCLASSES)
  images = pixels.reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE).transpose(0, 2, 3, 1)
  return np.ascontiguousarray(images), labels, coarse


def _superclass(path, num_classes, labels, coarse):
  """The one superclass of every class: int64 [K]."""
  superclass = np.full(num_classes, -1, dtype=np.int64)
  superclass[labels] = coarse
  if np.any(superclass < 0):
    raise _bad(path, f'has no image of class {np.argmin(superclass)}')
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
