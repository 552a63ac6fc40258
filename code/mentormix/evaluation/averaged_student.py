"""The student with its averaged weights, as evaluation uses it."""
import contextlib

from mentormix import checkpoints
from mentormix import runtime
from mentormix import schedules
from mentormix import students
from mentormix.messages import RunError
from mentormix.runtime import tf


class AveragedStudent:
  """A student in evaluation mode, with averaged weights and raw statistics.

  Attributes:
    logits: [B, K].
  """

  def __init__(self, studentnet, dataset, images, master=''):
    """Adds the student to the graph.

    Args:
      studentnet: its name.
      dataset: a `datasets.Dataset`.
      images: [B, H, W, 3], from `input_pipeline.eval_batch`.
      master: TensorFlow master to use.
    """
    self._what = f'--studentnet={studentnet} on --dataset_name={dataset.name}'
    self._master = master
    self.logits = students.get(studentnet)(
        images, dataset.num_classes, is_training=False)
    average = tf.train.ExponentialMovingAverage(schedules.WEIGHT_AVERAGE_DECAY)
    self._averages = {v.op.name: average.average_name(v)
                      for v in tf.trainable_variables()}
    variables = tf.model_variables() + tf.trainable_variables()
    self._variables = {v.op.name: v for v in variables}
    self._initialize = tf.local_variables_initializer()

  def one_pass(self, prefix, fetches):
    """Yields the values of `fetches` for every batch of one pass.

    Args:
      prefix: path of the checkpoint that the weights come from.
      fetches: tensors, as for session.run.

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
