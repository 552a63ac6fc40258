"""Ranks the labels of a training set by how likely they are wrong.

    python code/score_labels.py --data_dir=data/cifar10/0.4 \\
      --checkpoint_dir=runs/cifar10_0.4/train \\
      --output_dir=runs/cifar10_0.4/scores

The student of a run looks once at every example that it was trained on, with
averaged weights and without augmentation. The higher the loss of the label that
an example was given, the more suspicious is that label. Suspected are, where
the run has a MentorNet, those of a weight below 0.5, else those that the
student disagrees with. Writes to --output_dir, over what an earlier call wrote:

    scores.csv      a row per example, the most suspicious first
    summary.json    how many, and how rightly where clean labels are known
    suspicious.png  the most suspicious images

Data set, student and MentorNet come from the run's config.json. Exit codes:
0 finished, 1 failed, 2 bad input.
"""
import collections
import csv
import json
import os
import tempfile
import textwrap

from absl import flags
import numpy as np

from mentormix import command
from mentormix import config as config_lib
from mentormix import files
from mentormix import noise
from mentormix.command import log
from mentormix.command import UserError

SCORES, SUMMARY, PICTURE = 'scores.csv', 'summary.json', 'suspicious.png'
COLUMNS = ('id', 'given_label', 'predicted_label', 'probability',
           'given_probability', 'loss', 'weight', 'suspected', 'clean_label')

# Frames of the picture: is the label wrong -> colour, meaning.
_FRAMES = collections.OrderedDict([
    (True, ('green', 'the clean label is another')),
    (False, ('red', 'the clean label is the same')),
    (None, ('grey', 'the clean label is not known'))])
_LEAST_COLUMNS = 8


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string('data_dir', '', 'Directory of the training set.')
  flags.DEFINE_string('checkpoint_dir', '',
                      'The --train_log_dir of the training run.')
  flags.DEFINE_string('output_dir', '', 'Where %s, %s and %s go.'
                      % (SCORES, SUMMARY, PICTURE))
  for name in ('data_dir', 'checkpoint_dir', 'output_dir'):
    flags.register_validator(name, bool, 'must be given')
  flags.DEFINE_integer('step', None, 'Of the checkpoint; by default the last.',
                       lower_bound=0)
  flags.DEFINE_string('trained_mentornet_dir', '',
                      'The MentorNet; by default that of the run.')
  flags.DEFINE_integer('batch_size', 100, 'Images per batch.', lower_bound=1)
  flags.DEFINE_integer('num_images', 64, 'How many images %s shows.' % PICTURE,
                       lower_bound=1, upper_bound=1000)
  flags.DEFINE_string('device_id', '0',
                      'GPUs to use, as in CUDA_VISIBLE_DEVICES.')


def main():
  """Flags and the run's settings -> scores -> files."""
  args = flags.FLAGS
  run = _settings_of_run(args.checkpoint_dir, args.trained_mentornet_dir)
  facts = noise.read_facts(args.data_dir) or {}
  if facts.get('dataset_name', run.dataset_name) != run.dataset_name:
    raise UserError('--data_dir=%s holds --dataset_name=%s, but %s was trained '
                    'with --dataset_name=%s' % (
                        args.data_dir, facts['dataset_name'],
                        args.checkpoint_dir, run.dataset_name))
  files.writable_directory(args.output_dir, 'output_dir')
  # pylint: disable=g-import-not-at-top
  import matplotlib.figure  # noqa: F401  If missing, fail before the pass.
  from mentormix import datasets  # TensorFlow starts once the flags are good.
  from mentormix import label_scores
  from mentormix import mentornet
  from mentormix import runtime
  runtime.select_device(args.device_id)
  step, prefix = _checkpoint(args.checkpoint_dir, args.step)
  network = None
  if run.method in config_lib.WEIGHTED:
    network = mentornet.load(run.trained_mentornet_dir, run.loss_p_percentile)
  dataset = datasets.get(run.dataset_name, args.data_dir)
  paths = datasets.find_files(dataset, 'train', args.data_dir)
  if noise.read_facts(args.checkpoint_dir) not in (None, facts):
    log('note: by its %s, --data_dir=%s is not what the run was trained on'
        % (noise.FACTS_FILE, args.data_dir))
  shards, count = datasets.check_files(dataset, 'train', paths,
                                       run.max_bad_records)
  datasets.check_images(dataset, 'train', shards)
  log('TensorFlow %s: scoring the labels of %s, %d examples, with %s at step '
      '%d' % (runtime.VERSION, args.data_dir, count, args.checkpoint_dir, step))
  scores, images = label_scores.collect(
      run.studentnet, dataset, shards, count, prefix, args.batch_size,
      args.num_images)
  v = None
  if network:
    v = label_scores.weigh(network, scores.loss, run.loss_p_percentile, step,
                           run.max_number_of_steps)
  suspected = label_scores.suspected(scores, v)
  order = label_scores.by_suspicion(scores.loss)
  is_wrong = [None if clean == datasets.UNKNOWN_LABEL else bool(clean != given)
              for clean, given in zip(scores.clean, scores.given)]
  summary = label_scores.summarize(scores, suspected)
  summary.update(step=step, data_dir=args.data_dir, checkpoint=prefix)

  names = facts.get('class_names')
  if not isinstance(names, list) or len(names) != dataset.num_classes:
    names = range(dataset.num_classes)
  top = order[:len(images)]
  figure = draw(
      images, ['%s > %s' % (names[scores.given[i]], names[scores.predicted[i]])
               for i in top], [is_wrong[i] for i in top],
      'The %d most suspicious of %d labels: given > predicted' % (
          len(top), count))
  _write(args.output_dir, _rows(scores, v, suspected, is_wrong, order), summary,
         figure)
  log('%d of %d labels are suspected' % (summary['num_suspected'], count))
  if summary['noise_rate'] is None:
    log('the clean labels are not known, so neither is how many are wrong')
  else:
    log('  '.join('%s %s' % (
        name.replace('_', ' '),
        '-' if summary[name] is None else '%.4f' % summary[name]) for name in (
            'noise_rate', 'auc', 'average_precision', 'precision', 'recall')))
  log('%s, %s and %s are in %s' % (SCORES, SUMMARY, PICTURE, args.output_dir))


