"""Trains a student on noisy labels: MentorMix, and what it is compared with.

    python code/cifar_train_mentormix.py --preset=published \\
      --data_dir=data/cifar10/0.4 --train_log_dir=runs/cifar10_0.4/train

Writes checkpoints, summaries and config.json to --train_log_dir; the same
command goes on where it left off. Evaluate with cifar_eval.py, in a process of
its own. SIGUSR1 saves a checkpoint at once. Exit codes: 0 trained, 1 failed, 2
bad input; 129, 130 or 143 stopped by SIGHUP, Ctrl-C or SIGTERM after a
checkpoint.

On several machines, or with several GPUs, every task of a cluster runs this
command, either with TF_CONFIG in its environment or with --job_name, --task,
--ps_hosts and --worker_hosts; worker 0, the chief, writes the directory.
TensorFlow's server has no password: see --listen_on_all_interfaces, and
scripts/local_cluster.sh, slurm.sh and kubernetes.yaml, which start clusters.
"""
import contextlib
import os
import signal

from absl import flags

import cifar_eval
from mentormix.cluster import roles
from mentormix import command
from mentormix import config as config_lib
from mentormix import files
from mentormix import messages
from mentormix.messages import UserError
from mentormix import presets


def define_flags():
  """Defines the flags; called once, by the script."""
  command.define_flags(config_lib.TrainConfig(), dict(
      batch_size='Examples per step.',
      master='A TensorFlow server that runs already, such as grpc://host:port, '
             'and that computes the steps; by default this process does.',
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
      ps_tasks='Number of parameter servers that --master knows.',
      task='Index of this task in its job; worker 0 is the chief.',
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
                    'a million rows, with each checkpoint; of a cluster those '
                    'of the chief. Needs clean labels.',
      precision='float32; or mixed: the student computes in bfloat16 on '
                'TensorFlow 2.x (GPUs from Ampere, CPUs with AMX or '
                'AVX512-BF16), in float16 with loss scaling on 1.15 (Volta, '
                'Turing); weights, losses, weighting and averages stay '
                'float32.',
      xla='Whether XLA compiles the step.',
      max_bad_records='How many bad records of --data_dir to skip: not an '
                      'example of the data set, label out of range, image '
                      'that cannot be decoded. If there are more, nothing '
                      'starts. A file that is damaged or cut off is always an '
                      'error, because what follows the damage cannot be read.',
      warmup_steps='Steps over which the learning rate grows to its value.',
      job_name='Role of this task in a cluster: worker, ps (parameter server) '
               'or evaluator, which does the work of cifar_eval.py on the '
               'directory val beside --data_dir. The environment variable '
               'TF_CONFIG can describe a cluster in place of this flag, '
               '--ps_hosts and --worker_hosts.',
      ps_hosts='Addresses of the parameter servers, host:port,host:port.',
      worker_hosts='Addresses of the workers; the first is the chief.',
      listen_on_all_interfaces=(
          'Allows a task of a cluster to start where other machines may reach '
          "its port. TensorFlow's server listens on every interface, has no "
          'password and executes what it is sent: give this only behind a '
          'firewall. Not needed where loopback is the only interface.'),
      cluster_timeout='Seconds to wait for a task of the cluster that does not '
                      'answer, or for a step; 0: no limit.',
      sync_replicas='Whether the workers take each step together, on the mean '
                    'of their gradients: then --max_number_of_steps counts '
                    'steps of workers x batch_size examples. Otherwise each '
                    'worker takes its own steps, and all of them count.',
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
    messages.log(filled)
  return config


def main():
  """Flags -> config -> training, or another task of a cluster."""
  # There is nothing to save yet; without this, asking for it would end us.
  signal.signal(signal.SIGUSR1, signal.SIG_IGN)
  config = command.from_flags(config_lib.TrainConfig)
  config_lib.validate_cluster(config)
  cluster = roles.find(config, os.environ)
  if cluster.job == roles.PS:  # It needs no data.
    from mentormix.cluster import servers  # pylint: disable=g-import-not-at-top
    servers.serve(cluster, config)
    return
  config = config_from_flags()
  config_lib.validate(config)
  if cluster.job == roles.EVALUATOR:
    _evaluate(config)
    return
  if config.sync_replicas and not cluster.jobs:
    raise UserError('--sync_replicas needs a cluster: see --worker_hosts')
  if cluster.is_chief:
    files.writable_directory(config.train_log_dir, 'train_log_dir')
  if config.loss_csv_file:
    files.writable_directory(os.path.dirname(config.loss_csv_file) or '.',
                             'loss_csv_file')
  from mentormix.training import loop  # TensorFlow starts once the flags are good.
  with (files.only_writer(config.train_log_dir, 'train_log_dir')
        if cluster.is_chief else contextlib.suppress()):
    return loop.train(config, cluster)


def _evaluate(config):
  """Evaluates the checkpoints of --train_log_dir as they appear."""
  path = os.path.abspath(config.train_log_dir)
  evaluation = config_lib.EvalConfig(
      data_dir=os.path.join(os.path.dirname(os.path.abspath(config.data_dir)),
                            'val'),
      checkpoint_dir=path,
      eval_dir=(os.path.join(os.path.dirname(path), 'eval')
                if os.path.basename(path) == 'train' else path + '-eval'),
      eval_interval_secs=config.save_interval_secs,
      # It ends, too, when training has.
      timeout=config.cluster_timeout and (
          config.cluster_timeout + 2 * config.save_interval_secs),
      max_bad_records=config.max_bad_records, device_id=config.device_id)
  if not os.path.isdir(evaluation.data_dir):
    raise UserError('the evaluator looks for the test set in %s, beside '
                    '--data_dir, where it is not; run code/cifar_eval.py '
                    'instead' % evaluation.data_dir)
  cifar_eval.evaluate(evaluation)


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


if __name__ == '__main__':
  cli()
