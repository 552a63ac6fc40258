r"""Makes noisy training sets and the clean test set, as TFRecords.

    python code/prepare_data.py --dataset_name=cifar10

downloads the official archive to data/ and writes data/cifar10/0.2, 0.4, 0.6
and 0.8 for training and data/cifar10/val for evaluation. `digits` needs no
download.

    ... --dataset_name=cifar10 --noise_file=cifar10n.npz --noise_key=worse
    ... --dataset_name=pets --image_dir=DIR

take the labels from a file, and custom PNG or JPEG images from
DIR/train/<class> and DIR/val/<class>.

    ... --dataset_name=mini_imagenet_red --annotations=dataset_no_images.zip
    ... --dataset_name=birds --image_list=train.csv --val_list=val.csv

make sets of photographs of any size; data/README.md lists them. In each
directory noise.json says how it was made, and labels.csv and labels.json (not
of photographs) hold the labels. The same settings give the same bytes on every
machine. A finished directory is overwritten only with --overwrite.
"""
import signal
import sys

from absl import flags

from mentormix import command
from mentormix import messages
from mentormix.data import image_set
from mentormix.data import noise
from mentormix.data import preparation
from mentormix.data import preparation_settings
from mentormix.data.photos import settings as photos


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string(
      'dataset_name', None, 'The data set: '
      f'{", ".join(sorted(image_set.NUM_CLASSES))}; of photographs: '
      f'{", ".join(photos.NAMES)}; or a name of your choice with --image_dir '
      'or --image_list.')
  flags.DEFINE_string(
      'archive', None, 'A local .tar.gz archive or its URL; by default the '
      'official one is downloaded to '
      f'{image_set.DIRECTORY}/.')
  flags.DEFINE_string(
      'md5', None, 'The checksum that --archive must have; by default that of '
      'the official archive, which a local file may differ from.')
  flags.DEFINE_string(
      'image_dir', None, 'Custom images, such as PNG or JPEG: its '
      'train/<class>/* and val/<class>/*.')
  flags.DEFINE_integer(
      'image_size', None, 'Height and width that the images of --image_dir are '
      f'resized to, a multiple of 4; by default {image_set.IMAGE_SIZE}.',
      lower_bound=8, upper_bound=512)
  flags.DEFINE_string(
      'output_dir', None, 'Where the directories go; by default '
      'data/<dataset_name>.')
  flags.DEFINE_list(
      'noise_levels', None, 'Shares of the training labels to corrupt, 0 to 1; '
      'each gets a directory. By default '
      f'{",".join(map(str, noise.LEVELS))}; with '
      '--image_dir none: the labels are the folders, in a directory 0.')
  flags.DEFINE_enum(
      'noise_type', None, list(noise.NOISE_TYPES),
      f'By default {noise.SYMMETRIC_OTHERS}. '
      + '; '.join(f'{name}: {what}' for name, what in noise.NOISE_TYPES.items())
      + '.')
  flags.DEFINE_string(
      'noise_file', None, 'Take the training labels from this file: JSON, CSV, '
      '.npz, .npy or .pt, in the order of the archive, or of the sorted paths.')
  flags.DEFINE_string(
      'noise_key', None, 'Which labels of --noise_file, such as worse or '
      'noisy_label: a key, or the name of a column.')
  flags.DEFINE_string(
      'noise_index', None, 'The .npy file that maps the order of --noise_file '
      'to that of the archive, such as image_order_c10.npy.')
  flags.DEFINE_boolean(
      'force_labels', False, 'Take --noise_file even if its labels seem to '
      'have nothing to do with the images, or their classes seem renumbered.')
  flags.DEFINE_integer(
      'seed', 0, 'Seed of the noise and of the order of the records.',
      lower_bound=0, upper_bound=noise.MAX_SEED)
  flags.DEFINE_integer(
      'num_shards', None, 'Number of files per directory; by default '
      f'{preparation_settings.NUM_SHARDS}, or one for each image if there are '
      'fewer.', lower_bound=1, upper_bound=99999)
  flags.DEFINE_integer(
      'max_bad_records', 0, 'Number of files of --image_dir to leave out '
      'because they are not images, or damaged. If there are more, nothing is '
      'written.', lower_bound=0)
  flags.DEFINE_boolean(
      'overwrite', False, 'Replace directories that an earlier run made.')
  _define_part_flags()
  _define_photo_flags()


def _define_part_flags():
  """Defines the flags that say which images are in the training set."""
  flags.DEFINE_integer(
      'num_train', None, 'Number of training images to take, the first ones; '
      'with --image_dir evenly over the classes. All by default.',
      lower_bound=1)
  flags.DEFINE_integer(
      'skip_train', 0, 'Number of training images to leave out, the first ones '
      'in the order of --num_train, for example those of another set.',
      lower_bound=0)
  flags.DEFINE_float(
      'holdout', 0, 'Share of the training images, at random, that are taken '
      'out of the training set and written, with their noisy labels, to '
      '<labels>_holdout beside it: for early stopping without clean labels. '
      'The labels are the same as without it.')


def _define_photo_flags():
  """Defines the flags of sets of photographs."""
  flags.DEFINE_string(
      'annotations', None, 'Controlled Noisy Web Labels: dataset_no_images.zip '
      'or its folder. WebVision: the folder info; by default below '
      '--image_root.')
  flags.DEFINE_list(
      'image_root', None, 'Directories with the images, separated by commas; '
      'of Controlled Noisy Web Labels anywhere below.')
  flags.DEFINE_string(
      'val_root', None, 'The directory of the test images, if it is not '
      '--image_root; of WebVision, that of ILSVRC12\'s validation images.')
  flags.DEFINE_string(
      'image_list', None, 'Training images of your own: a list of path, label '
      'and, where it is known, clean label: CSV, TSV or text with spaces.')
  flags.DEFINE_string(
      'val_list', None, 'The list of the test images of --image_list; of '
      'WebVision, that of the classes of --val_root.')
  flags.DEFINE_integer(
      'max_side', None, 'Longer side of a photograph in pixels: larger ones '
      'are made smaller. By default they are kept as they are.', lower_bound=16)
  flags.DEFINE_integer(
      'num_workers', None, 'Processes that write photographs; by default one '
      'for each core, up to 8.', lower_bound=1, upper_bound=256)
  flags.DEFINE_boolean(
      'fetch_images', False, 'First download the web images by the URLs of '
      '--annotations, to noisy_images below the first --image_root.')


def main():
  """Flags -> settings -> files."""
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    # An ignored signal stays ignored: that is how nohup works.
    if signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, _stop)
  preparation.prepare(command.from_flags(preparation_settings.Settings))


def _stop(number, unused_frame):
  """Ends the program in order, so that it removes what is unfinished."""
  signal.signal(number, signal.SIG_IGN)  # The clean-up is not interrupted.
  messages.write_error(f'\nStopped by signal {number}; finished directories '
                       'stay, and finished files of photographs; the rest is '
                       'removed.\n')
  sys.exit(128 + number)


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
