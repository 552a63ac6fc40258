"""The official CIFAR archives, as images and labels in memory.

An archive may come from anywhere: plain_pickles.py reads its pickles without
running them, its size is bounded, and nothing is extracted to disk.
"""
import gzip
import io
import posixpath
import tarfile
import typing

import numpy as np

from mentormix import file_kinds
from mentormix.data import image_set
from mentormix.data import plain_pickles
from mentormix.messages import UserError

_MAX_BYTES = 384 << 20  # Unpacked; the official archives have 186 million.
_NUM_SUPERCLASSES = 20
_URL = 'https://www.cs.toronto.edu/~kriz/'


class Official(typing.NamedTuple):
  """An official archive and the names within it."""
  url: str
  md5: str
  train: tuple  # Members with training images, in order.
  test: str  # Member with the test images.
  meta: str  # Member with the names of the classes.
  labels: str  # Key of the labels in a member with images.
  coarse: typing.Optional[str]  # Key of the superclasses; None without any.
  names: str  # Key of the class names in `meta`.


OFFICIAL = {
    'cifar10': Official(
        url=_URL + 'cifar-10-python.tar.gz',
        md5='c58f30108f718f92721af3b95e74349a',
        train=tuple(f'data_batch_{batch}' for batch in range(1, 6)),
        test='test_batch', meta='batches.meta',
        labels='labels', coarse=None, names='label_names'),
    'cifar100': Official(
        url=_URL + 'cifar-100-python.tar.gz',
        md5='eb9058c3a382ffc7106e4002c42a8d85',
        train=('train',), test='test', meta='meta', labels='fine_labels',
        coarse='coarse_labels', names='fine_label_names'),
}


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
  try:
    found = _members(path)
  except Exception as error:  # Whatever gzip and tarfile raise.
    kind = file_kinds.explain(path).replace(', it is a gzip file', '')
    raise _bad(path, 'is not a .tar.gz archive, or is truncated or damaged'
               f'{kind} ({error or type(error).__name__})')
  for other in set(OFFICIAL) - {dataset_name}:
    if OFFICIAL[other].test in found:
      raise UserError(f'--archive={path} holds {other}, not --dataset_name='
                      f'{dataset_name}; change one of the two')
  official = OFFICIAL[dataset_name]
  for ending, version in (('.bin', 'binary'), ('.mat', 'MATLAB')):
    if official.test not in found and any(x.endswith(ending) for x in found):
      raise UserError(f'--archive={path} is the {version} version of CIFAR; '
                      'get the Python version, '
                      f'{posixpath.basename(official.url)}')
  num_classes = image_set.NUM_CLASSES[dataset_name]
  batches = []
  for name in official.train + (official.test, official.meta):
    try:
      content = plain_pickles.load(found.pop(name))
      if name == official.meta:
        names = content[official.names]
        # Python 2 wrote bytes where Python 3 writes str.
        names = tuple(each.decode('latin1') if isinstance(each, bytes)
                      else each for each in names)
        if len(names) != num_classes:
          raise ValueError(f'it names {len(names)} classes')
      else:
        batches.append(_batch(official, num_classes, content))
    except (KeyError, TypeError, ValueError) as error:
      raise _bad(path, f'has no valid {name} of {dataset_name} ({error})')
  images, labels, coarse = zip(*batches)
  return image_set.ImageSet(
      train_images=np.concatenate(images[:-1]),
      train_labels=np.concatenate(labels[:-1]),
      test_images=images[-1], test_labels=labels[-1], class_names=names,
      superclass=(_superclass(path, num_classes, np.concatenate(labels),
                              np.concatenate(coarse))
                  if official.coarse else None))


def _bad(path, what):
  return UserError(f'{path} {what}; get it again, or pass another --archive')


def _members(path):
  """What an archive holds: base name -> bytes of each plain file."""
  with gzip.open(path) as stream:
    data = stream.read(_MAX_BYTES + 1)  # Checks the checksum at the end.
  if len(data) > _MAX_BYTES:
    raise ValueError('it holds too much data')
  with tarfile.open(fileobj=io.BytesIO(data), mode='r:') as tar:
    return {posixpath.basename(member.name): tar.extractfile(member).read()
            for member in tar if member.isreg() and not member.issparse()}


def _batch(official, num_classes, batch):
  """Images uint8 [n, 32, 32, 3], labels int64 [n], superclasses [n] or None."""
  size = image_set.IMAGE_SIZE
  pixels = np.asarray(batch['data'])
  if pixels.dtype != np.uint8 or pixels.shape[1:] != (3 * size * size,):
    raise ValueError('it has no images, uint8 [n, 3072]')

  def column(key, bound):
    values = np.asarray(batch[key])
    if values.dtype.kind != 'i' or values.shape != pixels.shape[:1]:
      raise ValueError(f'it has no {len(pixels)} {key}')
    if not np.all((values >= 0) & (values < bound)):
      raise ValueError(f'it has {key} other than 0 to {bound - 1}')
    return values.astype(np.int64)

  images = pixels.reshape(-1, 3, size, size).transpose(0, 2, 3, 1)
  return (np.ascontiguousarray(images), column(official.labels, num_classes),
          official.coarse and column(official.coarse, _NUM_SUPERCLASSES))


def _superclass(path, num_classes, labels, coarse):
  """The one superclass of every class: int64 [K]."""
  superclass = np.full(num_classes, -1, dtype=np.int64)
  superclass[labels] = coarse
  if np.any(superclass < 0) or np.any(superclass[labels] != coarse):
    raise _bad(path, 'does not have every class in one superclass')
  return superclass
