"""Finds wrong labels: a trained student judges its own training set.

The higher the loss of the given label, the more suspicious it is. If the run
has a MentorNet, labels of examples with a low weight are suspected, otherwise
those that the student disagrees with. N is the number of examples, K that of
classes.
"""
import csv
import os
import tempfile
import typing

import numpy as np

from mentormix import checkpoints
from mentormix import config as config_lib
from mentormix import detection
from mentormix import figures
from mentormix import files
from mentormix import label_page
from mentormix import mentormix_loss
from mentormix import runtime
from mentormix import schedules
from mentormix import students
from mentormix.data import datasets
from mentormix.data import noise_facts
from mentormix.data import splits
from mentormix.evaluation import averaged_student
from mentormix.mentornet import loading as mentornet_loading
from mentormix.mentornet import mentor
from mentormix.messages import log, RunError, UserError
from mentormix.runtime import tf

SCORES, SUMMARY, PROBABILITIES = 'scores.csv', 'summary.json', 'pred_probs.npy'
PICTURE, PAGE = 'suspicious.png', 'suspicious.html'
_ROWS_AT_ONCE = 1024  # Of the probabilities, in memory.
COLUMNS = ('id', 'given_label', 'predicted_label', 'probability',
           'given_probability', 'loss', 'weight', 'suspected', 'clean_label')


def rank(run, checkpoint_dir, data_dir, output_dir, step=None, batch_size=100,
         num_images=64, recomputed=False, image_dir=''):
  """Ranks the labels of a training set and writes the files.

  Args:
    run: its `config.TrainConfig`.
    checkpoint_dir, data_dir: of the run and of the training set.
    output_dir: an existing directory for `SCORES`, `SUMMARY`, `PICTURE`,
      `PAGE` and `PROBABILITIES`.
    step: of the checkpoint; None for the last.
    batch_size: images per batch.
    num_images: how many images picture and page show.
    recomputed: whether to recompute the statistics of batch norm from the
      images.
    image_dir: the folder of the images, which the page then shows as they are.

  Raises:
    UserError: run, checkpoint and data do not match, or one is missing.
    RunError: checkpoint, data or MentorNet failed.
  """
  step, checkpoint = _find_checkpoint(checkpoint_dir, step)
  network = None
  if run.method in config_lib.WEIGHTED:
    network = mentornet_loading.load(run.trained_mentornet_dir,
                                     run.loss_p_percentile)
  facts = noise_facts.read_facts(data_dir) or {}
  name = facts.get('dataset_name', run.dataset_name)
  if name != run.dataset_name:
    raise UserError(f'--data_dir={data_dir} holds {name}, but {checkpoint_dir} '
                    f'was trained on {run.dataset_name}; name its training set')
  dataset = splits.dataset(run.dataset_name, data_dir,
                           students.get(run.studentnet), run.image_size)
  if noise_facts.read_facts(checkpoint_dir) not in (None, facts):
    log('note: the run was trained on another data set than --data_dir='
        f'{data_dir}, according to its {noise_facts.FACTS_FILE}')
  data = splits.find(dataset, 'train', data_dir, run.image_recipe,
                     run.max_bad_records)
  data.check_images()
  log(f'TensorFlow {runtime.VERSION}: scoring the labels of {data_dir}, '
      f'{data.count} examples, with {checkpoint_dir} at step {step}')
  with tempfile.TemporaryFile(dir=output_dir) as probabilities:
    scores, images = collect(
        run.studentnet, data, checkpoint, batch_size, num_images, probabilities,
        run.batch_size if recomputed else None)
    _write_probabilities(os.path.join(output_dir, PROBABILITIES), probabilities,
                         by_suspicion(scores.loss))
  v = network and weigh(network, scores.loss, run.loss_p_percentile, step,
                        run.max_number_of_steps)
  is_suspected = (scores.predicted != scores.given if v is None
                  else v < mentormix_loss.TRUSTED)
  summary = dict(summarize(scores, is_suspected), step=step, data_dir=data_dir,
                 checkpoint=checkpoint)
  with files.replaced(os.path.join(output_dir, SCORES)) as f:
    csv.writer(f, lineterminator='\n').writerows(
        _rows(scores, v, is_suspected))
  files.write_json(os.path.join(output_dir, SUMMARY), summary)
  names = facts.get('class_names') or range(dataset.num_classes)
  label_page.write(
      os.path.join(output_dir, PAGE), _examples(scores, names, len(images)),
      images, f'Suspicious labels of {name}', summary['count'],
      summary['num_suspected'], SCORES, image_dir)
  with files.replaced(os.path.join(output_dir, PICTURE), 'wb') as f:
    _draw(scores, images, names).savefig(f, dpi=110)
  _log_summary(summary)
  log(f'{SCORES}, {SUMMARY}, {PICTURE}, {PAGE} and {PROBABILITIES} are in '
      f'{output_dir}')


