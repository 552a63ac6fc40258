"""Trains a student on noisy labels: MentorMix, and what it is compared with.

    python code/cifar_train_mentormix.py --preset=published \\
      --data_dir=data/cifar10/0.4 --train_log_dir=runs/cifar10_0.4/train

Writes checkpoints, summaries and config.json to --train_log_dir; the same
command goes on where it left off. Evaluate with cifar_eval.py, in a process of
its own. SIGUSR1 saves a checkpoint at once. Exit codes: 0 trained, 1 failed, 2
bad input; 129, 130 or 143 stopped by SIGHUP, Ctrl-C or SIGTERM after a
checkpoint.
"""
import os
import signal

from absl import flags

from mentormix import command
from mentormix import config as config_lib
from mentormix import files
from mentormix import presets


def define_flags():
  """Defines the flags; called once, by the script."""
  command.define_flags(config_lib.TrainConfig(), dict(
      batch_size='Examples per step.',
      master='TensorFlow master to use.',
      data_dir='Directory of the noisy training set.',
      train_log_dir='Where checkpoints, summaries and config.json go.',
      dataset_name='cifar10, cifar100, digits, or the name of your own.',
      studentnet='resnet32 (the published, wide one), resnet32_thin, '
                 'resnet14_thin or resnet8_thin.',
      learning_rate='Initial learning rate.',
      learning_rate_decay_factor='What a decay multiplies the rate by.',
      num_epochs_per_decay='Epochs between two decays of the learning rate.',
      save_summaries_secs='Seconds between summaries; 0 for none.',
      save_interval_secs='Seconds between checkpoints.',
      max_number_of_steps='Steps to train.',
      ps_tasks='Number of parameter servers.',
      task='Index of this worker; 0 is the chief.',
      device_id='GPUs to use, as in CUDA_VISIBLE_DEVICES.',
      trained_mentornet_dir=(
          'The MentorNet: a frozen directory as under mentornet_models/, a '
          'checkpoint prefix, a directory with a checkpoint; the word '
          'threshold; or v_star: and a curriculum by name or Python file, for '
          'its formula itself.'),
      example_dropout_rates='Share of examples whose weight is zeroed, as '
                            'rate,percent,rate,percent,... over 100 percent of '
                            'the training.',
      burn_in_epoch='All weights are 1 until one percent of the training '
                    'before this one.',
      loss_p_percentile='Percentile of the loss, 0 to 1, whose moving average '
                        'the MentorNet compares with.',
      mixup_alpha='Of Beta(alpha, alpha); 0 mixes nothing.',
      second_reweight='Whether to weight the mixed examples, too. As '
                      'published, this also turns weight decay off.',
      # Beyond the published flags.
      method='cross_entropy: plain training; mixup: uniform partners, no '
             'weights; mentornet: weights, no mixing; mentormix: both.',
      seed='Of initial weights, order, augmentation and mixing.',
      num_readers='Threads that read the files of a set too large for '
                  'memory (2 GiB decoded).',
      num_preprocessing_threads=(
          'Threads that augment and, for such a set, that decode. With 1, and '
          '1 reader for such a set, the seed fixes the order of the images.'),
      loss_csv_file='Where to write the losses of the examples, from which '
                    'train_mentornet.py learns a data-driven MentorNet; up to '
                    'a million rows, with each checkpoint. Needs clean labels.',
      precision='float32; or mixed: the student computes in bfloat16 on '
                'TensorFlow 2.x (GPUs from Ampere, CPUs with AMX or '
                'AVX512-BF16), in float16 with loss scaling on 1.15 (Volta, '
                'Turing); weights, losses, weighting and averages stay '
                'float32.',
      xla='Whether XLA compiles the step.',
      max_bad_records='How many damaged records of --data_dir to leave out; '
                      'with more, and by default with any, nothing starts.',
  ))
  flags.DEFINE_enum(
      'preset', None, presets.NAMES,
      'Fills in, and prints, what the command line does not say. published: '
      'the settings of the published code for this data set and noise level, '
      'known from noise.json or the name of the directory; cpu: for a thin '
      'student on a CPU.')


def config_from_flags():
  """The `config.TrainConfig` of the command line, its --preset filled in."""
  config = command.from_flags(config_lib.TrainConfig)
  if flags.FLAGS.preset:
    config_lib.require_given(config, 'data_dir')
    config, filled = presets.fill(
        config, flags.FLAGS.preset, command.given_flags(config_lib.TrainConfig))
    command.log(filled)
  return config


def main():
  """Flags -> config -> training."""
  config = config_from_flags()
  config_lib.validate(config)
  # There is nothing to save yet; without this, asking for it would end us.
  signal.signal(signal.SIGUSR1, signal.SIG_IGN)
  files.writable_directory(config.train_log_dir, 'train_log_dir')
  if config.loss_csv_file:
    files.writable_directory(os.path.dirname(config.loss_csv_file) or '.',
                             'loss_csv_file')
  from mentormix import training  # TensorFlow starts once the flags are good.
  with files.only_writer(config.train_log_dir, 'train_log_dir'):
    return training.train(config)


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


if __name__ == '__main__':
  cli()
