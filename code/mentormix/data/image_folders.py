"""Custom images, in one folder for each class.

    DIR/train/<class>/<any name>     PNG or JPEG, of any size and mode
    DIR/val/<class>/<any name>

Classes are numbered in the order of the sorted names of train's folders; images
are in the order of their sorted paths. Hidden files, whose names start with a
dot, are ignored; any other file that is not an image is an error.

An image is rotated as its EXIF orientation says, put on black where it is
transparent, converted to RGB of 8 bits, and resized to a square, bicubic with
antialiasing, whatever its proportions.
"""
import hashlib
import io
import os
import typing
import warnings

import numpy as np
import tqdm
from PIL import Image
from PIL import ImageOps

from mentormix import files
from mentormix.data import image_set
from mentormix.messages import RunError
from mentormix.messages import UserError

_SPLITS = ('train', 'val')
_FORMATS = ('PNG', 'JPEG')
_MAX_BYTES = 100 << 20  # Of one file.


class Folder(typing.NamedTuple):
  """The content of a folder; nothing is decoded yet."""
  path: str  # Of the folder.
  md5: str  # Of the paths and bytes of all images.
  class_names: typing.Tuple[str, ...]  # K strings.
  train: list  # Pairs (path relative to the folder, with /; label), sorted.
  val: list  # The same.


def find(path):
  """Looks through a folder.

  Args:
    path: with train and val in it.

  Returns:
    A `Folder`.

  Raises:
    UserError: it does not have the layout above; the line names the path.
  """
  flag = f'--image_dir={path}'
  for split in _SPLITS:
    if not os.path.isdir(os.path.join(path, split)):
      raise UserError(f'{flag} has no folder {split}; it needs '
                      f'train/<class>/* and val/<class>/*')
  class_names = _names(os.path.join(path, 'train'))
  if len(class_names) < 2:
    raise UserError(f'{flag}/train holds {len(class_names)} classes, and it '
                    f'needs two or more: one folder for each')
  for name in _names(os.path.join(path, 'val')):
    if name not in class_names:
      raise UserError(
          f'{flag}/val holds {name}, which is not a class of train')
  train, val = (_find_split(path, split, class_names) for split in _SPLITS)
  digest = hashlib.md5()
  for relative, _ in train + val:
    # A checksum has a fixed length, so no file can pass for two.
    digest.update(relative.encode('utf-8') + b'\0' + files.md5_of(
        os.path.join(path, relative)).encode('ascii'))
  return Folder(path, digest.hexdigest(), class_names, train, val)


def _find_split(path, split, class_names):
  """The images of a split: sorted pairs (relative path, label)."""
  found = []
  for name in _names(os.path.join(path, split)):
    folder = os.path.join(path, split, name)
    if not os.path.isdir(folder):
      raise UserError(f'{folder} is not a folder; {split} holds one folder for '
                      f'each class')
    images = _names(folder)
    if not images:
      raise UserError(f'{folder} holds no image; put some in, or remove it')
    for image in images:
      if not os.path.isfile(os.path.join(folder, image)):
        raise UserError(f'{os.path.join(folder, image)} is not a file; images '
                        f'are directly in the folder of their class')
      found.append((f'{split}/{name}/{image}', class_names.index(name)))
  return found


def _names(folder):
  """The sorted names in a folder, without hidden ones: a tuple."""
  try:
    names = sorted(n for n in os.listdir(folder) if not n.startswith('.'))
    for name in names:
      name.encode('utf-8')
  except OSError as error:
    raise UserError(f'{folder} cannot be read ({error.strerror})')
  except UnicodeEncodeError:
    raise UserError(f'{folder} holds {name!r}, which is not a name in UTF-8; '
                    f'rename it')
  return tuple(names)


def read(folder, image_size):
  """Decodes all images.

  Needs N * image_size * image_size * 3 bytes of memory, and those of one
  image at its original size.

  Args:
    folder: a `Folder`.
    image_size: height and width to resize to, in pixels.

  Returns:
    An `ImageSet`.

  Raises:
    UserError: a file is not an image, is damaged or too large; the line names
      it.
    RunError: the images do not fit into memory.
  """
  images, labels, ids = {}, {}, {}
  for split in _SPLITS:
    pairs = getattr(folder, split)
    ids[split] = [relative for relative, _ in pairs]
    labels[split] = np.array([label for _, label in pairs], np.int64)
    try:
      images[split] = np.empty([len(pairs), image_size, image_size, 3],
                               np.uint8)
    except MemoryError:
      raise RunError(f'--image_dir={folder.path}: {len(pairs)} images do not '
                     f'fit into memory; choose a smaller --image_size')
    for index, relative in enumerate(tqdm.tqdm(
        ids[split], desc=folder.path, unit='image', leave=False,
        disable=None)):
      images[split][index] = _decode(
          os.path.join(folder.path, relative), image_size)
  return image_set.ImageSet(
      train_images=images['train'], train_labels=labels['train'],
      test_images=images['val'], test_labels=labels['val'],
      class_names=folder.class_names, train_ids=ids['train'],
      test_ids=ids['val'])


def _decode(path, image_size):
  """The image in a file, uint8 [image_size, image_size, 3]."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      # A small file can claim to be a huge image; Pillow knows a limit.
      warnings.simplefilter('error', Image.DecompressionBombWarning)
      # From memory: for a file, Pillow allocates whatever size it claims.
      data = io.BytesIO(files.contents(path, _MAX_BYTES))
      with Image.open(data, formats=_FORMATS) as image:
        image = _to_rgb(ImageOps.exif_transpose(image))
        return np.asarray(image.resize([image_size, image_size], Image.BICUBIC))
  except Exception as error:  # Damaged data can cause any error.
    reason = str(error) or type(error).__name__
    raise UserError(f'{path} cannot be read as PNG or JPEG ({reason}); replace '
                    f'or remove it')


def _to_rgb(image):
  """A Pillow image of any mode as RGB, on black where it is transparent."""
  if image.mode.startswith('I'):  # 16 bits of grey.
    return Image.fromarray(
        (np.asarray(image) >> 8).astype(np.uint8)).convert('RGB')
  if 'transparency' not in image.info and image.mode[-1].upper() != 'A':
    return image.convert('RGB')
  image = image.convert('RGBA')
  black = Image.new('RGBA', image.size, (0, 0, 0, 255))
  return Image.alpha_composite(black, image).convert('RGB')