def _settings_of_run(directory, trained_mentornet_dir):
  """The `config.TrainConfig` of a run, with another MentorNet if one is given.

  Raises:
    UserError: there is none, it is damaged, or such a run has no MentorNet.
  """
  run = config_lib.restore(directory)
  try:
    config_lib.validate(run)
  except UserError as error:
    raise UserError('%s is damaged: %s' % (
        os.path.join(directory, config_lib.CONFIG_FILE), error))
  if trained_mentornet_dir and run.method not in config_lib.WEIGHTED:
    raise UserError('--trained_mentornet_dir=%s, but %s was trained with '
                    '--method=%s, which has no MentorNet'
                    % (trained_mentornet_dir, directory, run.method))
  return run._replace(trained_mentornet_dir=(
      trained_mentornet_dir or run.trained_mentornet_dir))


def _checkpoint(directory, step):
  """(step, prefix) of a checkpoint; of the newest where `step` is None."""
  from mentormix import checkpoints  # pylint: disable=g-import-not-at-top
  found = checkpoints.find(directory)
  if not found:
    raise UserError('--checkpoint_dir=%s holds no checkpoint' % directory)
  step = max(found) if step is None else step
  if step not in found:
    raise UserError('--step=%d: %s holds no such checkpoint, only those of the '
                    'steps %s' % (step, directory,
                                  ', '.join(map(str, sorted(found)))))
  return step, found[step]


def _rows(scores, v, suspected, is_wrong, order):
  """The rows of scores.csv, the header first."""
  yield COLUMNS
  for i in order:
    source_id = scores.source_ids[i].decode('utf-8', 'backslashreplace')
    yield (source_id or i, scores.given[i], scores.predicted[i],
           '%.6f' % scores.probability[i], '%.6f' % np.exp(-scores.loss[i]),
           '%.6f' % scores.loss[i], '' if v is None else '%.6f' % v[i],
           int(suspected[i]), '' if is_wrong[i] is None else scores.clean[i])


def _write(output_dir, rows, summary, figure):
  """Writes the three files, each of them whole or not at all."""
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
    is_wrong: N times True, False, or None where it is not known.
    caption: what the picture shows.

  Returns:
    A matplotlib Figure.
  """
  # pylint: disable=g-import-not-at-top
  from matplotlib import figure
  from mentormix import figures
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
    ax.set_title(figures.literal(textwrap.fill(title, 16, max_lines=3)),
                 fontsize=8)
  legend = ['%s frame: %s (%d)' % (colour, meaning, is_wrong.count(kind))
            for kind, (colour, meaning) in _FRAMES.items() if kind in is_wrong]
  fig.suptitle('%s\n%s' % (caption, ', '.join(legend)), fontsize=10,
               y=1 - 0.1 / height, va='top')
  return fig


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


if __name__ == '__main__':
  cli()
