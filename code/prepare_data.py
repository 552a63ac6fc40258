r"""Makes noisy training sets and the clean test set, as TFRecords.

    python code/prepare_data.py --dataset_name=cifar10

downloads the official archive into data/ and writes data/cifar10/0.2, 0.4, 0.6
and 0.8 for training and data/cifar10/val for evaluation. `digits` needs no
download.

    ... --dataset_name=cifar10 --noise_file=cifar10n.npz --noise_key=worse
    ... --dataset_name=pets --image_dir=DIR

take the labels from a file instead, and PNG or JPEG images of one's own from
DIR/train/<class> and DIR/val/<class>. In each directory noise.json says how it
came to be, and labels.json and labels.csv hold the labels. The same settings
give the same bytes on every machine. Nothing finished is overwritten unless
--overwrite says so.
"""
import collections
import contextlib
import hashlib
import json
import os
import re
import signal
import struct
import sys
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

FORMAT_VERSION = 2  # Of the directories written; part of "same settings".

DOWNLOAD_DIR = 'data'
_KNOWN = ', '.join(sorted(archives.NUM_CLASSES))

Settings = collections.namedtuple(
    'Settings', 'dataset_name archive md5 image_dir image_size output_dir '
    'noise_levels noise_type noise_file noise_key noise_index seed num_train '
    'skip_train num_shards overwrite')

# One directory to write. `rate` is None where none is asked; `asked` is the
# part of its noise.json that two runs with the same settings share.
_Target = collections.namedtuple('_Target', 'path split rate asked keep')

# What goes into a directory, in the order of the source. `clean` is None where
# it is not known, `transition` without asymmetric noise.
_Split = collections.namedtuple('_Split', 'images ids clean given transition')


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string(
      'dataset_name', None, 'The data set: %s, or a name of your own for '
      '--image_dir.' % _KNOWN)
  flags.DEFINE_string(
      'archive', None, 'A local .tar.gz archive or its URL; by default the '
      'official one is downloaded into %s/.' % DOWNLOAD_DIR)
  flags.DEFINE_string(
      'md5', None, 'The checksum that --archive must have; by default that of '
      'the official archive, which a local file may differ from.')
  flags.DEFINE_string(
      'image_dir', None, 'Images of your own, PNG or JPEG: its train/<class>/* '
      'and val/<class>/*.')
  flags.DEFINE_integer(
      'image_size', archives.IMAGE_SIZE, 'Height and width that the images of '
      '--image_dir are resized to, a multiple of 4.',
      lower_bound=8, upper_bound=512)
  flags.DEFINE_string(
      'output_dir', None, 'Where the directories go; by default '
      'data/<dataset_name>.')
  flags.DEFINE_list(
      'noise_levels', '0.2,0.4,0.6,0.8', 'Shares of the training labels to '
      'corrupt, 0 to 1; one directory each. With --image_dir, none by default: '
      'the labels are the folders\', in a directory 0.')
  flags.DEFINE_enum(
      'noise_type', noise.SYMMETRIC_OTHERS, list(noise.NOISE_TYPES),
      '; '.join('%s: %s' % item for item in noise.NOISE_TYPES.items()) + '.')
  flags.DEFINE_string(
      'noise_file', None, 'Take the training labels from this file instead: '
      'JSON, CSV, .npz, .npy or .pt, in the order of the archive, or of the '
      'sorted paths.')
  flags.DEFINE_string(
      'noise_key', None, 'Which labels of --noise_file, such as worse or '
      'noisy_label.')
  flags.DEFINE_string(
      'noise_index', None, 'The .npy that says how the order of --noise_file '
      'goes with that of the archive, such as image_order_c10.npy.')
  flags.DEFINE_integer(
      'seed', 0, 'Seed of the noise and of the order of the records.',
      lower_bound=0, upper_bound=noise.MAX_SEED)
  flags.DEFINE_integer(
      'num_train', None, 'Take only the first so many training images, of '
      '--image_dir evenly over the classes; all by default.', lower_bound=1)
  flags.DEFINE_integer(
      'skip_train', 0, 'Leave out so many training images, the first ones in '
      'the order of --num_train, as for a set apart from another.',
      lower_bound=0)
  flags.DEFINE_integer(
      'num_shards', 10, 'Number of files per directory.',
      lower_bound=1, upper_bound=99999)
  flags.DEFINE_boolean(
      'overwrite', False, 'Replace directories that an earlier run has made.')


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
  name = values.dataset_name
  if values.md5 is not None and not re.match('[0-9a-fA-F]{32}$', values.md5):
    raise UserError('--md5=%s is not 32 hexadecimal digits' % values.md5)
  if values.image_size % 4:  # The students halve it twice.
    raise UserError('--image_size=%d is not a multiple of 4'
                    % values.image_size)
  levels = noise.parse_levels(values.noise_levels)
  noise_type = values.noise_type
  if values.noise_file:
    levels, noise_type = (None,), noise.FILE
  elif values.image_dir and (not values['noise_levels'].present
                             or not any(levels)):
    if values['noise_type'].present:
      raise UserError('--noise_type=%s with --image_dir needs --noise_levels '
                      'above 0, too' % noise_type)
    levels, noise_type = (0.0,), noise.FOLDERS
  return Settings(
      dataset_name=name,
      archive=values.archive,
      md5=values.md5 and values.md5.lower(),
      image_dir=values.image_dir,
      image_size=values.image_size,
      output_dir=values.output_dir or os.path.join('data', name),
      noise_levels=levels,
      noise_type=noise_type,
      noise_file=values.noise_file,
      noise_key=values.noise_key,
      noise_index=values.noise_index,
      seed=values.seed,
      num_train=values.num_train,
      skip_train=values.skip_train,
      num_shards=values.num_shards,
      overwrite=values.overwrite)


