"""Evaluates the checkpoints of a training run as they appear.

    python code/cifar_eval.py --data_dir=data/cifar10/val \\
      --checkpoint_dir=runs/cifar10_0.4/train --eval_dir=runs/cifar10_0.4/eval

This separate process polls --checkpoint_dir. It evaluates each new checkpoint
with the averaged weights, each image once, and adds a row (step, top1, top5,
loss, count, wall_time; with --statistics=recomputed also top1_recomputed, with
--test_time_flip also top1_flipped) to results.csv. It ends when training has
reached its last step, after one round with --once, or when there was no new
checkpoint for --timeout seconds. Data set and student come from the run's
config.json. Exit codes: 0 finished, 1 failed or timed out, 2 bad input. A
signal ends it at once; nothing is lost, and the same command resumes.
"""
import os

from mentormix import command
from mentormix import config as config_lib
from mentormix import eval_settings
from mentormix import files


def define_flags():
  """Defines the flags; called once, by the script."""
  command.define_settings(eval_settings.EVAL_SETTINGS)


def main():
  """Flags -> config -> evaluation."""
  config = command.from_flags(config_lib.EvalConfig)
  config_lib.validate_eval(config)
  files.writable_directory(config.eval_dir, 'eval_dir')
  if config.output_csv_file:
    files.writable_directory(
        os.path.dirname(config.output_csv_file) or '.', 'output_csv_file')
  from mentormix.evaluation import loop  # TensorFlow starts after the checks.
  with files.only_writer(config.eval_dir, 'eval_dir'):
    loop.evaluate(config)


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
