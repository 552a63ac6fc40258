"""Label noise: three definitions that the literature does not keep apart.

"20% symmetric noise" has two meanings. Of 50,000 labels of ten classes,
`symmetric` changes about 9,000 and `symmetric_others` exactly 10,000. A rate
means little without the definition, so both are always stored with the data.

Every definition first picks exactly round(rate * N) examples at random. They
differ in the labels that these examples get.
"""
import numpy as np

from mentormix.messages import UserError

SYMMETRIC = 'symmetric'
SYMMETRIC_OTHERS = 'symmetric_others'
ASYMMETRIC = 'asymmetric'

NOISE_TYPES = {
    SYMMETRIC_OTHERS:
        'round(rate * N) examples picked at random are each given a label '
        'drawn uniformly from the other K - 1 classes, so the realised rate is '
        'the rate asked (MentorMix paper)',
    SYMMETRIC:
        'round(rate * N) examples picked at random are each given a label '
        'drawn uniformly from all K classes, the true one included, so the '
        'realised rate is about rate * (K - 1) / K (DivideMix and others)',
    ASYMMETRIC:
        'round(rate * N) examples picked at random are each given the class '
        'that theirs is mapped to; classes without a target keep their label, '
        'so the realised rate is the rate asked times the share of mapped '
        'classes (Patrini et al. 2017)',
}

# Labels that are not generated.
FILE = 'file'
FOLDERS = 'folders'

DEFINITIONS = dict(NOISE_TYPES, **{
    FILE: 'the labels are those of a file',
    FOLDERS: 'the labels are the folders of the images; which of them are '
             'wrong is not known'})

# Patrini et al. 2017: classes that a person might confuse. cifar100 follows
# its superclasses instead.
_CIFAR10_TARGETS = {
    9: 1,  # truck > automobile
    2: 0,  # bird > airplane
    4: 7,  # deer > horse
    3: 5, 5: 3,  # cat <> dog
}
_DIGITS_TARGETS = {7: 1, 2: 7, 5: 6, 6: 5, 3: 8}

MAX_SEED = 2**32 - 1  # What numpy.random.RandomState takes.


def transition(dataset_name, superclass=None):
  """Returns the class that asymmetric noise maps each class to.

  Args:
    dataset_name: cifar10, cifar100 or digits.
    superclass: for cifar100, the superclass of every class, ints [K].

  Returns:
    int64 [K]; a class without a target is mapped to itself.

  Raises:
    UserError: no map is defined for this data set.
  """
  if dataset_name == 'cifar10':
    return _targets(10, _CIFAR10_TARGETS)
  if dataset_name == 'digits':
    return _targets(10, _DIGITS_TARGETS)
  if dataset_name == 'cifar100' and superclass is not None:
    return _next_within_superclass(superclass)
  raise UserError(f'--noise_type={ASYMMETRIC} is not defined for '
                  f'--dataset_name={dataset_name}; use another noise type')


def _targets(num_classes, pairs):
  targets = np.arange(num_classes, dtype=np.int64)
  for source, target in pairs.items():
    targets[source] = target
  return targets


def _next_within_superclass(superclass):
  """The next class of the same superclass, from the last one to the first."""
  superclass = np.asarray(superclass)
  targets = np.arange(len(superclass), dtype=np.int64)
  for group in np.unique(superclass):
    members = np.flatnonzero(superclass == group)
    targets[members] = np.roll(members, -1)
  return targets


