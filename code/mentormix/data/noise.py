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
RED, BLUE = 'red', 'blue'  # Controlled Noisy Web Labels.

DEFINITIONS = dict(NOISE_TYPES, **{
    FILE: 'the labels are those of a file',
    RED: 'images of the web whose label is wrong replace images; every image '
         'of the web counts as wrong',
    BLUE: 'labels are replaced as published; those of the same images '
          'without noise count as clean',
    FOLDERS: 'the labels are the folders of the images; which of them are '
             'wrong is not known'})

# Patrini et al. 2017: the class that a person might take each class for. In
# cifar10: truck > automobile, bird > airplane, deer > horse, cat <> dog.
# cifar100 follows its superclasses instead.
_TARGETS = {'cifar10': (0, 1, 0, 5, 7, 3, 6, 7, 8, 1),
            'digits': (0, 1, 7, 8, 4, 6, 5, 1, 8, 9)}

LEVELS = (0.2, 0.4, 0.6, 0.8)  # By default.
WRONG_LABEL = -2  # A clean label: the given one is wrong, the right unknown.
MAX_SEED = 2**32 - 1  # What numpy.random.RandomState takes.


def transition(dataset_name, superclass=None):
  """Returns the class that asymmetric noise maps each class to.

  Args:
    dataset_name: cifar10, cifar100 or digits.
    superclass: for cifar100, the superclass of every class, ints [K].

  Returns:
    int64 [K]; a class without a target is mapped to itself. For cifar100, the
    next class of the same superclass, from the last one to the first.

  Raises:
    UserError: no map is defined for this data set.
  """
  if dataset_name in _TARGETS:
    return np.array(_TARGETS[dataset_name], np.int64)
  if superclass is None:
    raise UserError(f'--noise_type={ASYMMETRIC} is not defined for '
                    f'--dataset_name={dataset_name}; use another noise type')
  targets = np.empty(len(superclass), np.int64)
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
    UserError: the rate or the noise type is not one of those above.
  """
  if not 0 <= rate <= 1 or noise_type not in NOISE_TYPES:
    raise UserError(f'{noise_type} noise of rate {rate} is not defined')
  labels = np.array(labels, dtype=np.int64)  # A copy.
  random = np.random.RandomState(seed)
  count = int(round(rate * len(labels)))
  picked = random.permutation(len(labels))[:count]
  if noise_type == SYMMETRIC:
    labels[picked] = random.randint(0, num_classes, size=count, dtype=np.int64)
  elif noise_type == SYMMETRIC_OTHERS:
    shift = random.randint(1, num_classes, size=count, dtype=np.int64)
    labels[picked] = (labels[picked] + shift) % num_classes
  else:
    labels[picked] = np.asarray(transition)[labels[picked]]
  return labels


def realised_rate(clean_labels, given_labels):
  """The share of given labels [N] that are not the clean ones [N], a float."""
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
  try:
    levels = tuple(map(float, texts))
  except ValueError:
    levels = ()
  names = set(map(level_name, levels))
  if not levels or len(names) < len(levels) or not all(
      0 <= level <= 1 for level in levels):
    raise UserError(
        f'--noise_levels={",".join(map(str, texts))} must be different numbers '
        'from 0 to 1; write for example --noise_levels=0.2,0.4')
  return levels


def level_name(level):
  """The directory of a noise level."""
  return f'{level + 0.:g}'  # -0.0 is 0.
