"""What prepare_data.py is asked to make: its settings and their checks."""
import os
import re
import typing

from mentormix.data import image_set
from mentormix.data import noise
from mentormix.data.photos import settings as photos
from mentormix.messages import UserError

NUM_SHARDS = 10  # Fewer where a split has fewer images.


class Settings(typing.NamedTuple):
  """What to make; each field is what the flag of its name says.

  None stands for what the user did not give. `checked` fills in what the other
  settings imply.
  """
  dataset_name: typing.Optional[str] = None
  output_dir: typing.Optional[str] = None
  noise_levels: typing.Optional[tuple] = None  # Floats; (None,) with a file.
  noise_type: typing.Optional[str] = None  # A key of noise.DEFINITIONS.
  archive: typing.Optional[str] = None
  md5: typing.Optional[str] = None
  image_dir: typing.Optional[str] = None
  image_size: typing.Optional[int] = None
  annotations: typing.Optional[str] = None  # These eight: of photographs.
  image_root: typing.Optional[list] = None
  val_root: typing.Optional[str] = None
  image_list: typing.Optional[str] = None
  val_list: typing.Optional[str] = None
  max_side: typing.Optional[int] = None
  num_workers: typing.Optional[int] = None
  fetch_images: bool = False
  noise_file: typing.Optional[str] = None
  noise_key: typing.Optional[str] = None
  noise_index: typing.Optional[str] = None
  seed: int = 0
  num_train: typing.Optional[int] = None
  skip_train: int = 0
  holdout: float = 0.0  # Share of the training images.
  num_shards: typing.Optional[int] = None  # None: as many as NUM_SHARDS.
  max_bad_records: int = 0
  force_labels: bool = False
  overwrite: bool = False


def checked(settings):
  """Checks settings, without the files that they name, and completes them.

  Args:
    settings: a `Settings`, as the user gave them.

  Returns:
    A `Settings` with data set, directory, noise and image size.

  Raises:
    UserError: a setting is wrong, or two of them do not go together.
  """
  _check_combinations(settings)
  _check_name(settings)
  size = settings.image_size or image_set.IMAGE_SIZE
  if size % 4:  # The students halve it twice.
    raise UserError(f'--image_size={size} is not a multiple of 4')
  levels, noise_type = settings.noise_levels, settings.noise_type
  levels = noise.parse_levels(noise.LEVELS if levels is None else levels)
  if settings.noise_file:
    levels, noise_type = (None,), noise.FILE
  elif settings.image_dir and (settings.noise_levels is None
                               or not any(levels)):
    if noise_type:
      raise UserError(f'--noise_type={noise_type} with --image_dir also needs '
                      '--noise_levels above 0')
    levels, noise_type = (0.0,), noise.FOLDERS
  return settings._replace(
      md5=settings.md5 and settings.md5.lower(), image_size=size,
      output_dir=settings.output_dir or os.path.join(
          image_set.DIRECTORY, settings.dataset_name),
      noise_levels=levels, noise_type=noise_type or noise.SYMMETRIC_OTHERS)


def _check_combinations(settings):
  """Raises UserError for settings that are empty or do not go together."""
  given = {name: value for name, value in settings._asdict().items()
           if value is not None}
  for name, value in given.items():
    if value == '':
      raise UserError(f'--{name} is empty; give it a value, or leave it out')
  for name, other in (('archive', 'image_dir'), ('md5', 'image_dir'),
                      ('noise_levels', 'noise_file'),
                      ('noise_type', 'noise_file')):
    if name in given and other in given:
      raise UserError(f'--{name} and --{other} exclude each other; leave one '
                      'of them out')
  for name in photos.ONLY_HERE:
    if given.get(name):
      raise UserError(f'--{name} is for photographs: --dataset_name='
                      f'{", ".join(photos.NAMES)}, or --image_list')
  for name, other in (('image_size', 'image_dir'), ('noise_key', 'noise_file'),
                      ('noise_index', 'noise_file')):
    if name in given and other not in given:
      raise UserError(f'--{name} needs --{other}')


def _check_name(settings):
  """Raises UserError for a data set whose images cannot be found."""
  name, known = settings.dataset_name, sorted(image_set.NUM_CLASSES)
  if settings.max_bad_records and not settings.image_dir:
    raise UserError('--max_bad_records needs --image_dir')
  if settings.force_labels and not settings.noise_file:
    raise UserError('--force_labels needs --noise_file')
  if settings.image_dir:
    if name in known or not re.match(r'[A-Za-z0-9_-]+\Z', name or ''):
      raise UserError(f'--dataset_name={name} does not fit --image_dir; use a '
                      f'name of letters, digits, _ and - other than '
                      f'{", ".join(known)}')
  elif name not in known:
    raise UserError(f'--dataset_name={name} is unknown; use '
                    f'{", ".join((*known, *photos.NAMES))} or, with '
                    '--image_dir or --image_list, any other name')
  if name == 'digits' and (settings.archive or settings.md5):
    raise UserError('--dataset_name=digits is embedded; leave --archive and '
                    '--md5 out')
