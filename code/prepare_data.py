r"""Makes noisy training sets and the clean test set, as TFRecords.

    python code/prepare_data.py --dataset_name=cifar10

downloads the official archive to data/ and writes data/cifar10/0.2, 0.4, 0.6
and 0.8 for training and data/cifar10/val for evaluation. `digits` needs no
download.

    ... --dataset_name=cifar10 --noise_file=cifar10n.npz --noise_key=worse
    ... --dataset_name=pets --image_dir=DIR

take the labels from a file, and custom PNG or JPEG images from
DIR/train/<class> and DIR/val/<class>. In each directory noise.json says how it
was made, and labels.json and labels.csv hold the labels. The same settings give
the same bytes on every machine. A finished directory is overwritten only with
--overwrite.
"""
import contextlib
import json
import os
import re
import signal
import struct
import sys
import typing
import zlib

from absl import flags
import numpy as np
import tqdm

from mentormix import archives
from mentormix import command
from mentormix import files
from mentormix import image_folders
from mentormix import label_files
from mentormix import noise
from mentormix.command import RunError
from mentormix.command import UserError

FORMAT_VERSION = 2  # Of the directories written; two must match in it.

DOWNLOAD_DIR = 'data'
_KNOWN = ', '.join(sorted(archives.NUM_CLASSES))


class Settings(typing.NamedTuple):
  """What to make; each field is what the flag of its name says."""
  dataset_name: str
  output_dir: str
  noise_levels: tuple  # Floats; (None,) for the labels of a file.
  noise_type: str  # Of NOISE_TYPES, or noise.FILE or noise.FOLDERS.
  archive: typing.Optional[str] = None
  md5: typing.Optional[str] = None
  image_dir: typing.Optional[str] = None
  image_size: int = archives.IMAGE_SIZE
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


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string(
      'dataset_name', None, f'The data set: {_KNOWN}, or a name of your choice '
      'with --image_dir.')
  flags.DEFINE_string(
      'archive', None, 'A local .tar.gz archive or its URL; by default the '
      f'official one is downloaded to {DOWNLOAD_DIR}/.')
  flags.DEFINE_string(
      'md5', None, 'The checksum that --archive must have; by default that of '
      'the official archive, which a local file may differ from.')
  flags.DEFINE_string(
      'image_dir', None, 'Custom images, PNG or JPEG: its train/<class>/* and '
      'val/<class>/*.')
  flags.DEFINE_integer(
      'image_size', archives.IMAGE_SIZE, 'Height and width that the images of '
      '--image_dir are resized to, a multiple of 4.',
      lower_bound=8, upper_bound=512)
  flags.DEFINE_string(
      'output_dir', None, 'Where the directories go; by default '
      'data/<dataset_name>.')
  flags.DEFINE_list(
      'noise_levels', '0.2,0.4,0.6,0.8', 'Shares of the training labels to '
      'corrupt, 0 to 1; each gets a directory. With --image_dir the default is '
      'none: the labels are the folders, in a directory 0.')
  flags.DEFINE_enum(
      'noise_type', noise.SYMMETRIC_OTHERS, list(noise.NOISE_TYPES),
      '; '.join(f'{name}: {what}' for name, what in noise.NOISE_TYPES.items())
      + '.')
  flags.DEFINE_string(
      'noise_file', None, 'Take the training labels from this file: JSON, CSV, '
      '.npz, .npy or .pt, in the order of the archive, or of the sorted paths.')
  flags.DEFINE_string(
      'noise_key', None, 'Which labels of --noise_file, such as worse or '
      'noisy_label.')
  flags.DEFINE_string(
      'noise_index', None, 'The .npy file that maps the order of --noise_file '
      'to that of the archive, such as image_order_c10.npy.')
  flags.DEFINE_integer(
      'seed', 0, 'Seed of the noise and of the order of the records.',
      lower_bound=0, upper_bound=noise.MAX_SEED)
  flags.DEFINE_integer(
      'num_train', None, 'Number of training images to take, the first ones; '
      'with --image_dir evenly over the classes. All by default.',
      lower_bound=1)
  flags.DEFINE_integer(
      'skip_train', 0, 'Number of training images to leave out, the first ones '
      'in the order of --num_train, for example those of another set.',
      lower_bound=0)
  flags.DEFINE_integer(
      'num_shards', 10, 'Number of files per directory.',
      lower_bound=1, upper_bound=99999)
  flags.DEFINE_boolean(
      'overwrite', False, 'Replace directories that an earlier run made.')