def _find_checkpoint(directory, step):
  """(step, prefix) of the checkpoint of a step, by default of the last."""
  found = checkpoints.find(directory)
  if not found:
    raise UserError(f'--checkpoint_dir={directory} holds no checkpoint')
  step = max(found) if step is None else step
  if step not in found:
    raise UserError(f'--step={step}: {directory} holds only the checkpoints of '
                    f'steps {sorted(found)}')
  return step, found[step]


def _log_summary(summary):
  """Logs how many labels are suspected, and how well that matches the truth."""
  log(f'{summary["num_suspected"]} of {summary["count"]} labels are suspected')
  if summary['noise_rate'] is None:
    log('the clean labels are not known')
  else:
    log('  '.join(f'{name.replace("_", " ")} {value:.4f}'
                  for name, value in summary.items()
                  if isinstance(value, float)))


class Scores(typing.NamedTuple):
  """What a student predicts for the examples, in file order."""
  source_ids: np.ndarray  # [N] bytes; empty if a record has none.
  given: np.ndarray  # int64 [N]: the labels given.
  predicted: np.ndarray  # int64 [N]: the predicted classes.
  probability: np.ndarray  # float32 [N]: of the predicted class.
  loss: np.ndarray  # float32 [N]: cross-entropy of the label given.
  clean: np.ndarray  # int64 [N]: datasets.UNKNOWN_LABEL where not known.


def collect(studentnet, data, prefix, batch_size, num_images, probabilities,
            statistics_batch_size=None):
  """One pass over a training set, without augmentation.

  Only the most suspicious images stay in memory, and no probabilities.

  Args:
    studentnet: name of the student.
    data: the `splits.Split` of the training set, of N records.
    prefix: of the checkpoint with the averaged weights.
    batch_size, num_images: as for `rank`.
    probabilities: a binary file, to which the softmax goes, float32 [N, K].
    statistics_batch_size: images per batch from which the statistics of batch
      norm are recomputed first; None takes those of the checkpoint.

  Returns:
    (`Scores`, uint8 [num_images, H, W, 3]): the images of the most suspicious
    examples, in the order of `by_suspicion`.

  Raises:
    UserError: the checkpoint is of another student or number of classes.
    RunError: checkpoint or data cannot be read, or the loss is not a number.
  """
  parts = []
  top_loss = np.zeros([0], np.float32)
  size = data.dataset.image_size
  top_images = np.zeros([0, size, size, 3], np.uint8)
  with tf.Graph().as_default():
    batch = data.eval_batch(batch_size)
    training = None
    if statistics_batch_size:
      training = data.eval_batch(statistics_batch_size).images
    student = averaged_student.AveragedStudent(
        studentnet, data.dataset, batch.images, training=training)
    softmax = tf.nn.softmax(student.logits)
    fetches = Scores(
        source_ids=batch.source_ids, given=batch.labels,
        predicted=tf.argmax(student.logits, 1),
        probability=tf.reduce_max(softmax, 1),
        loss=tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=batch.labels, logits=student.logits),
        clean=batch.clean_labels)
    for part, images, rows in student.one_pass(
        prefix, (fetches, batch.images, softmax), training is not None):
      parts.append(part)
      probabilities.write(rows.tobytes())
      # Earlier examples come first, so they win among equal losses.
      top_loss = np.append(top_loss, part.loss)
      top = by_suspicion(top_loss)[:num_images]
      pixels = np.uint8(np.round(images * 127.5 + 127.5))
      top_loss, top_images = top_loss[top], np.append(
          top_images, pixels, axis=0)[top]
  scores = Scores(*map(np.concatenate, zip(*parts)))
  if not np.isfinite(scores.loss).all():
    raise RunError(f'with the checkpoint {prefix} the loss is not a number; '
                   'take an earlier --step')
  return scores, top_images


