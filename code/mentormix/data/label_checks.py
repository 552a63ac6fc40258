"""Whether the labels of a file are those of the images, and in their order.

A file in another order, or in another numbering of the classes, would train
without an error. What the file says beside the labels is checked against the
images: paths, clean labels. Labels alone are compared with those that came with
the images. N is the number of images, K that of classes.
"""
import unicodedata

import numpy as np

from mentormix.data import noise
from mentormix.messages import UserError

# Labels in a wrong order agree with the images as by chance, within a few
# standard deviations. With fewer images, that can happen to very noisy labels
# too, so only an agreement below chance counts against them.
_DEVIATIONS = 6
_ENOUGH = 1000
# A renumbering must win by so many standard deviations, and as 2 to 1.
_RENUMBERED_DEVIATIONS, _RENUMBERED_RATIO = 2.5, 2
_PER_CLASS = 3  # Images; with fewer, noise may leave classes out.


def fit(label_file, source_labels, num_classes, ids, force=False):
  """Checks that labels fit the images, and puts them in the images' order.

  Args:
    label_file: a `label_files.LabelFile`.
    source_labels: the labels that came with the images, int64 [N].
    num_classes: K.
    ids: N strings, which image each is: its index in the archive, or its path.
    force: whether to take labels that agree with the images only as by chance,
      or look renumbered (--force_labels).

  Returns:
    int64 [N].

  Raises:
    UserError: there are more or fewer labels than images, one is out of range,
      or order or numbering is not that of the images; the line has the
      evidence.
  """
  flag = f'--noise_file={label_file.path}'
  count = len(source_labels)
  for labels in (label_file.labels, label_file.clean):
    if labels is not None:
      _check_range(flag, labels, count, num_classes)
  label_file = _by_id(flag, label_file, ids)
  if label_file.tfds_index is not None:
    labels = _reorder(flag, label_file, source_labels)
  else:
    labels = label_file.labels
    if label_file.clean is not None:
      wrong = np.sum(label_file.clean != source_labels)
      if wrong:
        raise UserError(
            f'{flag}: {wrong} of its {count} clean labels are not those of the '
            'images, so its order or numbering is not that of the archive or '
            'folder; if it is in TFDS order, pass --noise_index')
  if label_file.clean is None and not force:  # Clean labels settle it.
    problem = (_numbering(labels, source_labels, num_classes)
               or _chance(labels, source_labels, num_classes))
    if problem:
      raise UserError(f'{flag}: {problem}; correct the file, or pass '
                      '--force_labels if it is right')
  return labels


def _check_range(flag, labels, count, num_classes):
  if len(labels) != count:
    raise UserError(f'{flag} holds {len(labels)} labels; there are {count} '
                    'training images, and each needs one')
  bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if bad.size:
    raise UserError(
        f'{flag}: entry {bad[0]}, counted from 0, is {labels[bad[0]]}; the '
        f'{num_classes} classes are 0 to {num_classes - 1}')


def _by_id(flag, label_file, ids):
  """Checks the ids in a file; without an index, they give the order."""
  if label_file.ids is None:
    return label_file
  # A file may name images by the last parts of their paths only.
  for parts in (3, 2, 1):
    theirs, ours = _last(label_file.ids, parts), _last(ids, parts)
    place = {name: position for position, name in enumerate(theirs)}
    if len(place) == len(theirs) and place.keys() == set(ours):
      break
  else:
    theirs, ours = _last(label_file.ids, 3), _last(ids, 3)
    known = len(set(theirs) & set(ours))
    if label_file.has_index and not known:
      return label_file  # Names from elsewhere, which say nothing here.
    other = next((x for x in theirs if x not in set(ours)), theirs[0])
    raise UserError(
        f'{flag} is not of these images: it names {known} of the {len(ours)}, '
        f'each of which must be there once, and {other!r:.60}; the images are '
        f'like {ours[0]!r:.60}')
  order = np.array([place[name] for name in ours])
  moved = np.flatnonzero(order != np.arange(len(order)))
  if label_file.has_index:
    if moved.size:
      raise UserError(
          f'{flag}: its index and its ids contradict each other in {moved.size}'
          f' of {len(order)} lines; the image of index {moved[0]} is '
          f'{ours[moved[0]]!r:.60}, not {theirs[moved[0]]!r:.60}')
    return label_file
  clean = label_file.clean
  return label_file._replace(labels=label_file.labels[order],
                             clean=None if clean is None else clean[order])