def corrupt(labels, rate, noise_type, num_classes, seed, transition=None):
  """Corrupts the labels of a share of the examples.

  The same arguments give the same labels on every NumPy version, because NumPy
  has frozen the random streams that are used here. With the same seed, the
  examples picked for a low rate are also picked for every higher rate.

  Args:
    labels: the clean labels, ints [N] in 0..num_classes-1.
    rate: the share of examples to pick, 0 to 1.
    noise_type: a key of NOISE_TYPES.
    num_classes: K.
    seed: 0 to MAX_SEED.
    transition: for asymmetric noise, the class that each class is mapped to,
      ints [K]; see `transition`.

  Returns:
    The given labels, int64 [N].

  Raises:
    UserError: an argument is out of range.
  """
  labels = np.array(labels, dtype=np.int64)  # A copy.
  if not 0 <= rate <= 1:  # Also refuses nan.
    raise UserError(f'noise level {rate} is not between 0 and 1')
  if noise_type not in NOISE_TYPES:
    raise UserError(f'noise type {noise_type} is unknown; known are '
                    + ', '.join(NOISE_TYPES))
  if not 0 <= seed <= MAX_SEED:
    raise UserError(f'seed {seed} is not between 0 and {MAX_SEED}')
  if num_classes < 2:
    raise UserError(f'label noise needs at least 2 classes, not {num_classes}')
  if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
    raise UserError(f'labels go from {labels.min()} to {labels.max()}; '
                    f'{num_classes} classes are 0 to {num_classes - 1}')

  random = np.random.RandomState(seed)
  count = int(round(rate * len(labels)))
  picked = random.permutation(len(labels))[:count]
  if noise_type == SYMMETRIC:
    labels[picked] = random.randint(0, num_classes, size=count, dtype=np.int64)
  elif noise_type == SYMMETRIC_OTHERS:
    shift = random.randint(1, num_classes, size=count, dtype=np.int64)
    labels[picked] = (labels[picked] + shift) % num_classes
  else:
    targets = np.asarray([] if transition is None else transition)
    if targets.shape != (num_classes,) or not np.all(
        (targets >= 0) & (targets < num_classes)):
      raise UserError('asymmetric noise needs a target class for each of the '
                      f'{num_classes} classes')
    labels[picked] = targets[labels[picked]]
  return labels


def realised_rate(clean_labels, given_labels):
  """Returns the share of examples whose given label is not the clean one.

  Args:
    clean_labels: ints [N].
    given_labels: ints [N].

  Returns:
    A float; 0 for no examples.
  """
  changed = np.asarray(clean_labels) != np.asarray(given_labels)
  return float(np.mean(changed)) if changed.size else 0.0


def parse_levels(texts):
  """Parses noise levels.

  Args:
    texts: strings.

  Returns:
    A tuple of floats from 0 to 1, with distinct directory names.

  Raises:
    UserError: a level is not such a number, or there is none.
  """
  levels = {}
  for text in texts:
    try:
      level = float(text)
    except ValueError:
      level = -1
    if not 0 <= level <= 1:
      raise UserError(f'--noise_levels: {text!r} is not a number from 0 to 1; '
                      'write for example --noise_levels=0.2,0.4')
    if level_name(level) in levels:
      raise UserError(f'--noise_levels: {level_name(level)} is there twice')
    levels[level_name(level)] = level
  if not levels:
    raise UserError('--noise_levels is empty; write for example '
                    '--noise_levels=0.2,0.4')
  return tuple(levels.values())


def level_name(level):
  """The directory of a noise level."""
  return f'{level + 0.:g}'  # -0.0 is 0.


def association(first_labels, second_labels):
  """Measures how strongly two labellings of the same examples are related.

  Args:
    first_labels: ints [N].
    second_labels: ints [N].

  Returns:
    Pearson's chi-square of their table, in standard deviations above its mean
    for independent labels: these give a value near 0. 0 if one of the two has a
    single class.
  """
  rows, row_counts = np.unique(first_labels, return_inverse=True,
                               return_counts=True)[1:]
  columns, column_counts = np.unique(second_labels, return_inverse=True,
                                     return_counts=True)[1:]
  pairs, counts = np.unique(rows * len(column_counts) + columns,
                            return_counts=True)
  expected = (row_counts[pairs // len(column_counts)].astype(np.float64)
              * column_counts[pairs % len(column_counts)])
  chi_square = len(rows) * (np.sum(counts ** 2 / expected) - 1)
  freedom = (len(row_counts) - 1) * (len(column_counts) - 1)
  return (chi_square - freedom) / np.sqrt(2 * freedom) if freedom else 0.0
