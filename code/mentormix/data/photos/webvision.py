"""WebVision 1.0: its lists, with the images of Google and Flickr kept apart.

    info/synsets.txt                   WordNet id and names of a class a line
    info/train_filelist_google.txt     google/q0001/<file>.jpg <class from 0>
    info/train_filelist_flickr.txt     the same, of Flickr
    info/val_filelist.txt              val000001.jpg <class from 0>

Images may be the original ones or those resized to 256 pixels. mini_webvision
has the first 50 classes of the list of Google. queries_synsets_map.txt counts
classes from 1 and is not used.
"""
import os

from mentormix.data import noise
from mentormix.data.photos import finding
from mentormix.data.photos import ilsvrc12
from mentormix.data.photos import rows
from mentormix.data.photos import sources
from mentormix.data.photos import wnids
from mentormix.messages import log, UserError

NUM_CLASSES = {'webvision': 1000, 'mini_webvision': 50}
_LISTED = 1000  # Classes.
_MINI_TRAIN = 65944  # Images, as others count them.
_TRAIN_LISTS = {
    'webvision': ('train_filelist_google.txt', 'train_filelist_flickr.txt'),
    'mini_webvision': ('train_filelist_google.txt',)}
_RESIZED = '_resized_256'
_VAL_FOLDERS = ('val_images_256', 'val_images', 'val_images_resized_256', '')


def synsets(path):
  """The classes in the order of synsets.txt.

  Returns:
    (WordNet ids, names), two tuples of 1000 strings.

  Raises:
    UserError: it is missing, of another version, or not such a file.
  """
  text = _read(path)
  lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
  if len(lines) != _LISTED:
    raise UserError(
        f'{path} has {len(lines)} lines; the 1.0 lists have {_LISTED} classes '
        '(those of 2.0 are 5,000, in another order): pass the folder info of '
        'WebVision 1.0 as --annotations')
  ids = tuple(line[0] for line in lines)
  if len(set(ids)) < _LISTED or not all(map(wnids.PATTERN.fullmatch, ids)):
    raise UserError(f'{path}: a line is not a WordNet id, such as n01440764, '
                    'and names, or an id is there twice; get it again')
  return ids, tuple(line[-1].strip() for line in lines)


def _read(path):
  try:
    with open(path, encoding='utf-8-sig') as f:
      return f.read()
  except (OSError, ValueError) as error:
    raise UserError(f'{path} cannot be read ({error}); pass the folder info of '
                    'WebVision 1.0 as --annotations')


def listed(path, num_classes):
  """Yields (path, label) for the lines of a list with a label below a number.

  Args:
    path: of the list.
    num_classes: how many classes to take, the first ones.

  Raises:
    UserError: it is missing or damaged, or a label is not below 1000.
  """
  try:
    with open(path, encoding='utf-8-sig') as f:
      for number, line in enumerate(f, 1):
        name, _, label = line.strip().rpartition(' ')
        if not name or not label.isdecimal():
          if not line.strip():
            continue
          raise UserError(f'{path}: line {number} is not "<image> <class>"; '
                          'get it again')
        if int(label) >= _LISTED:
          raise UserError(
              f'{path}: line {number} has class {label}; the {_LISTED} classes '
              f'are 0 to {_LISTED - 1}: the list is not of WebVision 1.0')
        if int(label) < num_classes:
          yield name, int(label)
  except (OSError, ValueError) as error:
    raise UserError(f'{path} cannot be read ({error}); pass the folder info of '
                    'WebVision 1.0 as --annotations')


def source(dataset_name, annotations, image_roots, val_root, val_list):
  """What a set is made of.

  Args:
    dataset_name: a key of `NUM_CLASSES`.
    annotations: the folder info, or the one with it; None: the first root.
    image_roots: directories with google, flickr and val_images_256 (or others).
    val_root: a directory with ILSVRC12's validation images, which make a test
      set val_ilsvrc12; None for none.
    val_list: says the classes of these; None if they are in a usual place.

  Returns:
    A `Source`.

  Raises:
    UserError: lists or images are missing or contradict each other.
  """
  annotations = annotations or image_roots[0]
  info = os.path.join(annotations, 'info')
  info = info if os.path.isdir(info) else annotations
  num_classes = NUM_CLASSES[dataset_name]
  ids, names = synsets(os.path.join(info, 'synsets.txt'))
  tests = []
  found = finding.ByPath('image_root', image_roots, lambda root, name: [
      os.path.join(root, folder, name) for folder in _VAL_FOLDERS])
  val = sources.split('val', 'test', None, 0.0, _rows(
      os.path.join(info, 'val_filelist.txt'), num_classes, found, True))
  if len(val.rows):
    tests.append(val)
  elif not val_root:
    raise UserError(
        f'--image_root={",".join(image_roots)} has no images of the '
        'validation set (val_images_256/val000001.jpg or '
        'val_images/val000001.jpg); unpack them there, or pass ILSVRC12\'s as '
        '--val_root')
  if val_root:
    tests.append(sources.split(
        'val_ilsvrc12' if tests else 'val', 'test', None, 0.0,
        ilsvrc12.rows_of(val_root, ids, num_classes, val_list)))
  found = finding.ByPath('image_root', image_roots, _variants)
  train = sources.split('0', 'train', noise.FILE, None, (
      row for name in _TRAIN_LISTS[dataset_name]
      for row in _rows(os.path.join(info, name), num_classes, found, False)))
  count = len(train.rows) + len(train.missing)
  if dataset_name == 'mini_webvision':
    log(f'{count} training images are listed for the first 50 classes of '
        f'Google, {"as" if count == _MINI_TRAIN else "not"} the {_MINI_TRAIN} '
        'that others count')
  if not count:
    raise UserError(f'{os.path.join(info, _TRAIN_LISTS[dataset_name][0])} is '
                    'empty; get it again')
  return sources.Source(info, names[:num_classes], ids[:num_classes],
                        tuple(tests) + (train,))


def _variants(root, name):
  """Where a training image may lie, such as google/q0001/x.jpg.

  Names of Google and Flickr collide, so the first part of the path stays one
  of the folder's.
  """
  site, _, rest = name.partition('/')
  folders = [site, site + _RESIZED, os.path.join(site + _RESIZED, site),
             os.path.join('resized_256', site)]
  paths = [os.path.join(root, folder, rest) for folder in folders]
  if os.path.basename(os.path.abspath(root)) in (site, site + _RESIZED):
    paths.append(os.path.join(root, rest))
  return paths


def _rows(path, num_classes, found, is_clean):
  for name, label in listed(path, num_classes):
    yield rows.Row(found.get(name), label, label if is_clean else None, name)
