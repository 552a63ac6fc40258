"""Writes runs as training and evaluation leave them, for tests of reports."""
import json

import numpy as np

from mentormix import config as config_lib
from mentormix.evaluation import results as eval_results
from mentormix.reports import groups
from mentormix.reports import runs
from mentormix.runtime import tf

NOISE = dict(noise_type='symmetric_others', rate_asked=0.4,
             rate_realised=0.4001)
HELD_OUT = 140  # Training images with noisy labels.
SCORES = dict(step=100, count=1397, auc=0.9, average_precision=0.8,
              num_suspected=500, precision=0.7, recall=0.6, noise_rate=0.4)

WEIGHTS = {'v/clean': {10: 1, 50: 0.9}, 'v/noisy': {10: 1, 50: 0.2},
           'v/precision': {10: 0.6, 50: float('nan')}, 'v/recall': {10: 1}}


def write_run(path, accuracies=(0.1, 0.9, 0.8), noise=NOISE, scores=None,
              events=None, data_dir='data/cifar10/0.4', held_out=(),
              **settings):
  """Writes a run as training and evaluation leave it.

  Args:
    path: of the run, a pathlib path.
    accuracies: of evenly spaced checkpoints from step 0 to step 100.
    noise, scores: the content of noise.json and of summary.json; None for none.
    events: tag -> {step: value}.
    held_out: accuracies on the held-out images, as `accuracies`.
    data_dir, **settings: fields of `config.TrainConfig`.
  """
  train = path / 'train'
  train.mkdir(parents=True)
  settings = {'dataset_name': 'cifar10', 'max_number_of_steps': 100, **settings}
  config_lib.save(config_lib.TrainConfig(
      data_dir=data_dir, train_log_dir=str(train), **settings), str(train))
  if noise:
    (train / 'noise.json').write_text(json.dumps(noise))
  if accuracies:
    write_results(path / 'eval', accuracies)
  if held_out:
    write_results(path / 'holdout', held_out, HELD_OUT)
  if scores:
    (path / 'scores').mkdir()
    (path / 'scores' / 'summary.json').write_text(json.dumps(scores))
  if events:
    write_events(train, events)


def write_results(directory, accuracies, count=400):
  """Writes results.csv with evenly spaced steps from 0 to 100."""
  directory.mkdir(exist_ok=True)
  steps = np.linspace(0, 100, len(accuracies)).astype(int)
  eval_results.write(str(directory / eval_results.FILE), [
      eval_results.Result(step, top1, 1.0, 0.5, count, 1.0)
      for step, top1 in zip(steps, accuracies)])


def write_events(directory, events, suffix=None):
  with tf.Graph().as_default():
    writer = tf.summary.FileWriter(str(directory), filename_suffix=suffix)
    for tag, points in events.items():
      for step, value in points.items():
        writer.add_summary(tf.Summary(value=[
            tf.Summary.Value(tag=tag, simple_value=value)]), step)
    writer.close()


def read_groups(path):
  """The `groups.Group`s of the runs below a path."""
  return groups.group(runs.read([str(path)]))
