"""Controlled Noisy Web Labels: classes, splits and URLs, from its annotations.

    mini-imagenet-annotations.json     the URLs of the web images
    mini-imagenet/class_names.txt      a class a line, or class_name.txt
    mini-imagenet/split/<split>        <image>.jpg <class from 0>, one a line

and the same for stanford_cars, whose JSON file is called stanford-cars; in a
zip or its unpacked folder, directly or below dataset_no_images. Red: images of
the web replace a share of the images. Blue: labels are replaced.
"""
import json
import os
import re
import typing
import zipfile

from mentormix import file_kinds
from mentormix.data import noise
from mentormix.data.photos import finding
from mentormix.data.photos import rows
from mentormix.data.photos import sources
from mentormix.data.photos import wnids
from mentormix.messages import UserError

LEVELS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
NUM_CLASSES = {'mini_imagenet': 100, 'stanford_cars': 196}
COLOURS = ('red', 'blue')
NAMES = tuple(f'{images}_{colour}' for images in NUM_CLASSES
              for colour in COLOURS)
VALIDATION = 'clean_validation'
# Of Mini-ImageNet; assumed of Stanford Cars, whose lists were not at hand.
_WEB_IMAGE = re.compile(r'[0-9a-f]{16}')
_MINI_IMAGE = re.compile(r'(n\d{8})\d{8}')
_ZIP = 'dataset_no_images.zip'


class Annotations:
  """The files of the annotations, in a zip or a folder."""

  def __init__(self, path):
    """Opens them; UserError if there are none."""
    self.path = path
    inside = os.path.join(path, _ZIP)
    if os.path.isdir(path) and os.path.isfile(inside) and not os.path.isdir(
        inside[:-4]):
      path = inside
    try:
      if os.path.isdir(path):
        # What is not there is not looked for in folders of images.
        tops = ('', 'dataset_no_images')
        self._files = {
            os.path.join(folder, name).replace(os.sep, '/'):
            os.path.join(folder, name)
            for top in tops for sub in ('', *_spellings('/split'))
            for folder in [os.path.join(path, top, sub)]
            if os.path.isdir(folder) for name in os.listdir(folder)}
        self._open = lambda name: open(name, 'rb')
      else:
        self._zip = zipfile.ZipFile(path)
        self._files = {f'/{name}': name for name in self._zip.namelist()}
        self._open = self._zip.open
    except (OSError, zipfile.BadZipFile) as error:
      kind = file_kinds.explain(path, 'a zip archive')
      raise UserError(f'--annotations={path} cannot be read ({error}{kind}); '
                      f'pass {_ZIP} of Controlled Noisy Web Labels, or its '
                      'folder')

  def read(self, *names):
    """(name, content) of a file.

    Args:
      *names: the ends of its path; the first that exists counts.

    Raises:
      UserError: none exists, or it cannot be read.
    """
    for end in names:
      for name, place in sorted(self._files.items()):
        if name.endswith(f'/{end}'):
          try:
            with self._open(place) as f:
              return place, f.read().decode('utf-8-sig')
          except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f'--annotations={self.path}: {place} cannot be '
                            f'read ({error}); get it again')
    raise UserError(f'--annotations={self.path} has no {names[0]}; pass {_ZIP} '
                    'of Controlled Noisy Web Labels, or its folder')


def _spellings(end, images=None):
  """The folders of the images, with - or _ in their names."""
  return [name.replace('_', letter) + extra
          for name in ([images] if images else NUM_CLASSES)
          for letter in '-_' for extra in (('', end) if not images else (end,))]


class SplitFile(typing.NamedTuple):
  """The rows of a split file."""
  path: str
  names: typing.Tuple[str, ...]  # Without extension.
  labels: typing.Tuple[int, ...]


def read_split(annotations, images, name):
  """Reads a split.

  Args:
    annotations: the `Annotations`.
    images: a key of `NUM_CLASSES`.
    name: such as red_noise_nl_0.4.

  Returns:
    A `SplitFile`.

  Raises:
    UserError: it is missing or damaged, or a label is out of range.
  """
  path, text = annotations.read(*_spellings(f'/split/{name}', images))
  flag = f'--annotations={annotations.path}: {path}'
  count = NUM_CLASSES[images]
  names, labels = [], []
  for line, cells in enumerate(map(str.split, text.splitlines()), 1):
    if not cells:
      continue
    if len(cells) != 2 or not cells[1].isdecimal():
      raise UserError(f'{flag}: line {line} is not "<image>.jpg <class>"; get '
                      'it again')
    if int(cells[1]) >= count:
      raise UserError(f'{flag}: line {line} has class {cells[1]}; the {count} '
                      f'classes are 0 to {count - 1}; get it again')
    names.append(finding.stem(cells[0]))
    labels.append(int(cells[1]))
  if not names:
    raise UserError(f'{flag} is empty; get it again')
  return SplitFile(f'{flag}', tuple(names), tuple(labels))


