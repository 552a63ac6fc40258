"""Finds wrong labels: a trained student judges its own training set.

    scores, images = collect(...)       # one pass, in file order
    order = by_suspicion(scores.loss)   # the most suspicious first

The higher the loss of the label that an example was given, the more suspicious
is that label. If the run has a MentorNet, it says which examples it would train
on. N is the number of examples.
"""
import typing

import numpy as np
import tqdm

from mentormix.data import datasets
from mentormix.data import input_pipeline
from mentormix.evaluation import averaged_student
from mentormix.mentornet import loading as mentornet_loading
from mentormix.mentornet import mentor
from mentormix import mentormix_loss
from mentormix.messages import RunError
from mentormix import runtime
from mentormix.runtime import tf
from mentormix import schedules


class Scores(typing.NamedTuple):
  """What a student predicts for the examples, in file order."""
  source_ids: np.ndarray  # [N] bytes; empty if a record has none.
  given: np.ndarray  # int64 [N]: the labels given.
  predicted: np.ndarray  # int64 [N]: the predicted classes.
  probability: np.ndarray  # float32 [N]: of the predicted class.
  loss: np.ndarray  # float32 [N]: cross-entropy of the label given.
  clean: np.ndarray  # int64 [N]: datasets.UNKNOWN_LABEL where not known.


def collect(studentnet, dataset, shards, count, prefix, batch_size,
            num_images):
  """One pass over a training set, without augmentation.

  It keeps only the most suspicious images in memory, so N can be large.

  Args:
    studentnet: name of the student.
    dataset: a `datasets.Dataset`.
    shards: the `datasets.Shard`s of the training split.
    count: how many records they hold without the skipped ones, N.
    prefix: of the checkpoint with the averaged weights.
    batch_size: images per batch.
    num_images: how many images to return.

  Returns:
    (`Scores`, uint8 [num_images, H, W, 3]): the images of the most suspicious
    examples, in the order of `by_suspicion`.

  Raises:
    UserError: the checkpoint is of another student or number of classes.
    RunError: checkpoint or data cannot be read, or the loss is not a number.
  """
  parts = []
  top_loss = np.zeros([0], np.float32)
  top_images = np.zeros([0, dataset.image_size, dataset.image_size, 3],
                        np.uint8)
  with tf.Graph().as_default(), tqdm.tqdm(
      total=count, unit='image', leave=False, disable=None) as bar:
    batch = input_pipeline.eval_batch(dataset, 'train', shards, count,
                                      batch_size)
    student = averaged_student.AveragedStudent(studentnet, dataset, batch.images)
    fetches = Scores(
        source_ids=batch.source_ids, given=batch.labels,
        predicted=tf.argmax(student.logits, 1),
        probability=tf.reduce_max(tf.nn.softmax(student.logits), 1),
        loss=tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=batch.labels, logits=student.logits),
        clean=batch.clean_labels)
    for part, images in student.one_pass(prefix, (fetches, batch.images)):
      parts.append(part)
      # Earlier examples come first, so they win among equal losses.
      top_loss = np.append(top_loss, part.loss)
      top = by_suspicion(top_loss)[:num_images]
      pixels = np.uint8(np.round(images * 127.5 + 127.5))
      top_loss, top_images = top_loss[top], np.append(
          top_images, pixels, axis=0)[top]
      bar.update(len(images))
  scores = Scores(*map(np.concatenate, zip(*parts)))
  if not np.isfinite(scores.loss).all():
    raise RunError(f'with the checkpoint {prefix} the loss is not a number; '
                   'take an earlier --step')
  return scores, top_images


def by_suspicion(loss):
  """Indices [N] from the highest loss to the lowest; ties in file order."""
  return np.argsort(-loss, kind='stable')


def weigh(network, loss, loss_p_percentile, step, max_number_of_steps):
  """The weights that a MentorNet gives to a whole training set at once.

  Training compares the loss with a moving average of a percentile of each
  batch. Those losses come from the raw weights in training mode and are larger
  than the ones here, so with that average nearly all examples would look easy.
  Here the percentile is that of the whole set. There is no burn-in.

  Args:
    network: features [N, 4] -> v [N], from `mentornet.load`.
    loss: float32 [N].
    loss_p_percentile: percentile to compare the losses with, 0 to 1.
    step: of the checkpoint.
    max_number_of_steps: of the run.

  Returns:
    v: float32 [N], 0 to 1.

  Raises:
    RunError: a formula that takes the place of a network failed.
  """
  with tf.Graph().as_default():
    loss = tf.constant(loss, tf.float32)
    percent = tf.minimum(schedules.epoch_percent(step, max_number_of_steps),
                         schedules.NUM_EPOCH_PERCENTS - 1)
    v = network(mentor.features_of(
        loss, mentor.percentile(loss, 100 * loss_p_percentile), percent))
    with tf.Session(config=runtime.session_config()) as session:
      try:
        return session.run(v)
      except tf.errors.UnknownError as error:
        reason = mentornet_loading.formula_error(error) or runtime.reason(error)
        raise RunError(f'the MentorNet failed: {reason}')


def suspected(scores, v=None):
  """Which labels are probably wrong, [N] bool.

  Args:
    scores: the `Scores`.
    v: [N], the weights of a MentorNet, which suspects low ones. Without it, the
      suspected labels are those that the student disagrees with.
  """
  if v is None:
    return scores.predicted != scores.given
  return v < mentormix_loss.TRUSTED


def summarize(scores, is_suspected):
  """Counts the suspected labels and, if the truth is known, judges them.

  Args:
    scores: the `Scores`.
    is_suspected: [N] bool.

  Returns:
    A dict for JSON. Figures that need clean labels cover the examples that
    have one; they are None where they are not defined.
  """
  known = scores.clean != datasets.UNKNOWN_LABEL
  is_wrong = (scores.given != scores.clean)[known]
  found = is_suspected[known]
  return {
      'count': len(known),
      'num_suspected': int(is_suspected.sum()),
      'noise_rate': _share(is_wrong),
      'auc': auc(scores.loss[known], is_wrong),
      'average_precision': average_precision(scores.loss[known], is_wrong),
      'precision': _share(is_wrong[found]),
      'recall': _share(found[is_wrong]),
  }


def _share(flags):
  """The share of true values; None if there are no values."""
  return float(flags.mean()) if flags.size else None


def auc(values, is_positive):
  """The chance that a positive scores above a negative; ties count half.

  Args:
    values: [N].
    is_positive: [N] bool.

  Returns:
    A float, the area under the ROC curve; None without both kinds.
  """
  positives = int(is_positive.sum())
  negatives = len(is_positive) - positives
  if not positives or not negatives:
    return None
  _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
  rank = (np.cumsum(sizes) - (sizes - 1) / 2.0)[group]  # From 1.
  above = rank[is_positive].sum() - positives * (positives + 1) / 2.0
  return float(above / (positives * negatives))


def average_precision(values, is_positive):
  """The precision averaged over the steps of recall, as in scikit-learn.

  Args and Returns: as for `auc`.
  """
  positives = int(is_positive.sum())
  if not positives or positives == len(is_positive):
    return None
  _, group, sizes = np.unique(-values, return_inverse=True, return_counts=True)
  hits = np.bincount(group, weights=is_positive)  # The highest first.
  precision = np.cumsum(hits) / np.cumsum(sizes)
  return float((hits * precision).sum() / positives)