def main():
  """Flags -> settings -> files."""
  settings = _settings_from_flags(flags.FLAGS)
  with _stopped_by_signals():
    prepare(settings)


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


def _settings_from_flags(values):
  """Checks what the flags themselves could not; returns `Settings`."""
  _check_combinations(values)
  if values.md5 is not None and not re.match('[0-9a-fA-F]{32}$', values.md5):
    raise UserError(f'--md5={values.md5} is not 32 hexadecimal digits')
  if values.image_size % 4:  # The students halve it twice.
    raise UserError(f'--image_size={values.image_size} is not a multiple of 4')
  levels = noise.parse_levels(values.noise_levels)
  noise_type = values.noise_type
  if values.noise_file:
    levels, noise_type = (None,), noise.FILE
  elif values.image_dir and (not values['noise_levels'].present
                             or not any(levels)):
    if values['noise_type'].present:
      raise UserError(f'--noise_type={noise_type} with --image_dir also needs '
                      '--noise_levels above 0')
    levels, noise_type = (0.0,), noise.FOLDERS
  return command.from_flags(Settings)._replace(
      md5=values.md5 and values.md5.lower(),
      output_dir=values.output_dir or os.path.join('data', values.dataset_name),
      noise_levels=levels, noise_type=noise_type)


def _check_combinations(values):
  """Raises UserError for flags that are empty or do not go together."""
  for flag in ('archive', 'image_dir', 'noise_file', 'noise_key',
               'noise_index'):
    if values[flag].value == '':
      raise UserError(f'--{flag} is empty; give it a value, or leave it out')
  for flag, other in (('archive', 'image_dir'), ('md5', 'image_dir'),
                      ('noise_levels', 'noise_file'),
                      ('noise_type', 'noise_file')):
    if values[flag].present and values[other].present:
      raise UserError(f'--{flag} and --{other} exclude each other; leave one '
                      'of them out')
  for flag, other in (('image_size', 'image_dir'), ('noise_key', 'noise_file'),
                      ('noise_index', 'noise_file')):
    if values[flag].present and not values[other].present:
      raise UserError(f'--{flag} needs --{other}')

  name = values.dataset_name
  if name is None:
    raise UserError(f'--dataset_name is missing; use {_KNOWN}, or any other '
                    'name with --image_dir')
  if values.image_dir:
    if name in archives.NUM_CLASSES:
      raise UserError(f'--dataset_name={name} is a known data set; give the '
                      'images in --image_dir another name')
    if not re.match(r'[A-Za-z0-9_-]+\Z', name):
      raise UserError(f'--dataset_name={name}: a custom name has only letters, '
                      'digits, _ and -')
  elif name not in archives.NUM_CLASSES:
    raise UserError(f'--dataset_name={name} is unknown; use {_KNOWN}, or pass '
                    'custom images with --image_dir')
  if name == 'digits' and (values.archive or values.md5):
    raise UserError('--dataset_name=digits is embedded; leave --archive and '
                    '--md5 out')


@contextlib.contextmanager
def _stopped_by_signals():
  """Turns signals into an orderly exit, so that `finally` cleans up."""
  # An ignored signal stays ignored: that is how nohup works.
  previous = {number: signal.getsignal(number)
              for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
              if signal.getsignal(number) is not signal.SIG_IGN}

  def stop(number, unused_frame):
    for other in previous:
      signal.signal(other, signal.SIG_IGN)  # Nothing interrupts the clean-up.
    sys.stderr.write(f'\nStopped by signal {number}; finished directories '
                     'stay, the unfinished one is removed.\n')
    sys.exit(128 + number)

  for number in previous:
    signal.signal(number, stop)
  try:
    yield
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


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
    source = archives.locate(settings.dataset_name, settings.archive,
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
    images = archives.digits()
  else:
    if source.url:
      archives.download(source.url, source.path, source.md5)
    images = archives.read(source.path, settings.dataset_name)
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
                           _keep(path, asked, settings.overwrite)))
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