def _write_probabilities(path, source, order):
  """Writes an .npy file with the rows of `source` [N, K] in an order [N]."""
  source.flush()
  rows = np.memmap(source, np.float32, 'r').reshape(len(order), -1)
  with files.replaced(path, 'wb') as f:
    np.lib.format.write_array_header_1_0(f, dict(
        descr='<f4', fortran_order=False, shape=rows.shape))
    for start in range(0, len(order), _ROWS_AT_ONCE):
      f.write(rows[order[start:start + _ROWS_AT_ONCE]].tobytes())


def by_suspicion(loss):
  """Indices [N] from the highest loss to the lowest; ties in file order."""
  return np.argsort(-loss, kind='stable')


def weigh(network, loss, loss_p_percentile, step, max_number_of_steps):
  """The weights that a MentorNet gives to a whole training set at once.

  Training compares the loss with a moving average of a percentile of each
  batch. Its losses are larger than those of the averaged weights, so nearly all
  examples would look easy. Here the percentile is that of the whole set. There
  is no burn-in.

  Args:
    network: features [N, 4] -> v [N].
    loss: float32 [N].
    loss_p_percentile: percentile to compare the losses with, 0 to 1.
    step, max_number_of_steps: of the checkpoint and of the run.

  Returns:
    v: float32 [N], 0 to 1.

  Raises:
    RunError: a formula that takes the place of a network failed.
  """
  def by_loss(loss):
    percent = tf.minimum(schedules.epoch_percent(step, max_number_of_steps),
                         schedules.NUM_EPOCH_PERCENTS - 1)
    return network(mentor.features_of(
        loss, mentor.percentile(loss, loss_p_percentile), percent))

  return mentornet_loading.apply_network(by_loss, loss)


def summarize(scores, is_suspected):
  """Counts the suspected labels and, if the truth is known, judges them.

  Args:
    scores: the `Scores`.
    is_suspected: [N] bool.

  Returns:
    A dict for JSON. Figures that need clean labels cover the examples that
    have one, or are None.
  """
  known = scores.clean != datasets.UNKNOWN_LABEL
  is_wrong = (scores.given != scores.clean)[known]
  found = is_suspected[known]
  return {
      'count': len(known),
      'num_suspected': int(is_suspected.sum()),
      'noise_rate': _share(is_wrong),
      'auc': detection.auc(scores.loss[known], is_wrong),
      'average_precision': detection.average_precision(
          scores.loss[known], is_wrong),
      'precision': _share(is_wrong[found]),
      'recall': _share(found[is_wrong]),
  }


def _share(flags):
  """The share of true values; None if there are no values."""
  return float(flags.mean()) if flags.size else None


def _rows(scores, v, is_suspected):
  """Yields the rows of scores.csv, the header first."""
  yield COLUMNS
  for i in by_suspicion(scores.loss):
    yield (_id(scores, i), scores.given[i], scores.predicted[i],
           f'{scores.probability[i]:.6f}', f'{np.exp(-scores.loss[i]):.6f}',
           f'{scores.loss[i]:.6f}', '' if v is None else f'{v[i]:.6f}',
           int(is_suspected[i]),
           '' if scores.clean[i] == datasets.UNKNOWN_LABEL else scores.clean[i])


def _id(scores, i):
  """What says which image example `i` is: its id, or its position."""
  return scores.source_ids[i].decode('utf-8', 'backslashreplace') or i


def _examples(scores, names, count):
  """The first rows of the page; `names` are of the classes."""
  known = lambda label: None if label == datasets.UNKNOWN_LABEL else (
      names[label] if label >= 0 else 'none of the classes')
  return [label_page.Example(
      str(_id(scores, i)), str(names[scores.given[i]]),
      str(names[scores.predicted[i]]), np.exp(-scores.loss[i]),
      scores.probability[i], known(scores.clean[i]))
          for i in by_suspicion(scores.loss)[:count]]


def _draw(scores, images, names):
  """The picture of the most suspicious images; `names` are of the classes."""
  names = list(map(str, names))
  font = figures.find_font(names)
  if font is None:
    log(f'no font on this machine can draw {max(names)!a}, so {PICTURE} has '
        'the numbers of the classes; install a font such as Noto Sans CJK')
    names = range(len(names))
  top = by_suspicion(scores.loss)[:len(images)]
  is_wrong = [None if scores.clean[i] == datasets.UNKNOWN_LABEL
              else bool(scores.clean[i] != scores.given[i]) for i in top]
  return figures.labelled_images(
      images, [f'{names[scores.given[i]]} > {names[scores.predicted[i]]}'
               for i in top], is_wrong,
      f'The {len(top)} most suspicious of {len(scores.loss)} labels: '
      'given > predicted', font)
