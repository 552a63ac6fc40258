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

import numpy as np
from PIL import Image
from PIL import ImageOps

from mentormix import files
from mentormix.data import image_set
from mentormix.messages import UserError

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
  digest = hashlib.md5()
  found = {'train': [], 'val': []}
  try:
    class_names = _names(path, 'train')
    for split, images in found.items():
      for name in _names(path, split):
        if name not in class_names:
          raise ValueError(f'{split}/{name} is not a class of train')
        images += [(f'{split}/{name}/{image}', class_names.index(name))
                   for image in _names(path, split, name)]
      for relative, _ in images:
        # A checksum has a fixed length, so no file can pass for two.
        digest.update(relative.encode('utf-8') + b'\0' + files.md5_of(
            os.path.join(path, relative)).encode('ascii'))
  except (OSError, ValueError) as error:
    raise UserError(f'--image_dir={path} cannot be read ({error}); it needs '
                    'train/<class>/* and val/<class>/*, with the same classes')
  labels = {label for _, label in found['train']}
  if not len(class_names) == len(labels) > 1 or not found['val']:
    raise UserError(f'--image_dir={path} needs two classes or more, and images '
                    'in each folder')
  return Folder(path, digest.hexdigest(), class_names, **found)


def _names(*folder):
  """The sorted names in a folder, without hidden ones: a tuple."""
  names = os.listdir(os.path.join(*folder))
  return tuple(sorted(name for name in names if not name.startswith('.')))


def read(folder, image_size):
  """Decodes all images.

  Args:
    folder: a `Folder`.
    image_size: height and width to resize to, in pixels.

  Returns:
    An `ImageSet`.

  Raises:
    UserError: a file is not an image, is damaged or too large; the line names
      it.
  """
  found = {}
  for name, pairs in (('train', folder.train), ('test', folder.val)):
    ids, labels = map(list, zip(*pairs))
    images = np.empty([len(ids), image_size, image_size, 3], np.uint8)
    for index, relative in enumerate(ids):
      images[index] = _decode(os.path.join(folder.path, relative), image_size)
    found.update({f'{name}_ids': ids, f'{name}_images': images,
                  f'{name}_labels': np.array(labels, np.int64)})
  return image_set.ImageSet(class_names=folder.class_names, **found)


def _decode(path, image_size):
  """The image in a file, uint8 [image_size, image_size, 3]."""
  try:
    # From memory: for a file, Pillow allocates whatever size it claims.
    data = io.BytesIO(files.contents(path, _MAX_BYTES))
    with Image.open(data, formats=('PNG', 'JPEG')) as image:
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
