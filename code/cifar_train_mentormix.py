"""Trains a student on noisy labels with MentorMix.

    python code/cifar_train_mentormix.py --dataset_name=cifar10 \
      --data_dir=data/cifar10/0.4 --train_log_dir=runs/cifar10_0.4/train \
      --trained_mentornet_dir=mentornet_models/mentornet_pd

Writes checkpoints, summaries and config.json to --train_log_dir; the same
command goes on where it left off. Evaluate with cifar_eval.py, in a process of
its own. Exit codes: 0 trained, 1 failed, 2 bad input, 130 or 143 stopped by
Ctrl-C or SIGTERM after a checkpoint.
"""
from absl import flags

from mentormix import config as config_lib
from mentormix import errors

FLAGS = flags.FLAGS

# The published flags, their defaults and meaning.
flags.DEFINE_integer('batch_size', 128, 'Examples per step.')
flags.DEFINE_string('master', '', 'TensorFlow master to use.')
flags.DEFINE_string('data_dir', '', 'Directory of the noisy training set.')
flags.DEFINE_string('train_log_dir', '',
                    'Where checkpoints, summaries and config.json go.')
flags.DEFINE_string('dataset_name',
                    config_lib.PUBLISHED_DEFAULTS['dataset_name'],
                    'cifar10, cifar100 or digits.')
flags.DEFINE_string('studentnet', config_lib.PUBLISHED_DEFAULTS['studentnet'],
                    'resnet32 (the published, wide one), resnet32_thin, '
                    'resnet14_thin or resnet8_thin.')
flags.DEFINE_float('learning_rate', 0.1, 'Initial learning rate.')
flags.DEFINE_float('learning_rate_decay_factor', 0.9,
                   'What each decay multiplies the learning rate by.')
flags.DEFINE_float('num_epochs_per_decay', 3,
                   'Epochs between two decays of the learning rate.')
flags.DEFINE_integer('save_summaries_secs', 120,
                     'Seconds between summaries; 0 for none.')
flags.DEFINE_integer('save_interval_secs', 1200, 'Seconds between checkpoints.')
flags.DEFINE_integer('max_number_of_steps', 100000, 'Steps to train.')
flags.DEFINE_integer('ps_tasks', 0, 'Number of parameter servers.')
flags.DEFINE_integer('task', 0, 'Index of this worker; 0 is the chief.')
flags.DEFINE_string('device_id', '0',
                    'GPUs to use, as in CUDA_VISIBLE_DEVICES.')
flags.DEFINE_string('trained_mentornet_dir', '',
                    'The MentorNet: a frozen directory as under '
                    'mentornet_models/, a checkpoint prefix, a directory with '
                    'a checkpoint, or the word threshold.')
flags.DEFINE_string('example_dropout_rates', '0.0,100',
                    'Share of examples whose weight is zeroed: '
                    'rate,percent,rate,percent,... over 100 percent of the '
                    'training.')
flags.DEFINE_integer('burn_in_epoch', 0,
                     'Percent of the training, less one, before the weights '
                     'count; until then all are 1.')
flags.DEFINE_float('loss_p_percentile', 0.7,
                   'Percentile of the loss, 0 to 1, that the MentorNet '
                   'compares with.')
flags.DEFINE_float('mixup_alpha', 8.0,
                   'Of Beta(alpha, alpha); 0 mixes nothing.')
flags.DEFINE_boolean('second_reweight', True,
                     'Whether to weight the mixed examples, too. As published, '
                     'this also turns weight decay off.')

# Ours.
flags.DEFINE_enum('method', 'mentormix', config_lib.METHODS,
                  'The method; cross_entropy is plain training.')
flags.DEFINE_integer('seed', 0,
                     'Of initial weights, order, augmentation and mixing.')
flags.DEFINE_integer('num_readers', 4, 'Threads that read files.')
flags.DEFINE_integer('num_preprocessing_threads', 4,
                     'Threads that decode and augment.')


def main():
  """Flags -> config -> training."""
  config = config_lib.TrainConfig(
      **{name: FLAGS[name].value for name in config_lib.TrainConfig._fields})
  config_lib.validate(config)
  config_lib.writable_directory(config.train_log_dir, 'train_log_dir')
  from mentormix import training  # TensorFlow starts once the flags are good.
  return training.train(config)


def cli():
  errors.run(main)


if __name__ == '__main__':
  cli()