def _check_combinations(values):
  """Raises UserError for flags that are empty or do not go together."""
  for flag in ('archive', 'image_dir', 'noise_file', 'noise_key',
               'noise_index'):
    if values[flag].value == '':
      raise UserError('--%s is empty; give it a value, or leave it out' % flag)
  for flag, other in (('archive', 'image_dir'), ('md5', 'image_dir'),
                      ('noise_levels', 'noise_file'),
                      ('noise_type', 'noise_file')):
    if values[flag].present and values[other].present:
      raise UserError('--%s and --%s exclude each other; leave one of them out'
                      % (flag, other))
  for flag, other in (('image_size', 'image_dir'), ('noise_key', 'noise_file'),
                      ('noise_index', 'noise_file')):
    if values[flag].present and not values[other].present:
      raise UserError('--%s needs --%s' % (flag, other))

  name = values.dataset_name
  if name is None:
    raise UserError('--dataset_name is missing; known are %s, and any name of '
                    'yours with --image_dir' % _KNOWN)
  if values.image_dir:
    if name in archives.NUM_CLASSES:
      raise UserError('--dataset_name=%s is a known data set; give your own '
                      'images in --image_dir another name' % name)
    if not re.match(r'[A-Za-z0-9_-]+\Z', name):
      raise UserError('--dataset_name=%s: a name of your own takes letters, '
                      'digits, _ and -' % name)
  elif name not in archives.NUM_CLASSES:
    raise UserError('--dataset_name=%s is unknown; known are %s; images of '
                    'your own need --image_dir' % (name, _KNOWN))
  if name == 'digits' and (values.archive or values.md5):
    raise UserError('--dataset_name=digits is embedded; leave --archive and '
                    '--md5 out')


