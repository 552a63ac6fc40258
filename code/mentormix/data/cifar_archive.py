"""Clean images and labels: the official CIFAR archives and embedded digits.

    find:      locate(...)            -> Source
    download:  download(url, path, md5)
    read:      read(path, 'cifar10')  -> ImageSet
               digits()               -> ImageSet

An archive may come from anywhere, so its pickles are read by pickles.py, which
runs nothing, and its members are read from a bounded stream, by base name.
Nothing is extracted to disk.
"""
import gzip
import posixpath
import tarfile
import typing

import numpy as np

from mentormix.data import download
from mentormix.data import image_set
from mentormix.data import plain_pickles
from mentormix.messages import RunError
from mentormix.messages import UserError

_ROW = 3 * image_set.IMAGE_SIZE * image_set.IMAGE_SIZE  # Bytes of an image in an archive.

# Bounds on what is read; the official archives have 177 MB in all.
_MAX_MEMBER = 256 << 20
_MAX_ARCHIVE = 384 << 20
_MAX_HEADERS = 1 << 16  # Everything but the contents of the members.


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
        num_classes=image_set.NUM_CLASSES['cifar10'],
        train=tuple(f'data_batch_{batch}' for batch in range(1, 6)),
        test='test_batch', meta='batches.meta',
        labels='labels', coarse=None, names='label_names'),
    'cifar100': Official(
        url=_URL + 'cifar-100-python.tar.gz',
        md5='eb9058c3a382ffc7106e4002c42a8d85',
        num_classes=image_set.NUM_CLASSES['cifar100'],
        train=('train',), test='test', meta='meta',
        labels='fine_labels', coarse='coarse_labels',
        names='fine_label_names'),
}


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
  return image_set.ImageSet(
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
  download.check_file(path)
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
    content = plain_pickles.load(data)
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
  images = pixels.reshape(-1, 3, image_set.IMAGE_SIZE, image_set.IMAGE_SIZE).transpose(0, 2, 3, 1)
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
