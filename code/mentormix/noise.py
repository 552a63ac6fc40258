"""Label noise: three definitions that share a name in the literature.

"20% symmetric noise" is not one thing. Of 50,000 labels of ten classes,
`symmetric` changes about 9,000 and `symmetric_others` exactly 10,000; a figure
means little without the definition, so it is always written down with the data.

Every definition first picks exactly round(rate * N) examples at random. What
differs is the label they are given.
"""
import collections
import json
import os

import numpy as np

from mentormix import files
from mentormix.command import UserError

FACTS_FILE = 'noise.json'  # Beside every data set: how it came to be.

SYMMETRIC = 'symmetric'
SYMMETRIC_OTHERS = 'symmetric_others'
ASYMMETRIC = 'asymmetric'

NOISE_TYPES = collections.OrderedDict((
    (SYMMETRIC_OTHERS,
     'round(rate * N) examples picked at random are each given a label drawn '
     'uniformly from the other K - 1 classes, so the realised rate is the rate '
     'asked (MentorMix paper)'),
    (SYMMETRIC,
     'round(rate * N) examples picked at random are each given a label drawn '
     'uniformly from all K classes, the true one included, so the realised '
     'rate is about rate * (K - 1) / K (DivideMix and others)'),
    (ASYMMETRIC,
     'round(rate * N) examples picked at random are each given the class that '
     'theirs is mapped to; classes without a target keep their label, so the '
     'realised rate is the rate asked times the share of mapped classes '
     '(Patrini et al. 2017)'),
))

# Labels that come with the images instead.
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

_MAX_BYTES = 4 << 20  # Of a JSON file.
_MAX_DIGITS = 18  # What an int64 holds.
# Fact -> (least, most): what a network and memory are sized by.
_SIZES = {'num_classes': (2, 10**6), 'image_size': (1, 10**4)}


def transition(dataset_name, superclass=None):
  """The class that asymmetric noise maps each class to.

  Args:
    dataset_name: cifar10, cifar100 or digits.
    superclass: for cifar100, the superclass of every class, ints [K].

  Returns:
    int64 [K]; a class without a target is its own.

  Raises:
    UserError: no map is defined for this data set.
  """
  if dataset_name == 'cifar10':
    return _targets(10, _CIFAR10_TARGETS)
  if dataset_name == 'digits':
    return _targets(10, _DIGITS_TARGETS)
  if dataset_name == 'cifar100' and superclass is not None:
    return _next_within_superclass(superclass)
  raise UserError('--noise_type=%s is not defined for --dataset_name=%s; take '
                  'another noise type' % (ASYMMETRIC, dataset_name))


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


def corrupt(labels, rate, noise_type, num_classes, seed, transition=None):  # pylint: disable=redefined-outer-name
  """Gives a share of the examples another label.

  The same arguments give the same labels on every numpy version: only methods
  of RandomState whose streams numpy has frozen are used. Under one seed the
  examples picked for a low rate are picked for every higher rate, too.

  Args:
    labels: the clean labels, ints [N] in 0..num_classes-1.
    rate: the share of examples to pick, 0 to 1.
    noise_type: a key of NOISE_TYPES.
    num_classes: K.
    seed: 0 to MAX_SEED.
    transition: for asymmetric noise, the class that each class is mapped to,
      ints [K]; see `transition`.

  Returns:
    The labels given, int64 [N].

  Raises:
    UserError: an argument is out of its range.
  """
  labels = np.array(labels, dtype=np.int64)  # A copy.
  if not 0 <= rate <= 1:  # Also refuses nan.
    raise UserError('noise level %s is not between 0 and 1' % rate)
  if noise_type not in NOISE_TYPES:
    raise UserError('noise type %s is unknown; known are %s'
                    % (noise_type, ', '.join(NOISE_TYPES)))
  if not 0 <= seed <= MAX_SEED:
    raise UserError('seed %s is not between 0 and %d' % (seed, MAX_SEED))
  if num_classes < 2:
    raise UserError('label noise needs at least 2 classes, not %d'
                    % num_classes)
  if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
    raise UserError('labels go from %d to %d; %d classes are 0 to %d'
                    % (labels.min(), labels.max(), num_classes,
                       num_classes - 1))

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
                      '%d classes' % num_classes)
    labels[picked] = targets[labels[picked]]
  return labels


