"""Evaluates the checkpoints of a training run as they appear.

    python code/cifar_eval.py --data_dir=data/cifar10/val \
      --checkpoint_dir=runs/cifar10_0.4/train --eval_dir=runs/cifar10_0.4/eval

A process of its own: it polls --checkpoint_dir, evaluates every new checkpoint
with the averaged weights, each image once, and adds a row (step, top1, top5,
loss, count, wall_time) to results.csv. It ends when training has finished, or
after one round with --once. Data set and student come from the run's
config.json. Exit codes: 0 finished, 1 failed, 2 bad input.
"""
from absl import flags

from mentormix import config as config_lib
from mentormix import errors

FLAGS = flags.FLAGS

# The published flags.
flags.DEFINE_integer('batch_size', 25, 'Images per batch.')
flags.DEFINE_string('master', '', 'TensorFlow master to use.')
flags.DEFINE_string('data_dir', '', 'Directory of the split to evaluate on.')
flags.DEFINE_string('dataset_name', None,
                    'Default: that of the run; without its config.json, %s.'
                    % config_lib.PUBLISHED_DEFAULTS['dataset_name'])
flags.DEFINE_string('studentnet', None,
                    'Default: that of the run; without its config.json, %s.'
                    % config_lib.PUBLISHED_DEFAULTS['studentnet'])
flags.DEFINE_enum('split_name', 'test', ['test', 'train'],
                  'Which split of --data_dir.')
flags.DEFINE_string('checkpoint_dir', '',
                    'The --train_log_dir of the training run.')
flags.DEFINE_string('eval_dir', '', 'Where summaries and results.csv go.')
flags.DEFINE_integer('eval_interval_secs', 600,
                     'Seconds between two looks for new checkpoints.')
flags.DEFINE_string('output_csv_file', '',
                    'Default: results.csv in --eval_dir.')
flags.DEFINE_string('device_id', '0',
                    'GPUs to use, as in CUDA_VISIBLE_DEVICES.')

# Ours.
flags.DEFINE_boolean('once', False,
                     'Evaluate the checkpoints that are there, then end.')


def main():
  """Flags -> config -> evaluation."""
  config = config_lib.EvalConfig(
      **{name: FLAGS[name].value for name in config_lib.EvalConfig._fields})
  config_lib.validate_eval(config)
  config_lib.writable_directory(config.eval_dir, 'eval_dir')
  from mentormix import evaluation  # TensorFlow starts once flags are good.
  evaluation.evaluate(config)


def cli():
  errors.run(main)


if __name__ == '__main__':
  cli()
