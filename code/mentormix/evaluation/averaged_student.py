"""The student with its averaged weights, as evaluation uses it."""
import contextlib

import numpy as np

from mentormix import checkpoints
from mentormix import runtime
from mentormix import schedules
from mentormix import students
from mentormix.messages import RunError
from mentormix.runtime import tf

# Training images that statistics are recomputed from, at most, to the batch.
NUM_IMAGES = 10000


class AveragedStudent:
  """A student in evaluation mode, with averaged weights.

  Batch norm uses the moving statistics in the checkpoint, which are those of
  the weights that were not averaged (published code), or statistics that are
  recomputed with the averaged weights.

  Attributes:
    logits: [B, K].
    flipped_logits: [B, K], means over an image and its mirror image; None
      unless asked for.
  """

  def __init__(self, studentnet, dataset, images, master='', training=None,
               flipped=False):
    """Adds the student to the graph.

    Args:
      studentnet: its name.
      dataset: a `datasets.Dataset`.
      images: [B, H, W, 3], from `input_pipeline.eval_batch`.
      master: TensorFlow master to use.
      training: training images from there, of another batch size, if
        statistics are to be recomputed.
      flipped: whether to add flipped_logits.
    """
    self._what = f'--studentnet={studentnet} on --dataset_name={dataset.name}'
    self._master = master
    student = students.get(studentnet)
    self.logits = student(images, dataset.num_classes, is_training=False)
    self.flipped_logits = None
    if flipped:
      with tf.variable_scope(tf.get_variable_scope(), reuse=True):
        mirrored = student(tf.reverse(images, [2]), dataset.num_classes,
                           is_training=False)
      self.flipped_logits = (self.logits + mirrored) / 2
    average = tf.train.ExponentialMovingAverage(schedules.WEIGHT_AVERAGE_DECAY)
    self._averages = {v.op.name: average.average_name(v)
                      for v in tf.trainable_variables()}
    variables = tf.model_variables() + tf.trainable_variables()
    self._variables = {v.op.name: v for v in variables}
    initializers = [tf.local_variables_initializer()]
    if training is not None:
      with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        student(training, dataset.num_classes, is_training=True,
                update_statistics=students.REPLACED)
      self._batch_size = tf.shape(training)[0]
      self._replace = tf.group(*tf.get_collection(tf.GraphKeys.UPDATE_OPS))
      # Training mode may have variables that evaluation does not read.
      initializers.append(tf.global_variables_initializer())
    self._initialize = tf.group(*initializers)

  def one_pass(self, prefix, fetches, recomputed=False):
    """Yields the values of `fetches` for every batch of one pass.

    Args:
      prefix: path of the checkpoint that the weights come from.
      fetches: tensors, as for session.run.
      recomputed: whether to recompute the statistics first.

    Raises:
      UserError: the checkpoint has another student or number of classes.
      checkpoints.Damaged: it cannot be read.
      RunError: the data cannot be read.
    """
    restored = self._restored(prefix)
    values = checkpoints.read(
        prefix, {name: variable.shape.as_list()
                 for name, variable in restored.items()}, self._what)
    try:
      coordinator = tf.train.Coordinator()
      # `closing` does not make it the default session, which would stay the
      # default in the caller's code between two batches.
      with contextlib.closing(tf.Session(
          self._master, config=runtime.session_config())) as session:
        session.run(self._initialize)
        for name, variable in restored.items():
          variable.load(values[name], session)
        threads = tf.train.start_queue_runners(session, coordinator)
        try:
          if recomputed:
            self._recompute(session)
          while True:
            yield session.run(fetches)
        except tf.errors.OutOfRangeError:
          pass
        finally:
          coordinator.request_stop()
          coordinator.join(threads)
    except (tf.errors.OpError, ValueError) as error:
      hint = isinstance(error, (tf.errors.DataLossError,
                                tf.errors.InvalidArgumentError))
      raise RunError(f'no pass with the checkpoint {prefix}: '
                     f'{runtime.reason(error)}'
                     + hint * '; check the files in --data_dir')

  def _recompute(self, session):
    """Takes means and variances over all pixels of the training images.

    Within a batch, each layer normalises by the batch, as in training. The last
    batch does not count if it is smaller.
    """
    means = [v for name, v in sorted(self._variables.items())
             if name.endswith('/moving_mean')]
    variances = [self._variables[v.op.name.replace('/moving_mean',
                                                   '/moving_variance')]
                 for v in means]
    sums, num_batches, size = [], 0, None
    with contextlib.suppress(tf.errors.OutOfRangeError):
      while size is None or num_batches * size < NUM_IMAGES:
        found, _ = session.run([self._batch_size, self._replace])
        if found < (size or 0):
          break
        size = found
        num_batches += 1
        moments = [(np.float64(m), np.float64(m) ** 2 + v)
                   for m, v in zip(*session.run([means, variances]))]
        sums = [(a + m, b + s) for (a, b), (m, s) in zip(sums, moments)
                ] or moments
    for mean, variance, (a, b) in zip(means, variances, sums):
      a, b = a / num_batches, b / num_batches
      mean.load(a, session)
      variance.load(b - a ** 2, session)

  def _restored(self, prefix):
    """Name in the checkpoint -> variable.

    A weight that --trainable_scopes left alone has no average; it is its own.
    """
    names = set(checkpoints.shapes(prefix))
    has_averages = not names.isdisjoint(self._averages.values())
    is_alone = lambda name: (has_averages and name in names
                             and self._averages[name] not in names)
    return {name if name not in self._averages or is_alone(name)
            else self._averages[name]: variable
            for name, variable in self._variables.items()}
