"""noise.json: how the noise of a data set was made."""
import os

import numpy as np

from mentormix import files
from mentormix.data import label_files
from mentormix.data import noise
from mentormix.messages import UserError

FACTS_FILE = 'noise.json'  # In every data set: how it was made.
ESTIMATE_FILE = 'noise_estimate.json'  # Beside it, where the rate is estimated.
_LABELS = ('dataset_name', 'noise_type', 'rate_asked', 'noise_key', 'seed',
           'holdout', 'num_held_out')
_IF_GIVEN = ('skip_train', 'holdout')  # Absent where nothing was asked.


def read_facts(directory, name=FACTS_FILE):
  """Reads the noise.json of a data set.

  Args:
    directory: where it is.
    name: of the file, if it is a copy.

  Returns:
    A dict; None if there is no such file.

  Raises:
    UserError: the file is damaged.
  """
  return files.read_object(os.path.join(directory, name),
                           'the facts of a data set')


def differing(one, other):
  """What two noise.json say of labels and hold-out in which they differ."""
  return [key for key in _LABELS if one.get(key) != other.get(key)]


def check_same(data_dir, directory, begun_with):
  """Checks that a run is resumed with the data that it began with.

  The noise.json of the data decides, wherever they are; without one, their
  directory.

  Args:
    data_dir: the directory of the data.
    directory: the directory of the run, with what `copy_facts` wrote if it was
      called.
    begun_with: the --data_dir that the run began with.

  Raises:
    UserError: the data differ.
  """
  here, there = read_facts(data_dir), read_facts(directory)
  if here is None or there is None:
    if os.path.realpath(data_dir) != os.path.realpath(begun_with):
      raise UserError(
          f'the run in {directory} began with --data_dir={begun_with}; without '
          f'a {FACTS_FILE}, nothing says that --data_dir={data_dir} holds the '
          'same; give that directory, or name another --train_log_dir')
  elif here != there:
    differing = sorted(key for key in set(here) | set(there)
                       if here.get(key) != there.get(key))
    raise UserError(
        f'the data in --data_dir={data_dir} are not those that the run in '
        f'{directory} began with: {FACTS_FILE} differs in '
        f'{", ".join(differing[:5])}; restore them, or name another '
        '--train_log_dir')


def copy_facts(data_dir, directory):
  """Copies the noise.json of a data set, if it has one, to a directory."""
  facts = read_facts(data_dir)
  if facts is not None:
    write_facts(directory, facts)


def write_facts(directory, facts):
  """Writes a noise.json atomically."""
  files.write_json(os.path.join(directory, FACTS_FILE), facts, indent=1)


def keep(path, asked, overwrite, others=()):
  """Whether `path` is finished as asked; False if it is to be written.

  Args:
    path: of the directory of a data set.
    asked: the part of its noise.json that the settings determine.
    overwrite: whether it may be replaced.
    others: names of files that it may hold, besides the usual.

  Raises:
    UserError: it holds something that must not be lost.
  """
  if not os.path.lexists(path):
    return False
  if os.path.islink(path) or not os.path.isdir(path):
    raise UserError(f'{path} is in the way and not a directory; move it, or '
                    'choose another --output_dir')
  names = sorted(os.listdir(path))
  records = tuple(f'{asked["dataset_name"]}_{x}-' for x in ('train', 'test'))
  beside = (FACTS_FILE, ESTIMATE_FILE, label_files.JSON_FILE,
            label_files.CSV_FILE, *others)
  for name in names:
    if not name.startswith(records) and name not in beside:
      raise UserError(f'{path} holds {name}, which is not part of the data '
                      'set; move it away, or choose another --output_dir')
  if not names or overwrite:
    return False
  difference = _difference(path, names, asked)
  if difference is None:
    return True
  raise UserError(f'{path} {difference}; pass --overwrite to replace it, or '
                  'choose another --output_dir')


def _difference(path, names, asked):
  """How `path` differs from what is asked, in words; None if it does not."""
  try:
    found = read_facts(path) or {}
  except UserError:
    found = {}
  for key in sorted({*asked, *_IF_GIVEN}):
    if found.get(key) != asked.get(key):
      was, wanted = ('none' if facts.get(key) is None else facts[key]
                     for facts in (found, asked))
      return f'was made with {key} {was}, not {wanted}'
  if found.get('sha256') != {name: files.sha256_of(os.path.join(path, name))
                             for name in names
                             if name not in (FACTS_FILE, ESTIMATE_FILE)}:
    return 'has files that were changed, added or removed'
  return None


def facts(asked, source, class_names, split):
  """What noise.json says, without the checksums: a dict.

  Args:
    asked: the part of it that the settings determine.
    source: path of the archive or folder.
    class_names: K strings.
    split: a split as in preparation.py.
  """
  count = lambda labels: np.bincount(labels, None, len(class_names)).tolist()
  clean, given, transition = split.clean, split.given, split.transition
  return dict(
      asked,
      definition=noise.DEFINITIONS.get(asked['noise_type'], 'clean'),
      num_examples=len(given), num_classes=len(class_names),
      class_names=class_names, given_label_counts=count(given),
      clean_label_counts=None if clean is None else count(clean),
      num_changed=None if clean is None else int(np.sum(clean != given)),
      rate_realised=(None if clean is None
                     else noise.realised_rate(clean, given)),
      transition=None if transition is None else transition.tolist(),
      archive=os.path.basename(os.path.abspath(source)))