def realised_rate(clean_labels, given_labels):
  """The share of examples whose label given is not the clean one.

  Args:
    clean_labels: ints [N].
    given_labels: ints [N].

  Returns:
    A float; 0 for no examples.
  """
  changed = np.asarray(clean_labels) != np.asarray(given_labels)
  return float(np.mean(changed)) if changed.size else 0.0


def parse_levels(texts):
  """Noise levels as numbers.

  Args:
    texts: strings.

  Returns:
    A tuple of floats, 0 to 1, with distinct directory names.

  Raises:
    UserError: a level is not such a number, or there is none.
  """
  levels = collections.OrderedDict()
  for text in texts:
    try:
      level = float(text)
    except ValueError:
      level = -1
    if not 0 <= level <= 1:
      raise UserError('--noise_levels: %r is not a number from 0 to 1; write '
                      'for example --noise_levels=0.2,0.4' % text)
    if level_name(level) in levels:
      raise UserError('--noise_levels: %s is there twice' % level_name(level))
    levels[level_name(level)] = level
  if not levels:
    raise UserError('--noise_levels is empty; write for example '
                    '--noise_levels=0.2,0.4')
  return tuple(levels.values())


def level_name(level):
  """The directory of a noise level."""
  return '%g' % (level + 0.)  # -0.0 is 0.


def association(first_labels, second_labels):
  """How far two labellings of the same examples are from independence.

  Args:
    first_labels: ints [N].
    second_labels: ints [N].

  Returns:
    Pearson's chi-square of their table in standard deviations above what chance
    gives: within a few of 0 for independent labels. 0 where one of the two has
    a single class.
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


def read_facts(directory):
  """What the noise.json of a data set says, a dict; None where there is none.

  Raises:
    UserError: the file is damaged, or its sizes are out of range.
  """
  path = os.path.join(directory, FACTS_FILE)
  facts = read_object(path, 'the facts of a data set')
  for name, (least, most) in sorted(_SIZES.items()):
    size = (facts or {}).get(name, least)
    # A bool is an int, but not a size.
    if type(size) is not int or not least <= size <= most:  # pylint: disable=unidiomatic-typecheck
      simple = isinstance(size, (int, float, str, type(None)))
      raise UserError('%s: %s is %.40r, not a whole number from %d to %d; make '
                      'the data set again' % (
                          path, name, size if simple else type(size).__name__,
                          least, most))
  return facts


def read_object(path, what):
  """The object in a JSON file, a dict; None where there is no file.

  Args:
    path: of the file.
    what: it is to hold, for the error.

  Raises:
    UserError: it holds something else, or a number without bounds.
  """
  if not os.path.isfile(path):
    return None
  try:
    found = json.loads(files.contents(path, _MAX_BYTES).decode('utf-8'),
                       parse_int=_integer, parse_float=_finite,
                       parse_constant=_finite)
  except (OSError, ValueError, RecursionError) as error:
    raise UserError('%s cannot be read: %s' % (path, error))
  if not isinstance(found, dict):
    raise UserError('%s does not hold %s' % (path, what))
  return found


def _integer(digits):
  # One of a million digits would take hours.
  if len(digits) > _MAX_DIGITS:
    raise ValueError('the number %.40s is too large' % digits)
  return int(digits)


def _finite(digits):
  value = float(digits)
  if not abs(value) < np.inf:  # NaN, too.
    raise ValueError('the number %.40s is not finite' % digits)
  return value


def check_same(data_dir, directory):
  """Refuses to go on in `directory` with data that were made anew.

  Args:
    data_dir: of the data.
    directory: of a run that `copy_facts` was called for, or any.

  Raises:
    UserError: noise.json says something else in one than in the other.
  """
  here, there = read_facts(data_dir), read_facts(directory)
  if here is not None and there is not None and here != there:
    differing = sorted(key for key in set(here) | set(there)
                       if here.get(key) != there.get(key))
    raise UserError(
        'the data in --data_dir=%s are not those that the run in %s began '
        'with: %s differs in %s; restore them, or name another '
        '--train_log_dir' % (data_dir, directory, FACTS_FILE,
                             ', '.join(differing[:5])))


def copy_facts(data_dir, directory):
  """Puts the noise.json of a data set, if it has one, beside what uses it."""
  facts = read_facts(data_dir)
  if facts is not None:
    with files.replaced(os.path.join(directory, FACTS_FILE)) as f:
      json.dump(facts, f, indent=1, sort_keys=True)
      f.write('\n')
