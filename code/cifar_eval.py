"""Evaluates the checkpoints of a training run as they appear.

    python code/cifar_eval.py --data_dir=data/cifar10/val \\
      --checkpoint_dir=runs/cifar10_0.4/train --eval_dir=runs/cifar10_0.4/eval

A process of its own: it polls --checkpoint_dir, evaluates every new checkpoint
with the averaged weights, each image once, and adds a row (step, top1, top5,
loss, count, wall_time) to results.csv. It ends when training has reached its
last step, after one round with --once, or when nothing new has come for
--timeout seconds. Data set and student come from the run's config.json. Exit
codes: 0 finished, 1 failed or given up, 2 bad input. A signal ends it at once;
nothing is lost by that, and the same command goes on.
"""
import os

from mentormix import command
from mentormix import config as config_lib
from mentormix import files


def define_flags():
  """Defines the flags; called once, by the script."""
  command.define_flags(config_lib.EvalConfig(), dict(
      batch_size='Images per batch.',
      master='TensorFlow master to use.',
      data_dir='Directory of the split to evaluate on.',
      dataset_name='Default: that of the run; without its config.json, %s.'
                   % config_lib.TrainConfig().dataset_name,
      studentnet='Default: that of the run; without its config.json, %s.'
                 % config_lib.TrainConfig().studentnet,
      split_name='Which split of --data_dir: test or train.',
      checkpoint_dir='The --train_log_dir of the training run.',
      eval_dir='Where summaries and results.csv go.',
      eval_interval_secs='Seconds between two looks for new checkpoints.',
      output_csv_file='Default: results.csv in --eval_dir.',
      device_id='GPUs to use, as in CUDA_VISIBLE_DEVICES.',
      # Beyond the published flags.
      once='Evaluate the checkpoints that are there, then end.',
      timeout='Seconds without a new checkpoint after which to give up; 0 for '
              'none.',
      max_bad_records='How many bad records of --data_dir to skip: not an '
                      'example of the data set, label out of range, image '
                      'that cannot be decoded. If there are more, nothing '
                      'starts. A file that is damaged or cut off is always an '
                      'error, because what follows the damage cannot be read.',
  ))


def main():
  """Flags -> config -> evaluation."""
  evaluate(command.from_flags(config_lib.EvalConfig))


def evaluate(config):
  """Evaluates as a `config.EvalConfig` says."""
  config_lib.validate_eval(config)
  files.writable_directory(config.eval_dir, 'eval_dir')
  if config.output_csv_file:
    files.writable_directory(
        os.path.dirname(config.output_csv_file) or '.', 'output_csv_file')
  from mentormix.evaluation import loop  # TensorFlow starts once flags are good.
  with files.only_writer(config.eval_dir, 'eval_dir'):
    loop.evaluate(config)


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


if __name__ == '__main__':
  cli()
