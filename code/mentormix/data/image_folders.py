"""Custom images, in one folder for each class.

    DIR/train/<class>/<any name>     PNG, JPEG, WebP, BMP, GIF, TIFF or PPM
    DIR/val/<class>/<any name>

or, for a training set without a test set, DIR/<class>/<any name>. Classes are
numbered in the order of the sorted names of the training folders, by
number if all names are numbers; images are in the order of their classes, then
of their sorted names. Hidden files, whose names start with a dot, are ignored,
and so are Thumbs.db and desktop.ini; any other file that is not an image is
bad. Of an animation, the first picture counts.

An image is rotated as its EXIF orientation says, put on black where it is
transparent, converted to RGB of 8 bits, and resized to a square, bicubic with
antialiasing, whatever its proportions.
"""
import hashlib
import io
import os
import typing
import unicodedata

import numpy as np
from PIL import Image
from PIL import ImageOps
from PIL import UnidentifiedImageError

from mentormix import file_kinds
from mentormix import files
from mentormix.data import image_set
from mentormix.messages import log, UserError

MAX_BYTES = 100 << 20  # Of one file.
FORMATS = ('PNG', 'JPEG', 'WEBP', 'BMP', 'GIF', 'TIFF', 'PPM')
_OF_WINDOWS = ('thumbs.db', 'desktop.ini')
_MOST_NAMED = 20  # Bad files.
_LAYOUT = ('it needs train/<class>/* and val/<class>/*, with the same classes, '
           'or <class>/* alone')


class Folder(typing.NamedTuple):
  """The content of a folder; nothing is decoded yet."""
  path: str  # Of the folder.
  md5: str  # Of the paths and bytes of all images.
  class_names: typing.Tuple[str, ...]  # K strings.
  train: list  # Pairs (path relative to the folder, with /; label), sorted.
  val: list  # The same; empty without a test set.


def find(path):
  """Looks through a folder.

  Args:
    path: with train and val in it, or the classes.

  Returns:
    A `Folder`.

  Raises:
    UserError: it does not have the layout above; the line names the path.
  """
  digest = hashlib.md5()
  found = {'train': [], 'val': []}
  # Split -> its folder.
  splits = {name: name for name in found}
  if os.path.isdir(path) and not any(
      os.path.lexists(os.path.join(path, name)) for name in splits):
    splits = {'train': ''}
  try:
    classes = _classes(path, splits['train'])
    for split, folder in splits.items():
      there = _classes(path, folder)
      for name in there:
        if name not in classes:
          raise ValueError(f'{split}/{name} is not a class of train')
      for label, name in enumerate(classes):
        if name in there:
          inside = f'{folder}/{there[name]}'.lstrip('/')
          found[split] += [
              (f'{inside}/{image}', label)
              for image in sorted(_names(path, folder, there[name]))]
      for relative, _ in found[split]:
        # A checksum has a fixed length, so no file can pass for two.
        digest.update(relative.encode('utf-8') + b'\0' + files.md5_of(
            os.path.join(path, relative)).encode('ascii'))
  except (OSError, ValueError) as error:
    raise UserError(f'--image_dir={path} cannot be read ({error}); {_LAYOUT}')
  labels = {label for _, label in found['train']}
  if not len(classes) == len(labels) > 1 or not all(map(found.get, splits)):
    raise UserError(f'--image_dir={path} needs two classes or more, and images '
                    f'in each folder; {_LAYOUT}')
  return Folder(path, digest.hexdigest(), tuple(classes), **found)


def _classes(path, split):
  """Class -> its folder, in order; a class is named in one Unicode form.

  macOS may write an accent as a character of its own, other systems do not.
  """
  folders = {}
  for name in _names(path, split):
    one_form = unicodedata.normalize('NFC', name)
    if one_form in folders:
      raise ValueError(f'{split} has the class {name} twice, in two Unicode '
                       'forms')
    folders[one_form] = name
  are_numbers = all(name.isdecimal() for name in folders)
  order = sorted(folders, key=lambda name: (
      int(name) if are_numbers else 0, name))
  return {name: folders[name] for name in order}