@contextlib.contextmanager
def _stopped_by_signals():
  """Turns signals into an orderly exit, so that `finally` cleans up."""
  numbers = [signal.SIGINT, signal.SIGTERM]
  if hasattr(signal, 'SIGHUP'):
    numbers.append(signal.SIGHUP)
  # What is ignored stays so: that is how nohup works.
  previous = {number: signal.getsignal(number) for number in numbers
              if signal.getsignal(number) is not signal.SIG_IGN}

  def stop(number, unused_frame):
    for other in previous:
      signal.signal(other, signal.SIG_IGN)  # Nothing disturbs the cleaning.
    sys.stderr.write('\nStopped by signal %d; finished directories stay, the '
                     'unfinished one is removed.\n' % number)
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

  Everything that can be wrong is looked for before anything is written.

  Args:
    settings: a `Settings`.

  Raises:
    UserError: an input is bad, or a directory is in the way.
    RunError: writing failed.
  """
  if settings.image_dir:
    source = image_folders.find(settings.image_dir)
    inside = os.path.join(os.path.realpath(settings.image_dir), '')
    if os.path.join(os.path.realpath(settings.output_dir), '').startswith(
        inside):
      raise UserError('--output_dir=%s is within --image_dir=%s; choose '
                      'another' % (settings.output_dir, settings.image_dir))
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
    _make_directory(settings.output_dir, '--output_dir=' + settings.output_dir)
  for index, target in enumerate(targets):
    if target.keep:
      print('%s: kept, it is finished and has these settings' % target.path)
    else:
      _write(settings, target, source, images.class_names, splits[index])
  print('Now train with --dataset_name=%s --data_dir=%s and evaluate with '
        '--data_dir=%s' % (settings.dataset_name, targets[1].path,
                           targets[0].path))


# The images.


def _read(settings, source, label_file):
  """The images to write, and their labels in `label_file` (None without)."""
  if settings.image_dir:
    images = image_folders.read(source, settings.image_size)
  elif settings.dataset_name == 'digits':
    images = archives.digits()
  else:
    if source.url:
      _make_directory(DOWNLOAD_DIR, 'the archive goes into '
                      + os.path.abspath(DOWNLOAD_DIR))
      archives.download(source.url, source.path, source.md5)
    images = archives.read(source.path, settings.dataset_name)
  there, skipped = len(images.train_labels), settings.skip_train
  if skipped >= there:
    raise UserError('--skip_train=%d leaves none of the %d training images'
                    % (skipped, there))
  num_train = settings.num_train or there - skipped
  if skipped + num_train > there:
    raise UserError('--num_train=%d is more than the %d training images there '
                    'are%s' % (num_train, there - skipped,
                               skipped and ' after --skip_train' or ''))
  smallest = min(num_train, len(images.test_labels))
  if settings.num_shards > smallest:
    raise UserError('--num_shards=%d leaves files empty: a split has %d images'
                    % (settings.num_shards, smallest))
  file_labels = label_file and label_files.fit(
      label_file, images.train_labels, len(images.class_names))
  if num_train < there:
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
  given, transition = labels, None
  if settings.noise_type == noise.FILE:
    given = file_labels
  elif settings.noise_type != noise.FOLDERS:
    if settings.noise_type == noise.ASYMMETRIC:
      transition = noise.transition(settings.dataset_name, images.superclass)
    given = noise.corrupt(labels, target.rate, settings.noise_type,
                          len(images.class_names), settings.seed, transition)
  clean = None if settings.noise_type == noise.FOLDERS else labels
  return _Split(images.train_images, _ids(images.train_ids, labels), clean,
                given, transition)


def _ids(ids, labels):
  return ids or [str(index) for index in range(len(labels))]


# What is there already.


def _plan(settings, source, label_file):
  """The directories to write or keep; the test set comes first.

  Raises:
    UserError: one cannot be written, or has something else in it.
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
    raise UserError('%r cannot name a directory of labels; rename %s' % (
        name, 'the key' if settings.noise_key else settings.noise_file))
  return name


def _check_writable(path):
  """Raises UserError unless directories can be made in `path`."""
  parent = os.path.abspath(path)
  while not os.path.lexists(parent):
    parent = os.path.dirname(parent)
  if not os.path.isdir(parent):
    raise UserError('--output_dir=%s: %s is not a directory; choose '
                    'another' % (path, parent))
  if not os.access(parent, os.W_OK | os.X_OK):
    raise UserError('--output_dir=%s: %s is not writable; choose '
                    'another' % (path, parent))


def _make_directory(path, what):
  try:
    os.makedirs(path, exist_ok=True)
  except OSError as error:
    raise UserError('%s, which cannot be made (%s); choose a writable '
                    'directory' % (what, error.strerror))


def _keep(path, asked, overwrite):
  """Whether `path` is finished as asked; False if it is to be (re)written.

  Raises:
    UserError: it holds something that must not be lost.
  """
  if not os.path.lexists(path):
    return False
  if os.path.islink(path) or not os.path.isdir(path):
    raise UserError('%s is in the way and not a directory; move it, or choose '
                    'another --output_dir' % path)
  names = sorted(os.listdir(path))
  records = re.compile('%s_(train|test)-' % asked['dataset_name'])
  beside = (noise.FACTS_FILE, label_files.JSON_FILE, label_files.CSV_FILE)
  foreign = [name for name in names
             if not records.match(name) and name not in beside]
  if foreign:
    raise UserError('%s holds %s, which is not of --dataset_name=%s; move it '
                    'away, or choose another --output_dir'
                    % (path, foreign[0], asked['dataset_name']))
  if not names or overwrite:
    return False
  difference = _difference(path, names, asked)
  if difference is None:
    return True
  raise UserError('%s %s; pass --overwrite to replace it, or choose another '
                  '--output_dir' % (path, difference))


def _difference(path, names, asked):
  """What keeps `path` from being what is asked, in words; None if nothing."""
  try:
    found = noise.read_facts(path)
    checksums = dict(found['sha256'])
  except (UserError, ValueError, KeyError, TypeError):
    return ('has no readable %s, so how it was made is unknown'
            % noise.FACTS_FILE)
  for key in sorted(asked):
    if found.get(key) != asked[key]:
      return 'was made with %s %s, not %s' % (key, found.get(key), asked[key])
  if sorted(checksums) != [name for name in names if name != noise.FACTS_FILE]:
    return 'lacks files or has too many'
  for name in sorted(checksums):
    if _sha256(os.path.join(path, name)) != checksums[name]:
      return 'has a changed file %s' % name
  return None


