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
import os
import re
import signal
import sys

from absl import flags

from mentormix import command
from mentormix.data import image_set
from mentormix.data import noise
from mentormix.data import preparation
from mentormix.messages import UserError

_KNOWN = ', '.join(sorted(image_set.NUM_CLASSES))


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string(
      'dataset_name', None, f'The data set: {_KNOWN}, or a name of your choice '
      'with --image_dir.')
  flags.DEFINE_string(
      'archive', None, 'A local .tar.gz archive or its URL; by default the '
      f'official one is downloaded to {preparation.DOWNLOAD_DIR}/.')
  flags.DEFINE_string(
      'md5', None, 'The checksum that --archive must have; by default that of '
      'the official archive, which a local file may differ from.')
  flags.DEFINE_string(
      'image_dir', None, 'Custom images, PNG or JPEG: its train/<class>/* and '
      'val/<class>/*.')
  flags.DEFINE_integer(
      'image_size', image_set.IMAGE_SIZE, 'Height and width that the images of '
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
    preparation.prepare(settings)


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
  return command.from_flags(preparation.Settings)._replace(
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
    if name in image_set.NUM_CLASSES:
      raise UserError(f'--dataset_name={name} is a known data set; give the '
                      'images in --image_dir another name')
    if not re.match(r'[A-Za-z0-9_-]+\Z', name):
      raise UserError(f'--dataset_name={name}: a custom name has only letters, '
                      'digits, _ and -')
  elif name not in image_set.NUM_CLASSES:
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


if __name__ == '__main__':
  cli()
