"""Images and labels -> noisy TFRecords and noise.json, for each noise level."""
import os
import re
import shlex
import typing

import numpy as np

from mentormix import files
from mentormix.data import cifar_archive
from mentormix.data import digits
from mentormix.data import download
from mentormix.data import holdout
from mentormix.data import image_folders
from mentormix.data import image_set
from mentormix.data import label_checks
from mentormix.data import label_files
from mentormix.data import noise
from mentormix.data import noise_facts
from mentormix.data import preparation_settings
from mentormix.data.photos import preparation as photos
from mentormix.data.photos import settings as photos_settings
from mentormix.messages import RunError, UserError

FORMAT_VERSION = 2  # Of the directories written.
_TRAIN, _HELD_OUT, _TEST = 'train', 'held out', 'test'
_MOST_CLASSES = 20  # That are printed.


class _Target(typing.NamedTuple):
  """A directory to write."""
  path: str
  part: str  # _TRAIN, _HELD_OUT or _TEST: which images.
  rate: typing.Optional[float]  # Of the noise; None where none is asked.
  asked: dict  # The part of noise.json that the settings determine.
  keep: bool  # It is finished and was made with these settings.


class _Split(typing.NamedTuple):
  """Images and labels in the order of the source, for a directory."""
  images: np.ndarray  # uint8 [N, H, W, 3].
  ids: list  # N strings.
  clean: typing.Optional[np.ndarray]  # int64 [N]; None if not known.
  given: np.ndarray  # int64 [N].
  transition: typing.Optional[np.ndarray] = None  # int64 [K]; asymmetric noise.


def prepare(settings):
  """Writes one directory per noise level, and the test set.

  All inputs are checked before anything is written.

  Args:
    settings: a `preparation_settings.Settings`.

  Raises:
    UserError: an input is bad, or a directory is in the way.
    RunError: writing failed.
  """
  holdout.check(settings.holdout)
  if photos_settings.is_asked(settings):
    photos.prepare(settings)
    return
  settings = preparation_settings.checked(settings)
  if settings.image_dir:
    source = image_folders.find(settings.image_dir)
  else:
    source = download.locate(settings.dataset_name, settings.archive,
                             settings.md5, image_set.DIRECTORY)
  label_file = settings.noise_file and label_files.read(
      settings.noise_file, settings.noise_key, settings.noise_index)
  parts = (_TRAIN, _HELD_OUT) if settings.holdout else (_TRAIN,)
  tests = []
  if not settings.image_dir or source.val:
    tests = [_target(settings, source, label_file, _TEST)]
  targets = tests + [
      _target(settings, source, label_file, part, rate)
      for rate in settings.noise_levels for part in parts]
  if not all(target.keep for target in targets):
    images, file_labels = _read(settings, source, label_file)
    splits = [_split(settings, target, images, file_labels)
              for target in targets]
    files.writable_directory(settings.output_dir, 'output_dir')
  for index, target in enumerate(targets):
    if target.keep:
      print(f'{target.path}: kept, it is finished and has these settings')
    else:
      _write(settings, target, source, images.class_names, splits[index])
  path = targets[len(tests)].path
  print(f'Now train with --dataset_name={settings.dataset_name} '
        f'--data_dir={shlex.quote(path)}'
        + (f' and evaluate with --data_dir={shlex.quote(tests[0].path)}'
           if tests else '; there is no test set')
        + holdout.hint(path, settings.holdout))


