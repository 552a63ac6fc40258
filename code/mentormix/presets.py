"""The settings and the accuracy of the published runs, and other recipes.

`fill` completes the settings of a run with those that the published code has
for its data set and noise level, or with those of a recipe, whose line says
whose it is. `published_accuracy` gives the figures to compare with. No
TensorFlow here.
"""
import os
import shlex
import typing

from mentormix import config as config_lib
from mentormix import noise_level
from mentormix.data import noise_facts
from mentormix.messages import UserError

PUBLISHED, CPU, FAST, NCR = 'published', 'cpu', 'fast', 'ncr'
MINI_WEBVISION, WEBVISION, FINETUNE = 'mini_webvision', 'webvision', 'finetune'
NAMES = (PUBLISHED, CPU, FAST, NCR, MINI_WEBVISION, WEBVISION, FINETUNE)

_NEAR = 0.1  # A noise level takes the nearest row, at most this far away.


class _Row(typing.NamedTuple):
  """What the published code sets for a data set and noise level."""
  mixup_alpha: float
  loss_p_percentile: float
  second_reweight: bool


_PUBLISHED_ROWS = {
    'cifar10': {0.2: _Row(2.0, 0.8, False),
                0.4: _Row(8.0, 0.6, False),
                0.6: _Row(8.0, 0.6, True),
                0.8: _Row(4.0, 0.2, True)},
    'cifar100': {0.2: _Row(2.0, 0.7, False),
                 0.4: _Row(8.0, 0.5, False),
                 0.6: _Row(4.0, 0.3, True),
                 0.8: _Row(8.0, 0.1, True)},
    # At 32 x 32: of the published code run by others, with a co-author of the
    # paper (youjiangxu/FaMUS).
    'mini_imagenet_red': {0.2: _Row(2.0, 0.7, False),
                          0.4: _Row(8.0, 0.5, False),
                          0.6: _Row(4.0, 0.3, False),
                          0.8: _Row(8.0, 0.1, False)},
}
_PUBLISHED_SIZE = 32  # Height and width of all of these images.
_PUBLISHED_SCHEDULE = dict(
    studentnet='resnet32', batch_size=128, max_number_of_steps=200000,
    num_epochs_per_decay=30.0)

# For a few thousand images on a CPU, where an epoch takes seconds. They come
# from pilot runs on a part of CIFAR-10 at noise 0.6 (results/README.md). With
# the published alpha of 8 a student this small underfits in so few steps.
_CPU_SETTINGS = dict(
    studentnet='resnet14_thin', batch_size=64, max_number_of_steps=6000,
    num_epochs_per_decay=5.0, mixup_alpha=1.0, second_reweight=False)
_UNKNOWN_LEVEL = 0.4  # What is assumed where the level is not known.
# Of short runs, whose students cannot tell the few right labels of very noisy
# data from the others (results/fast/README.md).
_LEAST_PERCENTILE = 0.5


class _Recipe(typing.NamedTuple):
  """Settings with a number of epochs. Most leave the student to the user."""
  epochs: int
  settings: dict  # Of these, epochs stand for steps in warmup_steps.
  source: str
  num_examples: typing.Optional[int] = None  # If noise.json has none.
  # Whether burn-in follows the noise too, batch and rate the number of
  # examples, and the warm-up the steps that are given.
  adapts: bool = False


_WEBVISION = dict(  # What the whole set and its first 50 classes share.
    learning_rate=0.01, learning_rate_schedule='steps',
    learning_rate_decay_factor=0.1, weight_decay=0.00004, mixup_alpha=0.2,
    loss_p_percentile=0.85, second_reweight=False)
_RECIPES = {
    # What was measured: results/fast/README.md.
    FAST: _Recipe(70, dict(
        studentnet='fast', batch_size=500, learning_rate=0.3,
        learning_rate_schedule='linear', warmup_steps=14, nesterov=True,
        augmentation='light', mixup_alpha=1.0, second_reweight=False,
        first_pass_interval_epochs=2),
                  'ours, for small images on a CPU', adapts=True),
    NCR: _Recipe(130, dict(
        batch_size=128, learning_rate=0.1, learning_rate_schedule='cosine',
        warmup_steps=5, weight_decay=0.0005, mixup_alpha=0.5,
        second_reweight=False),
                 'schedule and mixup of NCR (CVPR 2022), which trains ResNet18 '
                 'at 224 and decays all parameters; the weighting is ours',
                 50000),
    MINI_WEBVISION: _Recipe(200, dict(
        _WEBVISION, batch_size=64, decay_epochs='100,150'),
                            'of a rerun of MentorMix by others; the epochs of '
                            'decay, and no second weighting, are ours',
                            65944),
    WEBVISION: _Recipe(60, dict(
        _WEBVISION, batch_size=512, decay_epochs='30,45'),
                       'of a rerun of MentorMix by others; the epochs of decay '
                       'and all of the weighting and mixing are ours',
                       2439574),
    FINETUNE: _Recipe(20, dict(
        batch_size=64, learning_rate=0.01, learning_rate_schedule='cosine',
        warmup_steps=1, weight_decay=0.00004, mixup_alpha=0.4,
        second_reweight=False),
                      'our settings, untested at full size'),
}

