r"""Makes noisy training sets and the clean test set, as TFRecords.

    python code/prepare_data.py --dataset_name=cifar10

downloads the official archive into data/ and writes data/cifar10/0.2, 0.4, 0.6
and 0.8 for training and data/cifar10/val for evaluation. `digits` needs no
download. In each directory noise.json says how it came to be. The same
settings give the same bytes on every machine. Nothing finished is overwritten
unless --overwrite says so.
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
import urllib.parse
import zlib

from absl import flags
import numpy as np
import tqdm

from mentormix import archives
from mentormix import command
from mentormix import files
from mentormix import noise
from mentormix.command import RunError
from mentormix.command import UserError

FORMAT_VERSION = 1  # Of the directories written; part of "same settings".
NOISE_FILE = 'noise.json'
DATASET_NAMES = ('cifar10', 'cifar100', 'digits')

DOWNLOAD_DIR = 'data'

Settings = collections.namedtuple(
    'Settings', 'dataset_name archive md5 output_dir noise_levels noise_type '
    'seed num_shards overwrite')

# One directory to write. `rate` is None for the clean test set; `asked` is the
# part of its noise.json that two runs with the same settings share.
_Target = collections.namedtuple('_Target', 'path split rate asked keep')

_Archive = collections.namedtuple('_Archive', 'path md5 url')


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_enum('dataset_name', None, DATASET_NAMES, 'The data set.')
  flags.DEFINE_string(
      'archive', None, 'A local .tar.gz archive or its URL; by default the '
      'official one is downloaded into %s/.' % DOWNLOAD_DIR)
  flags.DEFINE_string(
      'md5', None, 'The checksum that --archive must have; by default that of '
      'the official archive, which a local file may differ from.')
  flags.DEFINE_string(
      'output_dir', None, 'Where the directories go; by default '
      'data/<dataset_name>.')
  flags.DEFINE_list(
      'noise_levels', '0.2,0.4,0.6,0.8', 'Shares of the training labels to '
      'corrupt, 0 to 1; one directory each.')
  flags.DEFINE_enum(
      'noise_type', noise.SYMMETRIC_OTHERS, list(noise.NOISE_TYPES),
      '; '.join('%s: %s' % item for item in noise.NOISE_TYPES.items()) + '.')
  flags.DEFINE_integer(
      'seed', 0, 'Seed of the noise and of the order of the records.',
      lower_bound=0, upper_bound=noise.MAX_SEED)
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
  name = values.dataset_name
  if name is None:
    raise UserError('--dataset_name is missing; known are %s'
                    % ', '.join(DATASET_NAMES))
  if name == 'digits' and (values.archive or values.md5):
    raise UserError('--dataset_name=digits is embedded; leave --archive and '
                    '--md5 out')
  if values.archive is not None and not values.archive:
    raise UserError('--archive is empty; pass a file or URL, or leave it out')
  if values.md5 is not None and not re.match('[0-9a-fA-F]{32}$', values.md5):
    raise UserError('--md5=%s is not 32 hexadecimal digits' % values.md5)
  return Settings(
      dataset_name=name,
      archive=values.archive,
      md5=values.md5 and values.md5.lower(),
      output_dir=values.output_dir or os.path.join('data', name),
      noise_levels=parse_levels(values.noise_levels),
      noise_type=values.noise_type,
      seed=values.seed,
      num_shards=values.num_shards,
      overwrite=values.overwrite)


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
  archive = _find_archive(settings)
  targets = _plan(settings, archive)
  if not all(target.keep for target in targets):
    images, transition = _read(settings, archive)
    _make_directory(settings.output_dir, '--output_dir=' + settings.output_dir)
    # TensorFlow takes seconds to load, and a slip shows without it.
    from mentormix import datasets  # pylint: disable=g-import-not-at-top
    dataset = datasets.get(settings.dataset_name)
  for target in targets:
    if target.keep:
      print('%s: kept, it is finished and has these settings' % target.path)
    elif target.rate is None:
      _write(settings, target, archive, dataset, images, images.test_images,
             images.test_labels, images.test_labels, None)
    else:
      given = noise.corrupt(images.train_labels, target.rate,
                            settings.noise_type, dataset.num_classes,
                            settings.seed, transition)
      _write(settings, target, archive, dataset, images, images.train_images,
             images.train_labels, given, transition)
  print('Now train with --dataset_name=%s --data_dir=%s and evaluate with '
        '--data_dir=%s' % (settings.dataset_name, targets[1].path,
                           targets[0].path))


# The archive.


def _find_archive(settings):
  """Where the images come from, and with which checksum; fetches nothing."""
  if settings.dataset_name == 'digits':
    path = archives.digits_path()
    return _Archive(path, archives.md5_of(path), None)
  official = archives.OFFICIAL[settings.dataset_name]
  source = settings.archive or official.url
  if '://' not in source:
    return _local_archive(source, settings, official)

  url = urllib.parse.urlparse(source)
  name = os.path.basename(url.path)
  if url.scheme not in ('http', 'https') or not url.netloc or not name:
    raise UserError('--archive=%s is neither a file nor an http or https '
                    'address of one' % source)
  path = os.path.join(DOWNLOAD_DIR, name)
  md5 = settings.md5 or official.md5
  if not os.path.exists(path):
    return _Archive(path, md5, source)
  archives.check_file(path)
  found = archives.md5_of(path)
  if found != md5:
    raise UserError('%s is there but has md5 %s instead of %s; delete it to '
                    'download it again, or pass --archive=%s to use it as it '
                    'is' % (path, found, md5, path))
  print('Using %s' % path)
  return _Archive(path, md5, None)


def _local_archive(path, settings, official):
  archives.check_file(path)
  md5 = archives.md5_of(path)
  if settings.md5 and md5 != settings.md5:
    raise UserError('--archive=%s has md5 %s, not --md5=%s; get it again, or '
                    'correct --md5' % (path, md5, settings.md5))
  if not settings.md5 and md5 != official.md5:
    print('Note: %s is not the official archive (md5 %s instead of %s)'
          % (path, md5, official.md5))
  return _Archive(path, md5, None)


def _read(settings, archive):
  """The clean images, and the class map of asymmetric noise (None without)."""
  if settings.dataset_name == 'digits':
    images = archives.digits()
  else:
    if archive.url:
      _make_directory(DOWNLOAD_DIR, 'the archive goes into '
                      + os.path.abspath(DOWNLOAD_DIR))
      archives.download(archive.url, archive.path, archive.md5)
    images = archives.read(archive.path, settings.dataset_name)
  smallest = min(len(images.train_labels), len(images.test_labels))
  if settings.num_shards > smallest:
    raise UserError('--num_shards=%d leaves files empty: a split has %d images'
                    % (settings.num_shards, smallest))
  transition = None
  if settings.noise_type == noise.ASYMMETRIC:
    transition = noise.transition(settings.dataset_name, images.superclass)
  return images, transition


# What is there already.


def _plan(settings, archive):
  """The directories to write or keep; the test set comes first.

  Raises:
    UserError: one cannot be written, or has something else in it.
  """
  _check_writable(settings.output_dir)
  targets = []
  for rate in (None,) + settings.noise_levels:
    test = rate is None
    asked = {
        'format_version': FORMAT_VERSION,
        'dataset_name': settings.dataset_name,
        'split': 'test' if test else 'train',
        'noise_type': None if test else settings.noise_type,
        'rate_asked': 0.0 if test else rate,
        'seed': None if test else settings.seed,
        'num_shards': settings.num_shards,
        'archive_md5': archive.md5,
    }
    path = os.path.join(settings.output_dir,
                        'val' if test else level_name(rate))
    targets.append(_Target(path, asked['split'], rate, asked,
                           _keep(path, asked, settings.overwrite)))
  return targets


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
  ours = re.compile(r'%s_(train|test)-|%s$' % (asked['dataset_name'],
                                               re.escape(NOISE_FILE)))
  foreign = [name for name in names if not ours.match(name)]
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
    with open(os.path.join(path, NOISE_FILE), 'rb') as stream:
      found = json.loads(stream.read().decode('utf-8'))
    checksums = dict(found['sha256'])
  except (OSError, ValueError, KeyError, TypeError, RecursionError):
    return 'has no readable %s, so how it was made is unknown' % NOISE_FILE
  for key in sorted(asked):
    if found.get(key) != asked[key]:
      return 'was made with %s %s, not %s' % (key, found.get(key), asked[key])
  if sorted(checksums) != [name for name in names if name != NOISE_FILE]:
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


def encode_png(image):
  """A PNG file without compression.

  The same pixels give the same bytes everywhere: what zlib compresses to
  differs between its versions, so the data go into one stored block, and a
  checksum of a data set means something. It also decodes faster.

  Args:
    image: uint8 [H, W, 3], at most 65,535 bytes with one more per row.

  Returns:
    Bytes.
  """
  height, width, _ = image.shape
  rows = np.zeros([height, 1 + 3 * width], np.uint8)  # Filter 0 in column 0.
  rows[:, 1:] = image.reshape(height, 3 * width)
  raw = rows.tobytes()
  stored = b''.join([
      b'\x78\x01',  # A zlib stream of one block: the last one, stored.
      struct.pack('<BHH', 1, len(raw), len(raw) ^ 0xffff), raw,
      struct.pack('>I', zlib.adler32(raw))])
  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)  # 8-bit RGB.
  return b''.join([
      b'\x89PNG\r\n\x1a\n', _chunk(b'IHDR', header), _chunk(b'IDAT', stored),
      _chunk(b'IEND', b'')])


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


def _write(settings, target, archive, dataset, image_set, images, clean, given,
           transition):
  """Writes one directory, whole or not at all.

  Args:
    settings: a `Settings`.
    target: a `_Target`.
    archive: an `_Archive`.
    dataset: a `datasets.Dataset`.
    image_set: the `archives.ImageSet` that the arrays are from.
    images: uint8 [N, H, W, 3].
    clean: the true labels, ints [N].
    given: the labels given, ints [N].
    transition: the class map of asymmetric noise, ints [K]; None without.
  """
  from mentormix.runtime import tf  # pylint: disable=g-import-not-at-top
  order = np.arange(len(given))
  if target.split == 'train':
    order = record_order(len(given), settings.seed)
  try:
    with files.new_directory(target.path) as directory:
      checksums = _write_shards(settings, target, dataset, directory, order,
                                images, clean, given)
      facts = dict(target.asked)
      facts.update(
          definition=noise.NOISE_TYPES.get(facts['noise_type'], 'clean'),
          rate_realised=noise.realised_rate(clean, given),
          num_examples=len(given),
          num_changed=int(np.sum(clean != given)),
          num_classes=dataset.num_classes,
          class_names=image_set.class_names,
          clean_label_counts=_counts(clean, dataset),
          given_label_counts=_counts(given, dataset),
          transition=None if transition is None else transition.tolist(),
          archive=os.path.basename(archive.path),
          sha256=checksums)
      with open(os.path.join(directory, NOISE_FILE), 'w') as stream:
        json.dump(facts, stream, indent=1, sort_keys=True)
        stream.write('\n')
  except (OSError, tf.errors.OpError) as error:
    raise RunError('cannot write %s (%s)' % (target.path, error))
  noise_words = 'clean' if target.rate is None else (
      '%s noise, %g asked, %.4f realised'
      % (settings.noise_type, target.rate, facts['rate_realised']))
  print('%s: %d examples, %s' % (target.path, len(given), noise_words))


def _counts(labels, dataset):
  return np.bincount(labels, minlength=dataset.num_classes).tolist()


def _write_shards(settings, target, dataset, directory, order, images, clean,
                  given):
  """Writes the records; returns the checksums: {file name: sha256}."""
  from mentormix import datasets  # pylint: disable=g-import-not-at-top
  from mentormix.runtime import tf  # pylint: disable=g-import-not-at-top
  has_fine_label = dataset.test_label == datasets.FINE_LABEL
  checksums = {}
  with tqdm.tqdm(total=len(order), desc=target.path, unit='image', leave=False,
                 disable=None) as bar:
    for shard, indices in enumerate(np.array_split(order, settings.num_shards)):
      name = '%s_%s-%05d-of-%05d' % (dataset.name, target.split, shard,
                                     settings.num_shards)
      path = os.path.join(directory, name)
      with tf.python_io.TFRecordWriter(path) as writer:
        for index in indices:
          writer.write(datasets.encode_example(
              encode_png(images[index]), given[index], clean[index],
              clean[index] if has_fine_label else None))
          bar.update()
      checksums[name] = _sha256(path)
  return checksums


if __name__ == '__main__':
  cli()