def _names(*folder):
  """The names in a folder, without hidden ones."""
  names = os.listdir(os.path.join(*folder))
  for name in names:
    if any('\ud800' <= letter <= '\udfff' for letter in name):
      raise ValueError(f'{"/".join(folder[1:] + (name,))!a} is not text in the '
                       'encoding of the locale; set LC_ALL=C.UTF-8, or rename '
                       'it if it is not UTF-8')
  return [name for name in names
          if not name.startswith('.') and name.lower() not in _OF_WINDOWS]


def read(folder, image_size, max_bad_records=0):
  """Decodes all images.

  Args:
    folder: a `Folder`.
    image_size: height and width to resize to, in pixels.
    max_bad_records: how many files that are not images may be left out.

  Returns:
    An `ImageSet`. Bad images of train are black, and not `usable`; those of val
    are left out.

  Raises:
    UserError: more files are not an image, damaged or too large; before it, a
      log line names each.
  """
  found, bad = {}, []
  for name, pairs in (('train', folder.train), ('test', folder.val)):
    ids, labels = [p for p, _ in pairs], [label for _, label in pairs]
    images = np.zeros([len(ids), image_size, image_size, 3], np.uint8)
    usable = np.ones(len(ids), bool)
    for index, relative in enumerate(ids):
      try:
        images[index] = _decode(os.path.join(folder.path, relative), image_size)
      except UserError as error:
        usable[index] = False
        bad.append(str(error))
    if name == 'test':
      images, ids = images[usable], [ids[k] for k in np.flatnonzero(usable)]
      labels = np.array(labels, np.int64)[usable]
    else:
      found['usable'] = usable
    found.update({f'{name}_ids': ids, f'{name}_images': images,
                  f'{name}_labels': np.array(labels, np.int64)})
  _report(bad, max_bad_records)
  return image_set.ImageSet(class_names=folder.class_names, **found)


def _report(bad, most):
  """Logs each bad file; raises UserError if they are too many."""
  if len(bad) > 1 or most:
    for line in bad[:_MOST_NAMED]:
      log(f'bad: {line}')
  if len(bad) > _MOST_NAMED:
    log(f'bad: and {len(bad) - _MOST_NAMED} more')
  if len(bad) == 1 and not most:
    raise UserError(f'{bad[0]}; replace or remove it, or pass '
                    '--max_bad_records=1')
  if len(bad) > most:
    raise UserError(f'{len(bad)} bad images, with --max_bad_records={most}; '
                    f'replace or remove them, or allow more; the first: '
                    f'{bad[0]}')
  if bad:
    log(f'{len(bad)} bad images are left out')


def _decode(path, image_size):
  """The image in a file, uint8 [image_size, image_size, 3]."""
  data = b''
  try:
    # From memory: for a file, Pillow allocates whatever size it claims.
    data = files.contents(path, MAX_BYTES)
    image = upright(data)
    # First the width, then the height: which comes first changes the result,
    # and versions of Pillow differ in it.
    for size in ((image_size, image.height), (image_size, image_size)):
      image = image.resize(size, Image.BICUBIC)
    return np.asarray(image)
  except Exception as error:  # Damaged data can cause any error.
    raise UserError(f'{path} cannot be read as an image '
                    f'({reason(error, data)})')


def upright(data):
  """The bytes of an image file as an RGB Pillow image, as EXIF turns it."""
  with Image.open(io.BytesIO(data), formats=FORMATS) as image:
    return to_rgb(ImageOps.exif_transpose(image))


def reason(error, data):
  """Why the bytes of a file cannot be read as an image, in words."""
  what = file_kinds.what(data)
  if isinstance(error, UnidentifiedImageError):
    return f'it is {what}' if what else 'it is no known kind of image'
  if isinstance(error, OSError) and error.filename:
    return error.strerror
  return str(error) or type(error).__name__


def to_rgb(image):
  """A Pillow image of any mode as RGB, on black where it is transparent."""
  if image.mode == 'F':
    raise ValueError('its pixels are floating-point numbers')
  if image.mode.startswith('I'):  # 16 bits of grey.
    return Image.fromarray(
        (np.asarray(image) >> 8).astype(np.uint8)).convert('RGB')
  if 'transparency' not in image.info and image.mode[-1].upper() != 'A':
    return image.convert('RGB')
  image = image.convert('RGBA')
  black = Image.new('RGBA', image.size, (0, 0, 0, 255))
  return Image.alpha_composite(black, image).convert('RGB')
