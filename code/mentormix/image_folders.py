"""Images of one's own, in one folder per class.

    DIR/train/<class>/<any name>     PNG or JPEG, of any size and mode
    DIR/val/<class>/<any name>

Classes are numbered in the order of the sorted names of train's folders; images
are in the order of their sorted paths. Hidden files, whose names start with a
dot, are passed over; anything else that is not an image is an error.

An image is turned as its EXIF orientation says, transparent parts become black,
it becomes RGB of 8 bits, and it is resized, bicubic with antialiasing, to a
square whatever its proportions.
"""
import collections
import hashlib
import io
import os
import warnings

import numpy as np
import tqdm
from PIL import Image
from PIL import ImageOps

from mentormix import archives
from mentormix import files
from mentormix.command import RunError
from mentormix.command import UserError

_SPLITS = ('train', 'val')
_FORMATS = ('PNG', 'JPEG')
_MAX_BYTES = 100 << 20  # Of one file.
_MAX_PIXELS = 50 * 1000 * 1000  # Of one image; a small file can claim more.


class Folder(collections.namedtuple(
    'Folder', 'path md5 class_names train val')):
  """What a folder holds; nothing is decoded yet.

  Attributes:
    path: of the folder.
    md5: of the paths and bytes of all images.
    class_names: K strings.
    train: pairs (path relative to the folder, with /; label), sorted.
    val: the same.
  """
  __slots__ = ()


def find(path):
  """Looks through a folder.

  Args:
    path: with train and val in it.

  Returns:
    A `Folder`.

  Raises:
    UserError: it is not laid out as said above; the line names the path.
  """
  flag = '--image_dir=' + path
  for split in _SPLITS:
    if not os.path.isdir(os.path.join(path, split)):
      raise UserError('%s has no folder %s; it takes train/<class>/* and '
                      'val/<class>/*' % (flag, split))
  class_names = _names(os.path.join(path, 'train'))
  if len(class_names) < 2:
    raise UserError('%s/train holds %d classes, and it takes two: one folder '
                    'for each' % (flag, len(class_names)))
  for name in _names(os.path.join(path, 'val')):
    if name not in class_names:
      raise UserError('%s/val holds %s, which is not a class of train'
                      % (flag, name))
  train, val = (_find_split(path, split, class_names) for split in _SPLITS)
  digest = hashlib.md5()
  for relative, _ in train + val:
    digest.update(relative.encode('utf-8') + b'\0')
    # Of one length each, so that no file can pass for two.
    digest.update(archives.md5_of(os.path.join(path, relative)).encode('ascii'))
  return Folder(path, digest.hexdigest(), class_names, train, val)


def _find_split(path, split, class_names):
  """The images of a split: sorted pairs (relative path, label)."""
  found = []
  for name in _names(os.path.join(path, split)):
    folder = os.path.join(path, split, name)
    if not os.path.isdir(folder):
      raise UserError('%s is not a folder; %s holds one folder for each class'
                      % (folder, split))
    images = _names(folder)
    if not images:
      raise UserError('%s holds no image; put some in, or remove it' % folder)
    for image in images:
      file = os.path.join(folder, image)
      if not os.path.isfile(file) or not os.access(file, os.R_OK):
        raise UserError('%s is not a file that can be read; images are '
                        'directly in the folder of their class' % file)
      found.append(('/'.join((split, name, image)), class_names.index(name)))
  return found


def _names(folder):
  """The sorted names in a folder, without hidden ones: a tuple."""
  try:
    names = sorted(n for n in os.listdir(folder) if not n.startswith('.'))
  except OSError as error:
    raise UserError('%s cannot be read (%s)' % (folder, error.strerror))
  for name in names:
    try:
      name.encode('utf-8')
    except UnicodeEncodeError:
      raise UserError('%s holds %r, which is not a name in UTF-8; rename it'
                      % (folder, name))
  return tuple(names)


def read(folder, image_size):
  """Decodes all images.

  Takes memory for N * image_size * image_size * 3 bytes, and for one image as
  it is in its file.

  Args:
    folder: a `Folder`.
    image_size: height and width to resize to, in pixels.

  Returns:
    An `archives.ImageSet`.

  Raises:
    UserError: a file is not an image, is damaged or too large; the line names
      it.
    RunError: the images do not fit into memory.
  """
  splits = []
  for pairs in (folder.train, folder.val):
    try:
      images = np.empty([len(pairs), image_size, image_size, 3], np.uint8)
    except MemoryError:
      raise RunError('--image_dir=%s: %d images do not fit into memory; take a '
                     'smaller --image_size' % (folder.path, len(pairs)))
    for index, (relative, _) in enumerate(tqdm.tqdm(
        pairs, desc=folder.path, unit='image', leave=False, disable=None)):
      images[index] = _decode(os.path.join(folder.path, relative), image_size)
    splits.append((images, np.array([label for _, label in pairs], np.int64),
                   [relative for relative, _ in pairs]))
  (train_images, train_labels, train_ids), (
      test_images, test_labels, test_ids) = splits
  return archives.ImageSet(
      train_images=train_images, train_labels=train_labels,
      test_images=test_images, test_labels=test_labels, superclass=None,
      class_names=folder.class_names, train_ids=train_ids, test_ids=test_ids)


def _decode(path, image_size):
  """The image in a file, uint8 [image_size, image_size, 3]."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # What is too large is refused below.
      # From memory: of a file, Pillow reserves all that it claims to have.
      data = io.BytesIO(files.contents(path, _MAX_BYTES))
      with Image.open(data, formats=_FORMATS) as image:
        if image.width * image.height > _MAX_PIXELS:
          raise Image.DecompressionBombError
        image = _to_rgb(ImageOps.exif_transpose(image))
        return np.asarray(image.resize([image_size, image_size], Image.BICUBIC))
  except Image.DecompressionBombError:
    raise UserError('%s has more than %d million pixels; make it smaller'
                    % (path, _MAX_PIXELS // 1000000))
  except Exception as error:  # The bytes are a stranger's: anything may fail.
    raise UserError('%s cannot be read as PNG or JPEG (%s); mend or remove it'
                    % (path, str(error) or type(error).__name__))


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