_STEPS_PER_EPOCH, _SMALLEST_BATCH = 20, 32  # Of a recipe that adapts.
# lambda and beta of ELR as published; other sets get those of CIFAR-10.
_ELR = {'cifar10': (3.0, 0.7), 'cifar100': (7.0, 0.9)}
_MOST_NOISE = 0.8  # Of the noise layer of s_model.
_MOST_FORGOTTEN = 0.5  # Of co_teaching, so that half of a batch is left.
_MENTORNET = os.path.join('mentornet_models', 'mentornet_pd')
_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(os.path.dirname(_PACKAGE))

# Clean test accuracy in percent at 0.2, 0.4, 0.6, 0.8: paper, published code.
LEVELS = (0.2, 0.4, 0.6, 0.8)
_ACCURACY = {
    ('cifar10', 'mentormix'): ((95.6, 94.2, 91.3, 81.0),
                               (96.2, 94.4, 89.0, 82.0)),
    ('cifar100', 'mentormix'): ((78.6, 71.3, 64.6, 41.2),
                                (77.8, 70.4, 66.0, 39.2)),
    ('cifar10', 'mentornet'): ((92.0, 91.2, 74.2, 60.0), None),
    ('cifar100', 'mentornet'): ((73.5, 68.5, 61.2, 35.5), None),
    ('cifar10', 'mixup'): ((94.0, 91.5, 86.8, 76.9), None),
    ('cifar100', 'mixup'): ((73.9, 66.8, 58.8, 40.1), None),
    # A run of the published code by others, at 32 x 32 (FaMUS, CVPR 2021).
    ('mini_imagenet_red', 'mentormix'): (None, (51.02, 47.14, 43.80, 33.46)),
}


def fill(config, preset, given):
  """Fills in the settings that the command line does not give.

  Args:
    config: a `config.TrainConfig`.
    preset: one of NAMES.
    given: names of the settings that the command line gives; they stay.

  Returns:
    (config, line): the settings, and a line to print that lists what was
    filled in.

  Raises:
    UserError: the preset has nothing for this data set or noise level.
  """
  facts = noise_facts.read_facts(config.data_dir) or {}
  if ('dataset_name' not in given
      and isinstance(facts.get('dataset_name'), str)):
    config = config._replace(dataset_name=facts['dataset_name'])
  known = noise_level.find(config.data_dir)
  level = known and known.rate
  noise = (f'an unknown noise level (assumed: {_UNKNOWN_LEVEL:g})'
           if level is None else f'noise {level:g}{known.note}')
  assumed = _UNKNOWN_LEVEL if level is None else level
  settings = dict(burn_in_epoch=noise_level.BURN_IN,
                  trained_mentornet_dir=_mentornet_dir(),
                  **_baseline_settings(config.dataset_name, assumed))
  if preset == PUBLISHED:
    settings.update(_PUBLISHED_SCHEDULE)
    row = _published_row(config, level, facts)
    settings.update(row._asdict())
    if facts.get('photographs'):
      settings['image_recipe'] = 'cifar'
  elif preset in _RECIPES:
    settings.update(_recipe_settings(preset, config, assumed, facts, given))
  else:
    settings.update(_CPU_SETTINGS, loss_p_percentile=_share_of_clean(assumed))
  unused = config_lib.unused_settings(config.method)
  settings = {name: value for name, value in settings.items()
              if name not in given and name not in unused}
  settings['dataset_name'] = config.dataset_name
  words = ' '.join(shlex.quote(f'--{name}={value}')
                   for name, value in sorted(settings.items()))
  said = f' ({_RECIPES[preset].source})' if preset in _RECIPES else ''
  if preset == FINETUNE and not config.checkpoint_path:
    said += ' without --checkpoint_path, so from scratch'
  return config._replace(**settings), (
      f'--preset={preset}{said}, {config.dataset_name} at {noise}: {words}')


