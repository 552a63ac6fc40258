"""Images and labels -> noisy TFRecords with noise.json, at every noise level."""
import json
import os
import re
import typing

import numpy as np
import tqdm

from mentormix.data import cifar_archive
from mentormix.data import digits
from mentormix.data import download
from mentormix.data import image_folders
from mentormix.data import image_set
from mentormix.data import label_files
from mentormix.data import noise
from mentormix.data import noise_facts
from mentormix.data import png
from mentormix import files
from mentormix.messages import RunError
from mentormix.messages import UserError

FORMAT_VERSION = 2  # Of the directories written; two must match in it.

DOWNLOAD_DIR = 'data'


class Settings(typing.NamedTuple):
  """What to make; each field is what the flag of its name says."""
  dataset_name: str
  output_dir: str
  noise_levels: tuple  # Floats; (None,) for the labels of a file.
  noise_type: str  # Of NOISE_TYPES, or noise.FILE or noise.FOLDERS.
  archive: typing.Optional[str] = None
  md5: typing.Optional[str] = None
  image_dir: typing.Optional[str] = None
  image_size: int = image_set.IMAGE_SIZE
  noise_file: typing.Optional[str] = None
  noise_key: typing.Optional[str] = None
  noise_index: typing.Optional[str] = None
  seed: int = 0
  num_train: typing.Optional[int] = None
  skip_train: int = 0
  num_shards: int = 10
  overwrite: bool = False


class _Target(typing.NamedTuple):
  """A directory to write."""
  path: str
  split: str  # train or test.
  rate: typing.Optional[float]  # Of the noise; None where none is asked.
  asked: dict  # The part of noise.json that the settings determine.
  keep: bool  # It is finished and was made with these settings.


class _Split(typing.NamedTuple):
  """What goes into a directory, in the order of the source."""
  images: np.ndarray  # uint8 [N, H, W, 3].
  ids: list  # N strings.
  clean: typing.Optional[np.ndarray]  # int64 [N]; None if not known.
  given: np.ndarray  # int64 [N].
  transition: typing.Optional[np.ndarray]  # int64 [K]; asymmetric noise only.


def prepare(settings):
  """Writes one directory per noise level, and the test set.

  All inputs are checked before anything is written.

  Args:
    settings: a `Settings`.

  Raises:
    UserError: an input is bad, or a directory is in the way.
    RunError: writing failed.
  """
  if settings.image_dir:
    source = image_folders.find(settings.image_dir)
    parent = os.path.join(os.path.realpath(settings.image_dir), '')
    if os.path.join(os.path.realpath(settings.output_dir), '').startswith(
        parent):
      raise UserError(f'--output_dir={settings.output_dir} is within '
                      f'--image_dir={settings.image_dir}; choose another')
  else:
    source = download.locate(settings.dataset_name, settings.archive,
                             settings.md5, DOWNLOAD_DIR)
  label_file = settings.noise_file and label_files.read(
      settings.noise_file, settings.noise_key, settings.noise_index)
  targets = _plan(settings, source, label_file)
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
  print(f'Now train with --dataset_name={settings.dataset_name} '
        f'--data_dir={targets[1].path} and evaluate with '
        f'--data_dir={targets[0].path}')


# The images.


