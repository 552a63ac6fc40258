"""ILSVRC12's validation images, whose classes are found by WordNet id.

    <folder>/n01440764/*.JPEG           a folder for each class
    <folder>/0/*.JPEG                   the same by number, as in DivideMix
    <folder>/ILSVRC2012_val_*.JPEG      and one of these files, there, in the
                                        folder above, or as --val_list:
      imagenet_2012_validation_synset_labels.txt  an id a line, as in slim
      LOC_val_solution.csv              image and id, as of Kaggle
      ILSVRC2012_validation_ground_truth.txt with meta.mat, of the devkit
      imagenet_val.txt                  image and class from 0, as in ELR

The devkit numbers the classes from 1 in an order of its own; all others, from 0
in the order of their sorted WordNet ids.
"""
import os
import re

from mentormix.data.photos import finding
from mentormix.data.photos import rows
from mentormix.data.photos import wnids
from mentormix.messages import log, UserError

_NAME = re.compile(r'ILSVRC2012_val_(\d{8})')
_PER_CLASS = 50
_DEVKIT = 'ILSVRC2012_validation_ground_truth.txt'
_LISTS = ('imagenet_2012_validation_synset_labels.txt', 'LOC_val_solution.csv',
          'imagenet_val.txt', _DEVKIT)
_PLACES = ('', '..', 'data', '../data', '../ILSVRC2012_devkit_t12/data',
           '../devkit/data', 'ILSVRC2012_devkit_t12/data')
_ELSEWHERE = ('pass folders by WordNet id, or a list of ids as --val_list '
              '(imagenet_2012_validation_synset_labels.txt)')


def rows_of(root, ids, num_classes, val_list=None):
  """The validation images of the first classes.

  Args:
    root: the folder, or one whose only folder is called val.
    ids: the WordNet ids of all classes in the order of the set.
    num_classes: how many classes to take, the first ones.
    val_list: the file with the classes; None: where it usually is.

  Returns:
    A list of `Row`s.

  Raises:
    UserError: there are no images, or nothing says which classes they have.
  """
  finding.check_roots('val_root', [root])
  label = {wnid: k for k, wnid in enumerate(ids[:num_classes])}
  by_wnid = finding.wnid_folders(root)
  inner = os.path.join(root, 'val')
  if not by_wnid and os.path.isdir(inner):
    root, by_wnid = inner, finding.wnid_folders(inner)
  numbered = sorted(
      (int(name), os.path.join(root, name)) for name in os.listdir(root)
      if name.isdecimal() and os.path.isdir(os.path.join(root, name)))
  if by_wnid:
    pairs = [(path, label[wnid]) for wnid, folder in by_wnid.items()
             if wnid in label for path in _images(folder)]
  elif numbered:
    _check_sorted(ids, root)
    if [number for number, _ in numbered] != list(range(len(numbered))):
      raise UserError(f'--val_root={root}: its folders are not numbered from 0 '
                      f'without a gap; {_ELSEWHERE}')
    pairs = [(path, number) for number, folder in numbered
             if number < num_classes for path in _images(folder)]
  else:
    pairs = _flat(root, ids, label, val_list)
  if not pairs:
    raise UserError(f'--val_root={root} has no validation image of the '
                    f'{num_classes} classes; unpack archives, and {_ELSEWHERE}')
  if len(pairs) != _PER_CLASS * num_classes:
    log(f'--val_root={root}: {len(pairs)} images of {num_classes} classes, not '
        f'the {_PER_CLASS * num_classes} of ILSVRC12')
  return [rows.Row(path, k, k, finding.stem(path))
          for path, k in sorted(pairs, key=lambda pair: os.path.basename(
              pair[0]))]


def _images(folder):
  """The validation images in a folder; UserError for training images."""
  paths = finding.images_of(folder)
  for path in paths:
    if not _NAME.fullmatch(finding.stem(path)):
      raise UserError(f'{path} is not a validation image of ILSVRC12 '
                      '(ILSVRC2012_val_00000001.JPEG); --val_root has to name '
                      'their folder, not that of the training images')
  return paths


def _check_sorted(ids, what):
  if list(ids) != sorted(ids):
    raise UserError(f'{what} numbers the classes in the order of sorted '
                    f'WordNet ids, and synsets.txt is in another; {_ELSEWHERE}')