def _baseline_settings(dataset_name, level):
  """Settings of the methods of `baselines`, name -> value."""
  elr_lambda, elr_beta = _ELR.get(dataset_name, _ELR['cifar10'])
  return dict(noise_rate=min(level, _MOST_NOISE),
              forget_rate=min(level, _MOST_FORGOTTEN),
              elr_lambda=elr_lambda, elr_beta=elr_beta)


def _recipe_settings(preset, config, level, facts, given):
  """The settings of a recipe, with its epochs in steps; name -> value."""
  recipe = _RECIPES[preset]
  if recipe.adapts:
    settings = dict(loss_p_percentile=_share_of_clean(level, highest=1),
                    burn_in_epoch=noise_level.burn_in(level))
  else:
    settings = dict(loss_p_percentile=_share_of_clean(level))
  settings.update(recipe.settings)
  count = facts.get('num_examples')
  if not isinstance(count, int) or count <= 0:
    count = recipe.num_examples
  if count is None and 'max_number_of_steps' not in given:
    raise UserError(
        f'--preset={preset}: the noise.json of --data_dir={config.data_dir} '
        'does not say how many examples there are; give --max_number_of_steps')
  if recipe.adapts and count is not None:
    settings.update(_for_few(count, settings, config, given))
  size = config.batch_size if 'batch_size' in given else settings['batch_size']
  warmup_epochs = settings.pop('warmup_steps', 0)
  if count is not None:
    steps = max(1, count // size)  # In an epoch, as NCR counts.
    settings['max_number_of_steps'] = recipe.epochs * steps
    if warmup_epochs:
      settings['warmup_steps'] = warmup_epochs * steps
  if recipe.adapts and 'max_number_of_steps' in given:
    settings['warmup_steps'] = (
        config.max_number_of_steps * warmup_epochs // recipe.epochs)
  return settings


def _for_few(count, settings, config, given):
  """Batch size and learning rate for `count` examples, a dict.

  An epoch has at least 20 steps, unless a batch would be too small for batch
  norm. The rate falls with the batch (Goyal et al., arXiv 1706.02677).
  """
  largest = settings['batch_size']
  size = min(largest, max(_SMALLEST_BATCH, count // _STEPS_PER_EPOCH))
  if 'batch_size' in given:
    size = config.batch_size
  return dict(batch_size=size, learning_rate=round(
      settings['learning_rate'] * min(1.0, size / largest), 4))


def _mentornet_dir():
  """Path of the MentorNet: here, in the repository or as installed."""
  for directory in ('', _ROOT, _PACKAGE):
    path = os.path.join(directory, _MENTORNET)
    if os.path.isdir(path):
      return path
  return _MENTORNET


def _published_row(config, level, facts):
  name = config.dataset_name
  rows = {} if level is None else _PUBLISHED_ROWS.get(name, {})
  size = facts.get('image_size') or config.image_size or _PUBLISHED_SIZE
  if rows and size != _PUBLISHED_SIZE:
    raise UserError(
        f'--preset={PUBLISHED} is for {name} at {_PUBLISHED_SIZE} x '
        f'{_PUBLISHED_SIZE}, not {size} x {size}; give the settings themselves '
        f'or --preset={NCR}')
  near = [row for row in rows if abs(row - level) <= _NEAR]
  if not near:
    noise = 'an unknown noise level' if level is None else f'noise {level:g}'
    raise UserError(
        f'--preset={PUBLISHED} has nothing for {name} at {noise} '
        f'(--data_dir={config.data_dir}); it has '
        f'{", ".join(sorted(_PUBLISHED_ROWS))} at '
        f'{", ".join(map(str, LEVELS))}; give the settings themselves')
  return rows[min(near, key=lambda row: abs(row - level))]


def _share_of_clean(level, highest=0.8):
  """The percentile for a noise level, limited to 0.5 to `highest`."""
  return min(highest, max(_LEAST_PERCENTILE, noise_level.percentile(level)))


def published_accuracy(dataset_name, level, method):
  """Clean test accuracy of the full-size student after 200,000 steps.

  Args:
    dataset_name: cifar10, cifar100 or mini_imagenet_red, at 32 x 32; for others
      nothing is published.
    level: rate of symmetric noise, or of web labels (red), a float.
    method: one of config.METHODS.

  Returns:
    (paper, published code), percent, each None where there is no figure.
  """
  paper, code = _ACCURACY.get((dataset_name, method), (None, None))
  at = [k for k, known in enumerate(LEVELS) if abs(known - level) < 1e-6]
  return tuple(column[at[0]] if at and column else None
               for column in (paper, code))