def _last(ids, parts):
  """The last parts of paths, in one Unicode form."""
  return ['/'.join(unicodedata.normalize('NFC', name).replace(
      '\\', '/').split('/')[-parts:]) for name in ids]


def _reorder(flag, label_file, source_labels):
  """The labels in the order of the source; the clean ones say which way."""
  index, count = label_file.tfds_index, len(source_labels)
  if label_file.clean is None:
    raise UserError(f'{flag} has no clean labels to tell how to apply '
                    '--noise_index; put the labels in order and leave it out')
  if len(index) != count or np.any(np.sort(index) != np.arange(count)):
    raise UserError(f'--noise_index holds {len(index)} numbers; it must hold '
                    f'each number from 0 to {count - 1} once')
  ways = (np.argsort(index), index)  # ordered[i] = source[index[i]]; or back.
  wrong = [np.sum(label_file.clean[way] != source_labels) for way in ways]
  if min(wrong):
    raise UserError(
        f'{flag}: with --noise_index, {min(wrong)} of its {count} clean labels '
        'are not those of the images; pass the index of this file')
  return label_file.labels[ways[np.argmin(wrong)]]


def _chance(labels, source_labels, num_classes):
  """Why the labels may have nothing to do with the images; None if they do."""
  count = len(labels)
  agree = 1 - noise.realised_rate(source_labels, labels)
  chance = np.dot(np.bincount(source_labels, None, num_classes) / count,
                  np.bincount(labels, None, num_classes) / count)
  least = chance
  if count >= _ENOUGH:
    least += _DEVIATIONS * np.sqrt(chance / count)
  if agree >= least:
    return None
  return (f'the labels have nothing to do with the images ({agree:.1%} agree, '
          f'by chance it would be {chance:.1%}), so their order or numbering '
          'is not that of the archive or folder')


def _numbering(labels, source_labels, num_classes):
  """Why the classes may be numbered otherwise; None if they are not."""
  used, there = len(np.unique(labels)), len(np.unique(source_labels))
  if 2 * used <= there and len(labels) >= _PER_CLASS * there:
    return (f'it uses {used} classes where the images have {there}, as if it '
            'were of another or a coarser set of classes')
  counts = np.zeros([num_classes, num_classes], np.int64)
  np.add.at(counts, (source_labels, labels), 1)
  best = _renumbering(counts)
  moved = np.flatnonzero(best != np.arange(num_classes))
  to, stay = counts[moved, best[moved]].sum(), counts[moved, moved].sum()
  if (to < _RENUMBERED_RATIO * stay
      or to - stay <= _RENUMBERED_DEVIATIONS * np.sqrt(to + stay)):
    return None
  changes = ', '.join(f'{k} -> {best[k]}' for k in moved[:3])
  more = ', ...' if len(moved) > 3 else ''
  return (f'the classes look renumbered ({changes}{more}): so read, '
          f'{to} labels of these classes agree with the images, as they are '
          f'{stay}')


def _renumbering(counts):
  """The numbering that explains the labels best, ints [K]: class -> label.

  Args:
    counts: [K, K], how many images of a class have a label. Pairs are matched
      from the largest count on; of equal ones, a class keeps its number.
  """
  size = len(counts)
  best = np.full(size, -1)
  counts = counts + np.eye(size) / 2
  for flat in np.argsort(-counts, axis=None, kind='stable'):
    k, label = divmod(flat, size)
    if best[k] < 0 and label not in best:
      best[k] = label
  return best