def _flat(root, ids, label, val_list):
  """Pairs (path, label) for images in one folder, from a list of classes."""
  images = {int(_NAME.fullmatch(finding.stem(path)).group(1)): path
            for path in _images(root)}
  if not images:
    return []
  if val_list is None:
    found = [path for place in _PLACES for name in _LISTS for path in [
        os.path.normpath(os.path.join(root, place, name))]
             if os.path.isfile(path)]
    if not found:
      raise UserError(f'--val_root={root} has images without folders, and no '
                      f'{" or ".join(_LISTS)} says their classes; {_ELSEWHERE}')
    val_list = found[0]
  classes = _classes(val_list, ids)
  for number, wnid in wnids.KNOWN_VALIDATION.items():
    if classes.get(number, wnid) != wnid:
      raise UserError(
          f'--val_list={val_list}: image {number} is of class {wnid}, and the '
          f'list says {classes[number]}, so its lines or its numbers of '
          f'classes are in another order; {_ELSEWHERE}')
  unknown = [path for number, path in images.items() if number not in classes]
  if unknown and len(classes) >= _PER_CLASS * len(ids):
    raise UserError(f'--val_list={val_list} has no class for {unknown[0]}; '
                    f'{_ELSEWHERE}')
  return [(path, label[classes[number]]) for number, path in images.items()
          if classes.get(number) in label]


def _classes(path, ids):
  """Number of an image -> WordNet id, from a list in one of the forms."""
  try:
    with open(path, encoding='utf-8-sig') as f:
      lines = [re.split(r'[\s,]+', line.strip()) for line in f if line.strip()]
  except (OSError, ValueError) as error:
    raise UserError(f'--val_list={path} cannot be read ({error}); {_ELSEWHERE}')
  if lines and lines[0][0] == 'ImageId':
    del lines[0]
  if not lines:
    raise UserError(f'--val_list={path} is empty; {_ELSEWHERE}')
  if len(lines[0]) > 1:
    lines = [(_NAME.search(line[0]), line[1]) for line in lines
             if len(line) > 1]
    if not lines or not all(name for name, _ in lines):
      raise UserError(f'--val_list={path}: a line does not begin with '
                      f'ILSVRC2012_val_ and eight digits; {_ELSEWHERE}')
    labels = {int(name.group(1)): label for name, label in lines}
  else:
    labels = {number: line[0] for number, line in enumerate(lines, 1)}
  if all(wnids.PATTERN.fullmatch(text) for text in labels.values()):
    return labels
  numbers = {key: int(text) for key, text in labels.items() if text.isdecimal()}
  if len(numbers) < len(labels):
    raise UserError(f'--val_list={path}: its classes are neither WordNet ids '
                    f'nor numbers; {_ELSEWHERE}')
  if os.path.basename(path) == _DEVKIT or len(lines[0]) == 1:
    ids, first = _devkit_ids(path), 1
  else:
    _check_sorted(ids, path)
    first = 0
  out = [n for n in numbers.values() if not 0 <= n - first < len(ids)]
  if out:
    raise UserError(f'--val_list={path} has the class {out[0]}; they are '
                    f'{first} to {len(ids) - 1 + first}; {_ELSEWHERE}')
  return {key: ids[number - first] for key, number in numbers.items()}


def _devkit_ids(path):
  """The WordNet ids in the order of the devkit, from meta.mat beside a list."""
  meta = os.path.join(os.path.dirname(path), 'meta.mat')
  if not os.path.isfile(meta):
    raise UserError(f'{path} numbers the classes in the order of the devkit, '
                    'which is not that of sorted WordNet ids; put meta.mat '
                    f'beside it, or {_ELSEWHERE}')
  try:
    from scipy import io  # An extra; slow to load.
  except ImportError:
    raise UserError(f'{meta} cannot be read without SciPy: pip install scipy, '
                    f'or {_ELSEWHERE}')
  try:
    table = io.loadmat(meta, squeeze_me=True)['synsets']
    numbered = {int(entry['ILSVRC2012_ID']): str(entry['WNID'])
                for entry in table}
    # Classes above 1000 are inner nodes of WordNet.
    return [numbered[k] for k in range(1, 1001)]
  except Exception as error:  # Damaged data can cause any error.
    raise UserError(f'{meta} is not the meta.mat of the devkit '
                    f'({type(error).__name__}: {error}); get it again')
