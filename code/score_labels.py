"""Ranks the labels of a training set by how likely they are wrong.

    python code/score_labels.py --data_dir=data/cifar10/0.4 \\
      --checkpoint_dir=runs/cifar10_0.4/train \\
      --output_dir=runs/cifar10_0.4/scores

The student of a run looks once at every example that it was trained on, with
averaged weights and without augmentation. The higher the loss of the label that
an example was given, the more suspicious is that label. If the run has a
MentorNet, the labels of examples with a weight below 0.5 are suspected, else
those that the student disagrees with. Writes to --output_dir, and replaces what
an earlier call wrote there:

    scores.csv      a row per example, the most suspicious first
    summary.json    counts and, if clean labels are known, precision and recall
    suspicious.png  the most suspicious images

Data set, student and MentorNet come from the run's config.json. Exit codes:
0 finished, 1 failed, 2 bad input.
"""
import csv
import json
import os
import tempfile
import textwrap

import numpy as np
from absl import flags

from mentormix import command
from mentormix import config as config_lib
from mentormix.data import noise_facts
from mentormix import files
from mentormix.messages import log
from mentormix.messages import UserError

SCORES, SUMMARY, PICTURE = 'scores.csv', 'summary.json', 'suspicious.png'
COLUMNS = ('id', 'given_label', 'predicted_label', 'probability',
           'given_probability', 'loss', 'weight', 'suspected', 'clean_label')

# Frames of the picture: is the label wrong -> colour, meaning.
_FRAMES = {
    True: ('green', 'the clean label is another'),
    False: ('red', 'the clean label is the same'),
    None: ('grey', 'the clean label is not known')}
_LEAST_COLUMNS = 8


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string('data_dir', '', 'Directory of the training set.')
  flags.DEFINE_string('checkpoint_dir', '',
                      'The --train_log_dir of the training run.')
  flags.DEFINE_string('output_dir', '',
                      f'Directory for {SCORES}, {SUMMARY} and {PICTURE}.')
  for name in ('data_dir', 'checkpoint_dir', 'output_dir'):
    flags.register_validator(name, bool, 'must be given')
  flags.DEFINE_integer(
      'step', None, 'Step of the checkpoint; by default the last.',
      lower_bound=0)
  flags.DEFINE_string('trained_mentornet_dir', '',
                      'The MentorNet; by default that of the run.')
  flags.DEFINE_integer('batch_size', 100, 'Images per batch.', lower_bound=1)
  flags.DEFINE_integer('num_images', 64, f'How many images {PICTURE} shows.',
                       lower_bound=1, upper_bound=1000)
  flags.DEFINE_string('device_id', '0',
                      'GPUs to use, as in CUDA_VISIBLE_DEVICES.')


def main():
  """Flags and the run's settings -> scores -> files."""
  args = flags.FLAGS
  run = _settings_of_run(args.checkpoint_dir, args.trained_mentornet_dir)
  facts = noise_facts.read_facts(args.data_dir) or {}
  trained_on = facts.get('dataset_name', run.dataset_name)
  if trained_on != run.dataset_name:
    raise UserError(
        f'--data_dir={args.data_dir} holds --dataset_name={trained_on}, but '
        f'{args.checkpoint_dir} was trained with '
        f'--dataset_name={run.dataset_name}')
  files.writable_directory(args.output_dir, 'output_dir')
  # pylint: disable=g-import-not-at-top
  import matplotlib.figure  # noqa: F401  If missing, fail before the pass.
  from mentormix.data import datasets  # TensorFlow starts once the flags are valid.
  from mentormix import label_ranking
  from mentormix.mentornet import loading
  from mentormix import runtime
  runtime.select_device(args.device_id)
  step, prefix = _checkpoint(args.checkpoint_dir, args.step)
  network = None
  if run.method in config_lib.WEIGHTED:
    network = loading.load(run.trained_mentornet_dir, run.loss_p_percentile)
  dataset = datasets.get(run.dataset_name, args.data_dir)
  if noise_facts.read_facts(args.checkpoint_dir) not in (None, facts):
    log(f'note: the run was trained on another data set than --data_dir='
        f'{args.data_dir}, according to its {noise_facts.FACTS_FILE}')
  scores, images = _one_pass(args, run, dataset, step, prefix)
  v = None
  if network:
    v = label_ranking.weigh(network, scores.loss, run.loss_p_percentile, step,
                           run.max_number_of_steps)
  suspected = label_ranking.suspected(scores, v)
  summary = label_ranking.summarize(scores, suspected)
  summary.update(step=step, data_dir=args.data_dir, checkpoint=prefix)
  is_wrong = [None if clean == datasets.UNKNOWN_LABEL else bool(clean != given)
              for clean, given in zip(scores.clean, scores.given)]
  names = facts.get('class_names')
  if not isinstance(names, list) or len(names) != dataset.num_classes:
    names = range(dataset.num_classes)
  order = label_ranking.by_suspicion(scores.loss)
  top = order[:len(images)]
  figure = draw(
      images, [f'{names[scores.given[i]]} > {names[scores.predicted[i]]}'
               for i in top], [is_wrong[i] for i in top],
      f'The {len(top)} most suspicious of {len(order)} labels: '
      'given > predicted')
  _write(args.output_dir, _rows(scores, v, suspected, is_wrong, order), summary,
         figure)
  _log_summary(summary, len(order))
  log(f'{SCORES}, {SUMMARY} and {PICTURE} are in {args.output_dir}')


