"""Any photographs, from a list of paths and labels (--image_list).

The list is a label file as `label_files` reads it, with a column of paths below
--image_root: CSV, TSV or text with spaces, with a header, or as path and label.
Clean labels, where they are known, are a column.
"""
import os

import numpy as np

from mentormix.data import label_files
from mentormix.data import noise
from mentormix.data.photos import finding
from mentormix.data.photos import rows
from mentormix.data.photos import sources
from mentormix.messages import log, UserError

_MOST_CLASSES = 100000


def source(image_list, val_list, image_roots, val_root, key):
  """What a set is made of.

  Args:
    image_list: the list of the training images.
    val_list: that of the test images; its labels are clean.
    image_roots: the directories that the paths are below; None: that of the
      list.
    val_root: the same for the test images; None: `image_roots`.
    key: which column of labels, if there are several; None for the only one.

  Returns:
    A `Source`; the classes are called by their numbers.

  Raises:
    UserError: a list is missing, damaged or empty, or a label is out of range.
  """
  train, val = (_read(path, flag, key if flag == 'image_list' else None)
                for path, flag in ((image_list, 'image_list'),
                                   (val_list, 'val_list')))
  labels = np.concatenate([train.labels, [] if train.clean is None
                           else train.clean]).astype(np.int64)
  num_classes = int(labels.max()) + 1
  if num_classes > _MOST_CLASSES:
    raise UserError(f'--image_list={image_list} has the label {labels.max()}; '
                    'labels are classes, counted from 0, up to '
                    f'{_MOST_CLASSES - 1}')
  if labels.min() == labels.max():
    raise UserError(f'--image_list={image_list} has one class; it needs two')
  for flag, path, values in (('image_list', image_list, labels),
                             ('val_list', val_list, val.labels)):
    bad = values[(values < 0) | (values >= num_classes)]
    if bad.size:
      raise UserError(f'--{flag}={path} has the label {bad[0]}; the classes of '
                      f'--image_list are 0 to {num_classes - 1}')
  empty = np.setdiff1d(np.arange(num_classes), train.labels)
  if empty.size:
    if not empty[0] and val.labels.min() > 0:
      raise UserError(f'--image_list={image_list} and --val_list={val_list} '
                      'have no label 0; labels are classes, counted from 0')
    log(f'{empty.size} of {num_classes} classes have no training image, the '
        f'first is {empty[0]}; classes count from 0')
  roots = image_roots or [os.path.dirname(os.path.abspath(image_list))]
  val_roots = [val_root] if val_root else image_roots or [
      os.path.dirname(os.path.abspath(val_list))]
  return sources.Source(
      image_list, tuple(map(str, range(num_classes))), None,
      (sources.split('val', 'test', None, 0.0, _rows(
          val, val.labels, finding.ByPath('val_root' if val_root
                                          else 'image_root', val_roots))),
       sources.split('0', 'train', noise.FILE, None, _rows(
           train, train.clean, finding.ByPath('image_root', roots)))))


def _read(path, flag, key):
  """A list as a `LabelFile` with ids."""
  found = label_files.read(path, key, flag=flag)
  if found.ids is None:
    raise UserError(f'--{flag}={path} names no images; it needs a column '
                    f'{", ".join(label_files.ID_NAMES[:3])} or two columns, '
                    'path and label')
  return found


def _rows(listed, clean, found):
  for index, name in enumerate(listed.ids):
    yield rows.Row(found.get(name), int(listed.labels[index]),
                   None if clean is None else int(clean[index]), name)