def _read(settings, source, label_file):
  """The images to write, and their labels in `label_file` (None without)."""
  if settings.image_dir:
    images = image_folders.read(source, settings.image_size)
  elif settings.dataset_name == 'digits':
    images = digits.digits()
  else:
    if source.url:
      download.download(source.url, source.path, source.md5)
    images = cifar_archive.read(source.path, settings.dataset_name)
  total, skipped = len(images.train_labels), settings.skip_train
  if skipped >= total:
    raise UserError(f'--skip_train={skipped} leaves none of the {total} '
                    'training images')
  num_train = settings.num_train or total - skipped
  if skipped + num_train > total:
    raise UserError(f'--num_train={num_train} is more than the '
                    f'{total - skipped} training images'
                    + (' after --skip_train' if skipped else ''))
  smallest = min(num_train, len(images.test_labels))
  if settings.num_shards > smallest:
    raise UserError(f'--num_shards={settings.num_shards} leaves files empty: a '
                    f'split has {smallest} images')
  file_labels = label_file and label_files.fit(
      label_file, images.train_labels, len(images.class_names))
  if num_train < total:
    rows = _part(images.train_labels, skipped, num_train,
                 evenly=bool(settings.image_dir))
    ids = _ids(images.train_ids, images.train_labels)
    file_labels = label_file and file_labels[rows]
    images = images._replace(
        train_images=images.train_images[rows],
        train_labels=images.train_labels[rows],
        train_ids=[ids[row] for row in rows])
  return images, file_labels


def _part(labels, skipped, count, evenly):
  """The indices of `count` examples after the first `skipped`, in order.

  Args:
    labels: ints [N].
    skipped: how many to leave out.
    count: how many to take.
    evenly: whether to take the first of every class, then the second of every
      class, and so on; the images of a folder come class after class.
  """
  if not evenly:
    return np.arange(skipped, skipped + count)
  ranks = np.zeros(len(labels), np.int64)
  for k in np.unique(labels):
    ranks[labels == k] = np.arange(np.sum(labels == k))
  return np.sort(np.lexsort((labels, ranks))[skipped:skipped + count])


def _split(settings, target, images, file_labels):
  """What goes into the directory `target`, a `_Split`."""
  if target.split == 'test':
    labels = images.test_labels
    return _Split(images.test_images, _ids(images.test_ids, labels), labels,
                  labels, None)
  labels = images.train_labels
  clean, given, transition = labels, labels, None
  if settings.noise_type == noise.FILE:
    given = file_labels
  elif settings.noise_type == noise.FOLDERS:
    clean = None
  else:
    if settings.noise_type == noise.ASYMMETRIC:
      transition = noise.transition(settings.dataset_name, images.superclass)
    given = noise.corrupt(labels, target.rate, settings.noise_type,
                          len(images.class_names), settings.seed, transition)
  return _Split(images.train_images, _ids(images.train_ids, labels), clean,
                given, transition)


def _ids(ids, labels):
  return ids or [str(index) for index in range(len(labels))]


# Directories that exist already.


def _plan(settings, source, label_file):
  """The directories to write or keep; the test set comes first.

  Raises:
    UserError: one cannot be written or holds something else.
  """
  _check_writable(settings.output_dir)
  targets = []
  for split, rate in [('test', None)] + [
      ('train', rate) for rate in settings.noise_levels]:
    train = split == 'train'
    asked = {
        'format_version': FORMAT_VERSION,
        'dataset_name': settings.dataset_name,
        'image_size': settings.image_size,
        'split': split,
        'noise_type': settings.noise_type if train else None,
        'rate_asked': rate if train else 0.0,
        'seed': settings.seed if train else None,
        'num_train': settings.num_train if train else None,
        'num_shards': settings.num_shards,
        'archive_md5': source.md5,
    }
    if train and settings.skip_train:
      asked['skip_train'] = settings.skip_train
    if not train:
      name = 'val'
    elif settings.noise_type == noise.FILE:
      name = _file_level_name(settings)
      asked.update(noise_file=os.path.basename(label_file.path),
                   noise_file_md5=label_file.md5, noise_key=label_file.key)
    else:
      name = noise.level_name(rate)
      if settings.noise_type == noise.FOLDERS:
        asked['rate_asked'] = None
    path = os.path.join(settings.output_dir, name)
    targets.append(_Target(path, split, rate, asked,
                           noise_facts.keep(path, asked, settings.overwrite)))
  return targets