def _one_pass(args, run, dataset, step, prefix):
  """Scores the training set: the result of `label_scores.collect`."""
  # pylint: disable=g-import-not-at-top
  from mentormix.data import datasets
  from mentormix.data import decoding
  from mentormix.data import record_checks
  from mentormix import label_ranking
  from mentormix import runtime
  paths = datasets.find_files(dataset, 'train', args.data_dir)
  shards, count = record_checks.check_files(dataset, 'train', paths,
                                       run.max_bad_records)
  decoding.check_images(dataset, 'train', shards)
  log(f'TensorFlow {runtime.VERSION}: scoring the labels of {args.data_dir}, '
      f'{count} examples, with {args.checkpoint_dir} at step {step}')
  return label_ranking.collect(run.studentnet, dataset, shards, count, prefix,
                              args.batch_size, args.num_images)


def _log_summary(summary, count):
  """Logs how many labels are suspected, and how well that matches the truth."""
  log(f'{summary["num_suspected"]} of {count} labels are suspected')
  if summary['noise_rate'] is None:
    log('the clean labels are not known, so the number of wrong labels is '
        'unknown, too')
    return
  figures = {name: summary[name] for name in (
      'noise_rate', 'auc', 'average_precision', 'precision', 'recall')}
  log('  '.join(
      f'{name.replace("_", " ")} {"-" if value is None else f"{value:.4f}"}'
      for name, value in figures.items()))


def _settings_of_run(directory, trained_mentornet_dir):
  """The `config.TrainConfig` of a run, with another MentorNet if one is given.

  Raises:
    UserError: it is missing or damaged, or the method uses no MentorNet.
  """
  run = config_lib.restore(directory)
  try:
    config_lib.validate(run)
  except UserError as error:
    path = os.path.join(directory, config_lib.CONFIG_FILE)
    raise UserError(f'{path} is damaged: {error}')
  if trained_mentornet_dir and run.method not in config_lib.WEIGHTED:
    raise UserError(
        f'--trained_mentornet_dir={trained_mentornet_dir}, but {directory} was '
        f'trained with --method={run.method}, which has no MentorNet')
  return run._replace(trained_mentornet_dir=(
      trained_mentornet_dir or run.trained_mentornet_dir))


def _checkpoint(directory, step):
  """(step, prefix) of a checkpoint; of the newest where `step` is None."""
  from mentormix import checkpoints  # pylint: disable=g-import-not-at-top
  found = checkpoints.find(directory)
  if not found:
    raise UserError(f'--checkpoint_dir={directory} holds no checkpoint')
  step = max(found) if step is None else step
  if step not in found:
    steps = ', '.join(map(str, sorted(found)))
    raise UserError(f'--step={step}: {directory} holds no such checkpoint, '
                    f'only those of the steps {steps}')
  return step, found[step]


def _rows(scores, v, suspected, is_wrong, order):
  """The rows of scores.csv, the header first."""
  yield COLUMNS
  for i in order:
    source_id = scores.source_ids[i].decode('utf-8', 'backslashreplace')
    yield (source_id or i, scores.given[i], scores.predicted[i],
           f'{scores.probability[i]:.6f}', f'{np.exp(-scores.loss[i]):.6f}',
           f'{scores.loss[i]:.6f}', '' if v is None else f'{v[i]:.6f}',
           int(suspected[i]), '' if is_wrong[i] is None else scores.clean[i])


def _write(output_dir, rows, summary, figure):
  """Writes the three files, each of them atomically."""
  with tempfile.TemporaryDirectory(dir=output_dir) as directory:
    with open(os.path.join(directory, SCORES), 'w', encoding='utf-8',
              newline='') as f:
      csv.writer(f, lineterminator='\n').writerows(rows)
    with open(os.path.join(directory, SUMMARY), 'w') as f:
      json.dump(summary, f, indent=2, sort_keys=True)
      f.write('\n')
    figure.savefig(os.path.join(directory, PICTURE), dpi=110)
    for name in (SCORES, SUMMARY, PICTURE):
      os.replace(os.path.join(directory, name), os.path.join(output_dir, name))


def draw(images, titles, is_wrong, caption):
  """Draws images with titles; their frames say whether the label is wrong.

  Args:
    images: uint8 [N, H, W, 3].
    titles: N strings.
    is_wrong: N times True, False, or None if it is not known.
    caption: what the picture shows.

  Returns:
    A matplotlib Figure.
  """
  # pylint: disable=g-import-not-at-top
  from matplotlib import figure
  from mentormix import figures as figures_lib
  columns = max(_LEAST_COLUMNS, int(np.ceil(np.sqrt(len(images)))))
  rows = -(-len(images) // columns)
  height = 1.5 * rows + 0.7
  fig = figure.Figure(figsize=(1.35 * columns, height))
  fig.subplots_adjust(left=0.01, right=0.99, bottom=0.1 / height,
                      top=1 - 1.0 / height, wspace=0.15, hspace=0.5)
  for n, (image, title, wrong) in enumerate(zip(images, titles, is_wrong)):
    ax = fig.add_subplot(rows, columns, n + 1)
    ax.imshow(image, interpolation='nearest')
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
      spine.set(color=_FRAMES[wrong][0], linewidth=3)
    ax.set_title(figures_lib.literal(textwrap.fill(title, 16, max_lines=3)),
                 fontsize=8)
  legend = ', '.join(
      f'{colour} frame: {meaning} ({is_wrong.count(kind)})'
      for kind, (colour, meaning) in _FRAMES.items() if kind in is_wrong)
  fig.suptitle(f'{caption}\n{legend}', fontsize=10, y=1 - 0.1 / height,
               va='top')
  return fig


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


if __name__ == '__main__':
  cli()
