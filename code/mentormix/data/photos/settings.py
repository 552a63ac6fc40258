"""The checks of what is asked of a set of photographs."""
import os
import re

from mentormix.data import image_set
from mentormix.data import noise
from mentormix.data.photos import cnwl
from mentormix.data.photos import webvision
from mentormix.messages import UserError

NAMES = cnwl.NAMES + tuple(webvision.NUM_CLASSES)
# Flags that only sets of photographs know.
ONLY_HERE = ('annotations', 'image_root', 'val_root', 'image_list', 'val_list',
             'max_side', 'num_workers', 'fetch_images')
_NOT_HERE = ('archive', 'md5', 'image_dir', 'image_size', 'noise_type',
             'noise_file', 'noise_index', 'num_train')
_MOST_WORKERS = 8  # By default.


def is_asked(settings):
  """Whether settings ask for a set of photographs."""
  return bool(settings.image_list or settings.dataset_name in NAMES)


def checked(settings):
  """Checks settings, without the files that they name, and completes them.

  Args:
    settings: a `preparation_settings.Settings`, as the user gave them.

  Returns:
    A `Settings` with directory, levels and number of processes.

  Raises:
    UserError: a setting is wrong, or two of them do not go together.
  """
  name = settings.dataset_name
  for flag, value in settings._asdict().items():
    if value in ('', [], ()) or (isinstance(value, list) and '' in value):
      raise UserError(f'--{flag} is empty; give it a value, or leave it out')
  for flag in _NOT_HERE:
    if getattr(settings, flag) is not None:
      raise UserError(f'--{flag} is not for sets of photographs; leave it out')
  for flag in ('skip_train', 'max_bad_records', 'force_labels'):
    if getattr(settings, flag):
      raise UserError(f'--{flag} is not for sets of photographs; leave it out')
  levels = settings.noise_levels
  if settings.image_list:
    _check_list(settings)
  else:
    if settings.noise_key is not None:
      raise UserError('--noise_key needs --image_list or --noise_file')
    if not settings.image_root:
      raise UserError(f'--dataset_name={name} needs --image_root, the '
                      'directories with its images')
  if name in cnwl.NAMES and not settings.image_list:
    levels = _cnwl_levels(settings)
  elif settings.val_list and not (settings.image_list or settings.val_root):
    raise UserError('--val_list needs --val_root, the images that it is of')
  elif levels is not None or settings.fetch_images:
    flag = 'fetch_images' if levels is None else 'noise_levels'
    raise UserError(f'--{flag} is for {", ".join(cnwl.NAMES)}; leave it out')
  return settings._replace(
      noise_levels=levels,
      num_workers=settings.num_workers or min(_MOST_WORKERS, _num_cores()),
      output_dir=settings.output_dir or os.path.join(image_set.DIRECTORY, name))


def _check_list(settings):
  name = settings.dataset_name or ''
  taken = (*image_set.NUM_CLASSES, *NAMES)
  if not re.fullmatch(r'[A-Za-z0-9_-]+', name) or name in taken:
    raise UserError(f'--dataset_name={settings.dataset_name} does not fit '
                    '--image_list; use a name of letters, digits, _ and - '
                    f'other than {", ".join(taken)}')
  if settings.annotations:
    raise UserError('--annotations and --image_list exclude each other; leave '
                    'one of them out')
  if not settings.val_list:
    raise UserError('--image_list needs --val_list, the list of the test '
                    'images')


def _cnwl_levels(settings):
  """The levels that are asked for and published, floats."""
  if settings.annotations is None:
    raise UserError(f'--dataset_name={settings.dataset_name} needs '
                    '--annotations, dataset_no_images.zip of Controlled Noisy '
                    'Web Labels or its folder')
  if settings.val_list:
    raise UserError('--val_list is for WebVision and --image_list; leave it '
                    'out')
  levels = noise.parse_levels(
      noise.LEVELS if settings.noise_levels is None else settings.noise_levels)
  for level in levels:
    if level not in cnwl.LEVELS:
      raise UserError(f'--noise_levels={level:g} is not published; the levels '
                      f'are {", ".join(map(str, cnwl.LEVELS))}')
  if settings.fetch_images and not settings.dataset_name.endswith('_red'):
    raise UserError('--fetch_images fetches web images, and '
                    f'{settings.dataset_name} has none; leave it out')
  return levels


def _num_cores():
  try:
    return len(os.sched_getaffinity(0))
  except AttributeError:  # Not on Linux.
    return os.cpu_count() or 1