def _sha256(path):
  digest = hashlib.sha256()
  with open(path, 'rb') as stream:
    for chunk in iter(lambda: stream.read(1 << 20), b''):
      digest.update(chunk)
  return digest.hexdigest()


# Writing.


_STORED_BYTES = 0xffff  # The most that a stored block of zlib holds.


def encode_png(image):
  """A PNG file without compression.

  The same pixels give the same bytes everywhere: what zlib compresses to
  differs between its versions, so the data go into stored blocks, and a
  checksum of a data set means something. It also decodes faster.

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

  Training shuffles within a small window only, so most of the shuffling happens
  here. The stream is not that of the noise: with one permutation for both, the
  noisy examples would all come first.

  Args:
    count: N.
    seed: as for the noise.

  Returns:
    A permutation, ints [N].
  """
  return np.random.RandomState([seed, 1]).permutation(count)


def _write(settings, target, source, class_names, split):
  """Writes one directory, whole or not at all.

  Args:
    settings: a `Settings`.
    target: a `_Target`.
    source: an `archives.Source` or `image_folders.Folder`.
    class_names: K strings.
    split: a `_Split`.
  """
  # TensorFlow takes seconds to load, and a slip shows without it.
  from mentormix.runtime import tf  # pylint: disable=g-import-not-at-top
  count = lambda labels: np.bincount(labels, None, len(class_names)).tolist()
  known = split.clean is not None
  facts = dict(
      target.asked,
      definition=noise.DEFINITIONS.get(target.asked['noise_type'], 'clean'),
      rate_realised=(noise.realised_rate(split.clean, split.given)
                     if known else None),
      num_examples=len(split.given),
      num_changed=int(np.sum(split.clean != split.given)) if known else None,
      num_classes=len(class_names),
      class_names=class_names,
      clean_label_counts=count(split.clean) if known else None,
      given_label_counts=count(split.given),
      transition=(None if split.transition is None
                  else split.transition.tolist()),
      archive=os.path.basename(os.path.abspath(source.path)))
  try:
    with files.new_directory(target.path) as directory:
      _write_records(settings, target, split, directory)
      if target.split == 'train':
        label_files.write(directory, split.given, split.clean, split.ids)
      facts['sha256'] = {name: _sha256(os.path.join(directory, name))
                         for name in os.listdir(directory)}
      with open(os.path.join(directory, noise.FACTS_FILE), 'w') as stream:
        json.dump(facts, stream, indent=1, sort_keys=True)
        stream.write('\n')
  except (OSError, tf.errors.OpError) as error:
    raise RunError('cannot write %s (%s)' % (target.path, error))
  print('%s: %d examples, %s' % (target.path, len(split.given),
                                 _in_words(settings, target, facts)))


def _in_words(settings, target, facts):
  """What labels a finished directory has."""
  if target.split == 'test':
    return 'clean'
  if settings.noise_type == noise.FOLDERS:
    return 'labels as in the folders'
  if settings.noise_type == noise.FILE:
    return 'labels of %s, %.4f realised' % (facts['noise_file'],
                                            facts['rate_realised'])
  return '%s noise, %g asked, %.4f realised' % (
      settings.noise_type, target.rate, facts['rate_realised'])


def _write_records(settings, target, split, directory):
  """Writes the TFRecords of one directory."""
  from mentormix import datasets  # pylint: disable=g-import-not-at-top
  from mentormix.runtime import tf  # pylint: disable=g-import-not-at-top
  order = np.arange(len(split.given))
  if target.split == 'train':
    order = record_order(len(order), settings.seed)
  has_fine_label = settings.dataset_name == 'cifar100'
  with tqdm.tqdm(total=len(order), desc=target.path, unit='image', leave=False,
                 disable=None) as bar:
    for shard, indices in enumerate(np.array_split(order, settings.num_shards)):
      path = os.path.join(directory, '%s_%s-%05d-of-%05d' % (
          settings.dataset_name, target.split, shard, settings.num_shards))
      with tf.python_io.TFRecordWriter(path) as writer:
        for index in indices:
          writer.write(datasets.encode_example(
              encode_png(split.images[index]), split.given[index],
              None if split.clean is None else split.clean[index],
              split.clean[index] if has_fine_label else None,
              split.ids[index]))
          bar.update()


if __name__ == '__main__':
  cli()