def _target(settings, source, label_file, part, rate=None):
  """The `_Target` of a part; UserError if its directory cannot be written."""
  asked = {
      'format_version': FORMAT_VERSION, 'dataset_name': settings.dataset_name,
      'image_size': settings.image_size,
      'split': 'train' if part == _TRAIN else 'test', 'noise_type': None,
      'rate_asked': 0.0, 'seed': None, 'num_train': None,
      'archive_md5': source.md5}
  if settings.num_shards:
    asked['num_shards'] = settings.num_shards
  name = 'val'
  if part != _TEST:
    asked.update(noise_type=settings.noise_type, rate_asked=rate,
                 seed=settings.seed, num_train=settings.num_train)
    if settings.skip_train:
      asked['skip_train'] = settings.skip_train
    if settings.holdout:
      asked['holdout'] = settings.holdout
    if settings.noise_type == noise.FOLDERS:
      asked['rate_asked'] = None
    if settings.noise_type == noise.FILE:
      name = _file_level_name(settings)
      asked.update(noise_file=os.path.basename(label_file.path),
                   noise_file_md5=label_file.md5, noise_key=label_file.key)
    else:
      name = noise.level_name(rate)
  path = os.path.join(settings.output_dir, name)
  if part == _HELD_OUT:
    path = holdout.directory_of(path)
  elif part == _TRAIN and not settings.holdout:
    holdout.refuse_old(path)
  return _Target(path, part, rate, asked,
                 noise_facts.keep(path, asked, settings.overwrite))


def _file_level_name(settings):
  """The directory of the labels of a file: their key, or the file's name."""
  name = settings.noise_key or os.path.splitext(
      os.path.basename(settings.noise_file))[0]
  if name == 'val' or not re.match(r'[\w-][\w.-]*\Z', name):
    raise UserError(f'{name!r} cannot name a directory of labels; rename the '
                    f'key or --noise_file={settings.noise_file}')
  return name


# The images.


def _read(settings, source, label_file):
  """The images to write, and their labels in `label_file` (None without)."""
  if settings.image_dir:
    images = image_folders.read(source, settings.image_size,
                                settings.max_bad_records)
    _print_classes(settings, images.class_names)
  elif settings.dataset_name == 'digits':
    images = digits.digits()
  else:
    if source.url:
      download.download(source.url, source.path, source.md5)
    images = cifar_archive.read(source.path, settings.dataset_name)
  labels, num_test = images.train_labels, len(images.test_labels)
  ids = images.train_ids or list(map(str, range(len(labels))))
  # A label file may have the labels of bad images, too.
  file_labels = label_file and label_checks.fit(
      label_file, labels, len(images.class_names), ids, settings.force_labels)
  usable = np.arange(len(labels))
  if images.usable is not None:
    usable = np.flatnonzero(images.usable)
  left = max(0, len(usable) - settings.skip_train)
  num_train = settings.num_train or left
  if not 0 < num_train <= left:
    raise UserError(
        f'--num_train={num_train} with --skip_train={settings.skip_train}: of '
        f'the {len(usable)} training images {left} are left')
  if not num_test and not (settings.image_dir and not source.val):
    raise UserError(f'--image_dir={settings.image_dir} has no test images')
  fewest = min(num_train, num_test or num_train)
  if settings.holdout:
    held = holdout.held_out(num_train, settings.holdout, settings.seed)
    fewest = min(fewest, held.sum(), (~held).sum())
  if (settings.num_shards or 1) > fewest:
    raise UserError(f'--num_shards={settings.num_shards} leaves files empty: a '
                    f'split has {fewest} images')
  rows = usable[_part(labels[usable], settings.skip_train, num_train,
                      evenly=bool(settings.image_dir))]
  return images._replace(
      train_images=images.train_images[rows], train_labels=labels[rows],
      train_ids=[ids[row] for row in rows],
      test_ids=images.test_ids or [str(row) for row in range(num_test)],
  ), file_labels if file_labels is None else file_labels[rows]


def _print_classes(settings, class_names):
  """Prints which id each class of a folder has."""
  shown = ', '.join(f'{label} = {name}'
                    for label, name in enumerate(class_names[:_MOST_CLASSES]))
  if len(class_names) > _MOST_CLASSES:
    shown += f', ... {len(class_names) - 1} = {class_names[-1]}'
  read = (f', as {settings.noise_file} is read' if settings.noise_file else '')
  print(f'{len(class_names)} classes by id{read}: {shown}')


