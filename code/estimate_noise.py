"""Estimates the share of wrong labels of a training set, for the settings.

    python code/score_labels.py --data_dir=data/mine/0 \\
      --checkpoint_dir=runs/short/train --output_dir=runs/short/scores
    python code/estimate_noise.py --data_dir=data/mine/0 \\
      --scores_dir=runs/short/scores

fits a mixture of two normal distributions to the losses in scores.csv, of which
wrong labels have the larger ones, and writes noise_estimate.json to --data_dir.
Then cifar_train_mentormix.py --loss_p_percentile=auto, and the presets, take
the rate from there, unless noise.json says it. The run should be a short one:
after a long run with cross-entropy, wrong labels are memorised and no longer
have larger losses.

Needs scikit-learn. Exit codes: 0 finished, 1 failed, 2 bad input.
"""
import csv
import math
import os

from absl import flags

from mentormix import command
from mentormix import files
from mentormix import noise_level
from mentormix.data import noise_facts
from mentormix.messages import log, UserError

_SCORES = 'scores.csv'


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string('data_dir', '', 'Directory of the training set.')
  flags.DEFINE_string('scores_dir', '',
                      'The --output_dir of score_labels.py.')
  for name in ('data_dir', 'scores_dir'):
    flags.register_validator(name, bool, 'must be given')


def main():
  """Flags -> losses -> estimate."""
  data_dir, scores_dir = flags.FLAGS.data_dir, flags.FLAGS.scores_dir
  files.writable_directory(data_dir, 'data_dir')
  facts = noise_facts.read_facts(data_dir) or {}
  path = os.path.join(scores_dir, _SCORES)
  losses = _read(path)
  if facts.get('num_examples', len(losses)) != len(losses):
    raise UserError(f'{path} has {len(losses)} rows, but --data_dir={data_dir} '
                    f'has {facts["num_examples"]} examples; name its scores')
  try:
    found = noise_level.estimate(losses)
  except ImportError:
    raise UserError('this needs scikit-learn: pip install scikit-learn')
  files.write_json(
      os.path.join(data_dir, noise_facts.ESTIMATE_FILE),
      dict(found._asdict(), num_examples=len(losses)), indent=1)
  log(f'about {found.rate:.1%} of the labels are wrong (two normal '
      f'distributions of the loss, with means {found.means[0]:.2f} and '
      f'{found.means[1]:.2f}); --loss_p_percentile={noise_level.AUTO} now '
      f'takes {noise_level.percentile(found.rate)}')
  if facts.get('rate_realised') is not None:
    log(f'{noise_facts.FACTS_FILE} says {facts["rate_realised"]:.1%}, which '
        f'goes before an estimate')


def _read(path):
  """The losses in a file of scores, floats."""
  try:
    with open(path, newline='', encoding='utf-8') as f:
      losses = [float(row['loss']) for row in csv.DictReader(f)]
  except OSError as error:
    raise UserError(f'{path}: {error.strerror}; name the --output_dir of '
                    'code/score_labels.py')
  except (KeyError, TypeError, ValueError):
    losses = []
  if not losses or not all(map(math.isfinite, losses)):
    raise UserError(f'{path} does not hold the losses of examples; make it '
                    'again with code/score_labels.py')
  return losses


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