def class_names(annotations, images):
  """The class names of a set, K strings; UserError if they are not K."""
  path, text = annotations.read(*_spellings('/class_names.txt', images),
                                *_spellings('/class_name.txt', images))
  names = tuple(line.strip() for line in text.splitlines() if line.strip())
  if len(names) != NUM_CLASSES[images]:
    raise UserError(
        f'--annotations={annotations.path}: {path} has {len(names)} classes, '
        f'not the {NUM_CLASSES[images]} of {images}; get it again')
  return names


def clean_labels(annotations, images, colour, split):
  """The clean labels of a training split.

  Returns:
    A tuple of ints [N]. Red: the label of an image of the set,
    `noise.WRONG_LABEL` for one of the web. Blue: the label of the same line
    without noise.

  Raises:
    UserError: a line of blue has another image, or the WordNet id of an image
      is not that of its class.
  """
  if colour == 'red':
    clean = tuple(noise.WRONG_LABEL if _WEB_IMAGE.fullmatch(name) else label
                  for name, label in zip(split.names, split.labels))
  else:
    reference = read_split(annotations, images, 'blue_noise_nl_0.0')
    if reference.names != split.names:
      raise UserError(f'{split.path} does not have the images of '
                      'blue_noise_nl_0.0 line by line, so nothing says which '
                      'labels are right; get both again')
    clean = reference.labels
  if images == 'mini_imagenet':
    for name, label in zip(split.names, clean):
      match = _MINI_IMAGE.fullmatch(name)
      if match and wnids.MINI_IMAGENET[label] != match.group(1):
        raise UserError(
            f'{split.path}: {name} is of class {label}, which is '
            f'{wnids.MINI_IMAGENET[label]}; the classes are in another order; '
            'get the annotations again')
  return clean


def source(dataset_name, annotations_path, levels, image_roots, val_root):
  """What a set is made of.

  Args:
    dataset_name: one of `NAMES`.
    annotations_path: of the zip or folder.
    levels: floats, each of `LEVELS`.
    image_roots: directories with the training images, anywhere below.
    val_root: a directory with the test images; None: one of the former.

  Returns:
    A `Source`.

  Raises:
    UserError: annotations or images are missing or contradict each other.
  """
  images, _, colour = dataset_name.rpartition('_')
  annotations = Annotations(annotations_path)
  names = class_names(annotations, images)
  validation = read_split(annotations, images, VALIDATION)
  splits = {level: read_split(annotations, images, split_name(colour, level))
            for level in levels}
  clean = {level: clean_labels(annotations, images, colour, split)
           for level, split in splits.items()}
  of_train = set().union(*(split.names for split in splits.values()))
  of_val = set(validation.names)
  if val_root:
    train_images = finding.ByName('image_root', image_roots, of_train)
    val_images = finding.ByName('val_root', [val_root], of_val)
  else:
    train_images = val_images = finding.ByName('image_root', image_roots,
                                               of_train | of_val)
  made = [sources.split('val', 'test', None, 0.0, _rows(
      validation, validation.labels, val_images))]
  made += [sources.split(noise.level_name(level), 'train', colour, level, _rows(
      splits[level], clean[level], train_images)) for level in levels]
  return sources.Source(
      annotations_path, names,
      wnids.MINI_IMAGENET if images == 'mini_imagenet' else None, tuple(made))


def split_name(colour, level):
  """The name of a split file."""
  return f'{colour}_noise_nl_{level}'


def _rows(split, clean, found):
  for name, label, clean_label in zip(split.names, split.labels, clean):
    yield rows.Row(found.get(name), label, clean_label, name)


def urls(dataset_name, annotations_path, levels):
  """Name -> URL of the web images of some splits, a dict.

  Raises:
    UserError: the annotations do not hold them.
  """
  images, _, colour = dataset_name.rpartition('_')
  annotations = Annotations(annotations_path)
  wanted = set()
  for level in levels:
    split = read_split(annotations, images, split_name(colour, level))
    wanted.update(filter(_WEB_IMAGE.fullmatch, split.names))
  path, text = annotations.read(
      *_spellings('-annotations.json', images))
  try:
    entries = json.loads(text)['data']
    # Each annotation is a list of one object.
    found = {entry['image/id']: entry['image/uri']
             for entries_of_one in entries for entry in entries_of_one}
  except (ValueError, LookupError, TypeError) as error:
    raise UserError(f'--annotations={annotations_path}: {path} does not hold '
                    f'image/id and image/uri ({error}); get it again')
  return {name: found.get(name, '') for name in sorted(wanted)}