def _part(labels, skipped, count, evenly):
  """The indices of `count` examples after the first `skipped`, in order.

  The images of a folder come class after class. They are taken `evenly`: the
  first of every class, then the second of every class, and so on.
  """
  if not evenly:
    return np.arange(skipped, skipped + count)
  ranks = np.zeros(len(labels), np.int64)
  for k in np.unique(labels):
    ranks[labels == k] = np.arange(np.sum(labels == k))
  return np.sort(np.lexsort((labels, ranks))[skipped:skipped + count])


def _split(settings, target, images, file_labels):
  """What goes into the directory `target`, a `_Split`."""
  if target.part == _TEST:
    return _Split(images.test_images, images.test_ids, images.test_labels,
                  images.test_labels)
  split = _Split(images.train_images, images.train_ids, images.train_labels,
                 images.train_labels)
  if settings.noise_type == noise.FILE:
    return split._replace(given=file_labels)
  if settings.noise_type == noise.FOLDERS:
    return split._replace(clean=None)
  transition = None
  if settings.noise_type == noise.ASYMMETRIC:
    transition = noise.transition(settings.dataset_name, images.superclass)
  return split._replace(transition=transition, given=noise.corrupt(
      split.clean, target.rate, settings.noise_type, len(images.class_names),
      settings.seed, transition))


# Writing.


def record_order(count, seed):
  """The order of the training records on disk, a permutation of `count` ints.

  Training shuffles only within a small window, so most of the shuffling happens
  here. The random stream is not that of the noise: if both used the same
  permutation, the noisy examples would all come first.
  """
  return np.random.RandomState([seed, 1]).permutation(count)


def _write(settings, target, source, class_names, split):
  """Writes one directory atomically."""
  # TensorFlow takes seconds to load; bad input is reported before that.
  from mentormix.data import datasets
  rows, asked = np.arange(len(split.given)), dict(target.asked)
  if settings.holdout and target.part != _TEST:
    held = holdout.held_out(len(rows), settings.holdout, settings.seed)
    rows = np.flatnonzero(held == (target.part == _HELD_OUT))
    asked.update(holdout.facts(settings.holdout, held))
  count, train = len(rows), target.part == _TRAIN
  order = rows[record_order(count, settings.seed)] if train else rows
  asked['num_shards'] = settings.num_shards or min(
      preparation_settings.NUM_SHARDS, count)
  facts = noise_facts.facts(asked, source.path, class_names, split._replace(
      given=split.given[rows],
      clean=None if split.clean is None else split.clean[rows]))
  fine_labels = None
  if settings.dataset_name == 'cifar100':
    fine_labels = split.clean if train else split.given
  try:
    with files.new_directory(target.path) as directory:
      datasets.write_files(
          os.path.join(directory,
                       f'{settings.dataset_name}_{asked["split"]}-'),
          asked['num_shards'], order, split.images, split.given, split.clean,
          split.ids, fine_labels)
      if train:
        label_files.write_json(directory, split.given)
      if target.part != _TEST:
        label_files.write_csv(directory, split.given, split.clean, split.ids,
                              rows)
      facts['sha256'] = {name: files.sha256_of(os.path.join(directory, name))
                         for name in os.listdir(directory)}
      noise_facts.write_facts(directory, facts)
  except OSError as error:
    raise RunError(f'cannot write {target.path} ({error})')
  print(f'{target.path}: {count} examples, '
        + _how(settings, target, facts))


def _how(settings, target, facts):
  """What the screen says of the labels."""
  if target.part == _TEST:
    return 'clean'
  how = {noise.FOLDERS: 'labels as in the folders',
         noise.FILE: f'labels of {facts.get("noise_file")}'}.get(
             settings.noise_type,
             f'{settings.noise_type} noise, {target.rate or 0:g} asked')
  if facts['rate_realised'] is not None:
    how += f', {facts["rate_realised"]:.4f} realised'
  return how