def _keep(path, asked, overwrite):
  """Whether `path` is finished as asked; False if it is to be written.

  Raises:
    UserError: it holds something that must not be lost.
  """
  if not os.path.lexists(path):
    return False
  if os.path.islink(path) or not os.path.isdir(path):
    raise UserError(f'{path} is in the way and not a directory; move it, or '
                    'choose another --output_dir')
  names = sorted(os.listdir(path))
  dataset_name = asked['dataset_name']
  records = (f'{dataset_name}_train-', f'{dataset_name}_test-')
  beside = (noise.FACTS_FILE, label_files.JSON_FILE, label_files.CSV_FILE)
  for name in names:
    if not name.startswith(records) and name not in beside:
      raise UserError(f'{path} holds {name}, which is not part of '
                      f'--dataset_name={dataset_name}; move it away, or choose '
                      'another --output_dir')
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
    found = noise.read_facts(path)
    checksums = dict(found['sha256'])
  except (UserError, ValueError, KeyError, TypeError):
    return f'has no valid {noise.FACTS_FILE}, so how it was made is unknown'
  for key in sorted(asked):
    if found.get(key) != asked[key]:
      return f'was made with {key} {found.get(key)}, not {asked[key]}'
  if sorted(checksums) != [name for name in names if name != noise.FACTS_FILE]:
    return 'lacks files or has too many'
  for name in sorted(checksums):
    if files.sha256_of(os.path.join(path, name)) != checksums[name]:
      return f'has a changed file {name}'
  return None


# Writing.


_STORED_BYTES = 0xffff  # The most that a stored block of zlib holds.


def encode_png(image):
  """Encodes an image as a PNG file without compression.

  The same pixels give the same bytes everywhere, so a checksum of a data set is
  the same on every machine: the output of zlib's compression differs between
  its versions, stored blocks do not. They also decode faster.

  Args:
    image: uint8 [H, W, 3].

  Returns:
    Bytes.
  """
  height, width, _ = image.shape
  rows = np.zeros([height, 1 + 3 * width], np.uint8)  # Filter 0 in column 0.
  rows[:, 1:] = image.reshape(height, 3 * width)
  raw = rows.tobytes()
  stored = [b'\x78\x01']  # A zlib stream of stored blocks, the last one marked.
  for start in range(0, len(raw), _STORED_BYTES):
    block = raw[start:start + _STORED_BYTES]
    stored += [struct.pack('<BHH', start + len(block) == len(raw), len(block),
                           len(block) ^ 0xffff), block]
  stored.append(struct.pack('>I', zlib.adler32(raw)))
  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)  # 8-bit RGB.
  return b''.join([
      archives.PNG_SIGNATURE, _chunk(b'IHDR', header),
      _chunk(b'IDAT', b''.join(stored)), _chunk(b'IEND', b'')])


def _chunk(kind, data):
  return b''.join([struct.pack('>I', len(data)), kind, data,
                   struct.pack('>I', zlib.crc32(kind + data))])


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
  facts = _facts(target, source, class_names, split)
  try:
    with files.new_directory(target.path) as directory:
      _write_records(settings, target, split, directory)
      if target.split == 'train':
        label_files.write(directory, split.given, split.clean, split.ids)
      facts['sha256'] = {name: files.sha256_of(os.path.join(directory, name))
                         for name in os.listdir(directory)}
      with files.replaced(os.path.join(directory, noise.FACTS_FILE)) as f:
        json.dump(facts, f, indent=1, sort_keys=True)
        f.write('\n')
  except (OSError, tf.errors.OpError) as error:
    raise RunError(f'cannot write {target.path} ({error})')
  print(f'{target.path}: {len(split.given)} examples, '
        + _in_words(settings, target, facts))


def _facts(target, source, class_names, split):
  """What noise.json says, but for the checksums: a dict."""
  count = lambda labels: np.bincount(labels, None, len(class_names)).tolist()
  facts = dict(
      target.asked,
      definition=noise.DEFINITIONS.get(target.asked['noise_type'], 'clean'),
      rate_realised=None, num_examples=len(split.given), num_changed=None,
      num_classes=len(class_names), class_names=class_names,
      clean_label_counts=None, given_label_counts=count(split.given),
      transition=(None if split.transition is None
                  else split.transition.tolist()),
      archive=os.path.basename(os.path.abspath(source.path)))
  if split.clean is not None:
    facts.update(
        rate_realised=noise.realised_rate(split.clean, split.given),
        num_changed=int(np.sum(split.clean != split.given)),
        clean_label_counts=count(split.clean))
  return facts


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
  from mentormix import datasets  # pylint: disable=g-import-not-at-top
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
              encode_png(split.images[index]), split.given[index],
              None if split.clean is None else split.clean[index],
              split.clean[index] if has_fine_label else None,
              split.ids[index]))
          bar.update()


if __name__ == '__main__':
  cli()
