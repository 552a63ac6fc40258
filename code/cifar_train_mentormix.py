"""Trains a student on noisy labels with MentorMix, or with a baseline.

    python code/cifar_train_mentormix.py --preset=published \\
      --data_dir=data/cifar10/0.4 --train_log_dir=runs/cifar10_0.4/train

Writes checkpoints, summaries and config.json to --train_log_dir. The same
command resumes from the newest checkpoint. Evaluate with cifar_eval.py in a
separate process. SIGUSR1 saves a checkpoint at once. Exit codes: 0 trained, 1
failed, 2 bad input; 129, 130, 143 or 141 stopped after a checkpoint: by SIGHUP,
Ctrl-C or SIGTERM, or because whatever read its output has gone.

To use several machines or GPUs, run this command once for each task of a
cluster, with TF_CONFIG in the environment or with --job_name, --task,
--ps_hosts and --worker_hosts. Worker 0, the chief, writes the directory.
TensorFlow's server has no password: see --listen_on_all_interfaces, and
scripts/local_cluster.sh, slurm.sh and kubernetes.yaml.
"""
import contextlib
import os
import signal

from mentormix import command
from mentormix import config as config_lib
from mentormix import files
from mentormix.cluster import roles
from mentormix.messages import UserError


def define_flags():
  """Defines the flags; called once, by the script."""
  command.define_train_flags()


def main():
  """Flags -> config -> training, or another task of a cluster."""
  # Until there is something to save, a request to save must do nothing.
  signal.signal(signal.SIGUSR1, signal.SIG_IGN)
  config = command.from_flags(config_lib.TrainConfig)
  config_lib.validate_cluster(config)
  cluster = roles.find(config, os.environ)
  # TensorFlow starts after the checks.
  if cluster.job == roles.PS:  # It needs no data.
    from mentormix.cluster import servers
    servers.serve(cluster, config)
    return 0
  config = command.train_config()
  config_lib.validate(config)
  if cluster.job == roles.EVALUATOR:
    from mentormix.evaluation import loop as evaluation_loop
    evaluation = config_lib.eval_of(config)
    files.writable_directory(evaluation.eval_dir, 'eval_dir')
    with files.only_writer(evaluation.eval_dir, 'eval_dir'):
      evaluation_loop.evaluate(evaluation)
    return 0
  if config.sync_replicas and not cluster.jobs:
    raise UserError('--sync_replicas needs a cluster: see --worker_hosts')
  if cluster.is_chief:
    files.writable_directory(config.train_log_dir, 'train_log_dir')
  if config.loss_csv_file:
    files.writable_directory(os.path.dirname(config.loss_csv_file) or '.',
                             'loss_csv_file')
  from mentormix.training import loop as training_loop
  with (files.only_writer(config.train_log_dir, 'train_log_dir')
        if cluster.is_chief else contextlib.suppress()):
    return training_loop.train(config, cluster)


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