def _file_level_name(settings):
  """The directory of the labels of a file: their key, or the file's name."""
  name = settings.noise_key or os.path.splitext(
      os.path.basename(settings.noise_file))[0]
  if name == 'val' or not re.match(r'[A-Za-z0-9_-][A-Za-z0-9_.-]*\Z', name):
    what = 'the key' if settings.noise_key else settings.noise_file
    raise UserError(f'{name!r} cannot name a directory of labels; rename '
                    + what)
  return name


def _check_writable(path):
  """Raises UserError unless directories can be made in `path`."""
  parent = os.path.abspath(path)
  while not os.path.lexists(parent):
    parent = os.path.dirname(parent)
  if not os.path.isdir(parent):
    raise UserError(f'--output_dir={path}: {parent} is not a directory; choose '
                    'another')
  if not os.access(parent, os.W_OK | os.X_OK):
    raise UserError(f'--output_dir={path}: {parent} is not writable; choose '
                    'another')


def record_order(count, seed):
  """The order of the training records on disk.

  Training shuffles only within a small window, so most of the shuffling happens
  here. The random stream is not that of the noise: if both used the same
  permutation, the noisy examples would all come first.

  Args:
    count: N.
    seed: as for the noise.

  Returns:
    A permutation, ints [N].
  """
  return np.random.RandomState([seed, 1]).permutation(count)


def _write(settings, target, source, class_names, split):
  """Writes one directory atomically.

  Args:
    settings: a `Settings`.
    target: a `_Target`.
    source: an `archives.Source` or `image_folders.Folder`.
    class_names: K strings.
    split: a `_Split`.
  """
  # TensorFlow takes seconds to load; bad input is reported before that.
  from mentormix.runtime import tf  # pylint: disable=g-import-not-at-top
  facts = noise_facts.facts(target, source, class_names, split)
  try:
    with files.new_directory(target.path) as directory:
      _write_records(settings, target, split, directory)
      if target.split == 'train':
        label_files.write(directory, split.given, split.clean, split.ids)
      facts['sha256'] = {name: files.sha256_of(os.path.join(directory, name))
                         for name in os.listdir(directory)}
      with files.replaced(os.path.join(directory, noise_facts.FACTS_FILE)) as f:
        json.dump(facts, f, indent=1, sort_keys=True)
        f.write('\n')
  except (OSError, tf.errors.OpError) as error:
    raise RunError(f'cannot write {target.path} ({error})')
  print(f'{target.path}: {len(split.given)} examples, '
        + _in_words(settings, target, facts))


def _in_words(settings, target, facts):
  """Describes the labels of a finished directory."""
  if target.split == 'test':
    return 'clean'
  if settings.noise_type == noise.FOLDERS:
    return 'labels as in the folders'
  if settings.noise_type == noise.FILE:
    return (f'labels of {facts["noise_file"]}, {facts["rate_realised"]:.4f} '
            'realised')
  return (f'{settings.noise_type} noise, {target.rate:g} asked, '
          f'{facts["rate_realised"]:.4f} realised')


def _write_records(settings, target, split, directory):
  """Writes the TFRecords of one directory."""
  from mentormix.data import datasets  # pylint: disable=g-import-not-at-top
  from mentormix.runtime import tf  # pylint: disable=g-import-not-at-top
  order = np.arange(len(split.given))
  if target.split == 'train':
    order = record_order(len(order), settings.seed)
  has_fine_label = settings.dataset_name == 'cifar100'
  prefix = os.path.join(directory, f'{settings.dataset_name}_{target.split}-')
  with tqdm.tqdm(total=len(order), desc=target.path, unit='image', leave=False,
                 disable=None) as bar:
    for shard, indices in enumerate(np.array_split(order, settings.num_shards)):
      with tf.python_io.TFRecordWriter(
          f'{prefix}{shard:05d}-of-{settings.num_shards:05d}') as writer:
        for index in indices:
          writer.write(datasets.encode_example(
              png.encode_png(split.images[index]), split.given[index],
              None if split.clean is None else split.clean[index],
              split.clean[index] if has_fine_label else None,
              split.ids[index]))
          bar.update()
