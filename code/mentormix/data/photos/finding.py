"""Finds the files of images: by path below a root, or by name anywhere in it.

By name, also in the archives of ILSVRC12 as they are downloaded, which are
uncompressed: ILSVRC2012_img_train.tar, with an archive for each class in it,
ILSVRC2012_img_val.tar, and n01440764.tar. An image has the same name whether it
ends with .jpg or .JPEG.
"""
import os
import re
import tarfile

from mentormix import file_kinds
from mentormix.data.photos import rows
from mentormix.data.photos import wnids
from mentormix.messages import UserError

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.gif', '.webp', '.bmp')
# Of ILSVRC12's classes. A rank within fewer would be that of another image.
FEWEST_OF_A_CLASS = 732
_TRAIN_TAR, _VAL_TAR = 'ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'
_TRAIN_NAME = re.compile(r'(n\d{8})_(\d+)')
_RANKED_NAME = re.compile(r'(n\d{8})(\d{8})')


def check_roots(flag, roots):
  """Raises UserError for a root that is no directory."""
  for root in roots:
    if not os.path.isdir(root):
      raise UserError(f'--{flag}={root} is not a directory; name the one with '
                      'the images')


def stem(name):
  """The name of a file without its folders and its extension."""
  return os.path.splitext(name.rpartition('/')[2])[0]


class ByName:
  """The files of wanted names below some roots."""

  def __init__(self, flag, roots, wanted):
    """Looks through the roots.

    Args:
      flag: names the roots in error messages.
      roots: directories.
      wanted: set of names without extension. A name such as
        n0153282900000005 also finds the fifth of the sorted training images of
        n01532829.

    Raises:
      UserError: a root is missing, an archive is damaged, or two different
        images have a wanted name.
    """
    self._flag, self._wanted = flag, wanted
    self._found = {}  # Name without extension -> path of a Row.
    # WordNet id -> {number: path of a Row}.
    self._train = {match.group(1): {} for match in map(
        _RANKED_NAME.fullmatch, wanted) if match}
    self._ranked = {}  # WordNet id -> paths by rank.
    check_roots(flag, roots)
    seen = set()  # A link may lead to a folder above it.
    for root in roots:
      for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
          folders.clear()
          continue
        seen.add(real)
        folders.sort()
        for name in sorted(names):
          self._add_file(os.path.join(folder, name), name)

  def _add_file(self, path, name):
    if name.endswith('.tar'):
      try:
        if name == _TRAIN_TAR:
          self._add_train_tar(path)
        elif name == _VAL_TAR or name[:-4] in self._train:
          self._add_tar(path)
      except (tarfile.TarError, OSError) as error:
        kind = file_kinds.explain(path, 'a tar archive')
        raise UserError(f'{path} cannot be read ({error}{kind}); get it again')
    elif name.lower().endswith(EXTENSIONS):
      self._add(stem(name), path)

  def _add_train_tar(self, path):
    with tarfile.open(path, 'r:') as classes:
      for member in classes:
        if member.name[:-4] in self._train:
          with classes.extractfile(member) as stream:
            self._add_tar(path, stream, member.offset_data)

  def _add_tar(self, path, stream=None, offset=0):
    """Adds the images of a tar, which begins at `offset` of the file."""
    with tarfile.open(path, 'r:', stream) as images:
      for member in images:
        if member.isfile():
          self._add(stem(member.name), rows.in_tar(
              path, offset + member.offset_data, member.size))

  def _add(self, name, path):
    if name in self._wanted:
      before = self._found.setdefault(name, path)
      if before != path and _size(before) != _size(path):
        raise UserError(
            f'--{self._flag}: two images are called {name}, '
            f'{_shown(before)} and {_shown(path)}; name only the folder of one '
            'of them, and folders of training and test images apart '
            '(--image_root, --val_root)')
    match = _TRAIN_NAME.fullmatch(name)
    if match and match.group(1) in self._train:
      self._train[match.group(1)].setdefault(int(match.group(2)), path)

  def get(self, name):
    """The path of a `Row`; '' if there is no such image.

    Args:
      name: one of the wanted, without extension.

    Raises:
      UserError: the training images that a rank is among are not complete.
    """
    if name in self._found:
      return self._found[name]
    match = _RANKED_NAME.fullmatch(name)
    if not match or not self._train[match.group(1)]:
      return ''
    wnid, rank = match.group(1), int(match.group(2))
    if wnid not in self._ranked:
      files = self._train[wnid]
      if len(files) < FEWEST_OF_A_CLASS:
        folder = os.path.dirname(_shown(next(iter(files.values()))))
        raise UserError(
            f'--{self._flag}: {folder} has {len(files)} training images of '
            f'{wnid}; ILSVRC12 has '
            f'{FEWEST_OF_A_CLASS} or more of each class, and {name} is the one '
            f'of rank {rank} among all; complete the folder')
      self._ranked[wnid] = [files[number] for number in sorted(files)]
    ranked = self._ranked[wnid]
    return ranked[rank - 1] if 1 <= rank <= len(ranked) else ''


def _size(path):
  path, *place = path.split('\0')
  return int(place[1]) if place else os.path.getsize(path)


def _shown(path):
  return path.split('\0')[0]


class ByPath:
  """Files below some roots by their relative paths, checked folder by folder.

  A path in a list that is sorted costs no access to the disk, but for the
  first in its folder.
  """

  def __init__(self, flag, roots, variants=None):
    """Makes it.

    Args:
      flag: names the roots in error messages.
      roots: directories.
      variants: a function (root, relative path) -> the paths where the file
        may lie, in the order of preference; None for just the joined path.
    """
    check_roots(flag, roots)
    self._roots = roots
    self._variants = variants or (lambda root, path: [os.path.join(root, path)])
    self._names = {}  # Folder -> the names in it; of the last folders only.

  def get(self, relative):
    """The path of a file; '' if it is below none of the roots."""
    for root in self._roots:
      for path in self._variants(root, relative):
        folder, name = os.path.split(path)
        if name in self._listed(folder):
          return path
    return ''

  def _listed(self, folder):
    if folder not in self._names:
      if len(self._names) >= 64:
        self._names.clear()
      try:
        self._names[folder] = frozenset(os.listdir(folder))
      except OSError:
        self._names[folder] = frozenset()
    return self._names[folder]


def images_of(folder):
  """The sorted paths of the images in a folder, without those below it."""
  return [os.path.join(folder, name) for name in sorted(os.listdir(folder))
          if name.lower().endswith(EXTENSIONS) and not name.startswith('.')]


def wnid_folders(folder):
  """WordNet id -> path, of the folders that are called so."""
  return {name: os.path.join(folder, name) for name in sorted(
      os.listdir(folder)) if wnids.PATTERN.fullmatch(name)
          and os.path.isdir(os.path.join(folder, name))}
