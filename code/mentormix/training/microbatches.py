"""A batch in parts, one after another, so that memory holds only one of them.

    parts = microbatches.Parts(student, count)
    result = mentormix_loss.mentormix(images, labels, parts.forward, ...)
    losses, gradients = parts.gradients(result, optimizer)

The weights of the examples need the losses of the whole batch before there is
any gradient, so `forward` keeps nothing, and `gradients` passes each part
forward again, and back. If no weight depends on the trained pass, nothing needs
its `forward`, and TensorFlow leaves it out.

What a student does with a batch, it does with each part: batch norm uses the
statistics of the part. Its moving statistics move once in a step, to the mean
of where each part alone would have moved them. B is the batch size.
"""
from mentormix import students
from mentormix.runtime import tf

_UPDATES = tf.GraphKeys.UPDATE_OPS


def auxiliary_losses(labels, weight, criterion):
  """Losses [B] of the auxiliary logits, which it takes out of the collection.

  Args:
    labels, weight, criterion: as of the student's own loss, a
      `mentormix_loss.Loss`.
  """
  logits = tf.get_collection_ref(students.AUXILIARY_LOGITS)
  loss = tf.add_n([criterion(labels, x) for x in logits])
  del logits[:]
  return loss if weight is None else loss * weight


class Parts:
  """A student that sees a batch in `count` parts of equal size."""

  def __init__(self, student, count, auxiliary_weight=0.0):
    """Creates it.

    Args:
      student: a callable, images [B / count, H, W, 3] -> logits [B / count, K],
        with the keyword `update_statistics`. Its variables have a caching
        device, so that a step reads them once, before any part moves them.
        Each of its updates depends on the images.
      count: divides B.
      auxiliary_weight: as of `students.Student`.
    """
    self._student = student
    self._count = count
    self._auxiliary_weight = auxiliary_weight
    self._statistics = None  # Variables of the student that do not train.

  def forward(self, images, update_statistics=False, **options):
    """Logits [B, K] of images [B, H, W, 3]; no gradient, no update.

    `options` are further keywords of the student.
    """
    del update_statistics  # `gradients` updates.
    if self._statistics is None:
      self._create_variables(images)
    logits = []
    for part in tf.split(images, self._count):
      with tf.control_dependencies(logits[-1:]):  # Only then does it begin.
        part = tf.identity(part)
      logits.append(self._student(part, update_statistics=False, **options))
    return tf.stop_gradient(tf.concat(logits, axis=0))

  def _create_variables(self, images):
    """Creates all variables of the student, by a pass that nothing uses."""
    updates = tf.get_collection_ref(_UPDATES)
    before, seen = tf.global_variables(), len(updates)
    self._student(images)
    del updates[seen:]
    del tf.get_collection_ref(students.AUXILIARY_LOGITS)[:]
    others = {v.op.name for v in before + tf.trainable_variables()}
    self._statistics = [v for v in tf.global_variables()
                        if v.op.name not in others]

  def gradients(self, result, optimizer, decay=None):
    """Losses and gradients, the sum of those of the parts.

    Args:
      result: a `mentormix_loss.Loss` of `forward`.
      optimizer: has `compute_gradients`, as a tf.train.Optimizer.
      decay: a scalar to add to the mean loss, or None.

    Returns:
      (losses [B], gradients): gradients is a list of (gradient, variable), of
      the mean of the losses plus `decay`. The update of the moving statistics
      is in tf.GraphKeys.UPDATE_OPS.
    """
    split = lambda x: ([None] * self._count if x is None
                       else tf.split(x, self._count))
    losses, sums, last = [], {}, []
    moves = _Moves(self._statistics, self._count)
    ready = moves.old + [x for x in (result.weight,) if x is not None]
    for images, labels, weight in zip(*map(split, (
        result.images, result.labels, result.weight))):
      with tf.control_dependencies(ready):  # Only then does the part begin.
        images = tf.identity(images)
      seen = len(tf.get_collection(_UPDATES))
      loss = result.criterion(labels, self._student(images))
      loss = loss if weight is None else loss * weight
      if self._auxiliary_weight:
        loss += self._auxiliary_weight * auxiliary_losses(
            labels, weight, result.criterion)
      losses.append(loss)
      objective = tf.reduce_mean(losses[-1]) / self._count
      if decay is not None and len(losses) == 1:
        objective += decay
      for gradient, variable in optimizer.compute_gradients(
          objective, gate_gradients=tf.train.Optimizer.GATE_NONE):
        if gradient is not None:
          before = sums.get(variable.op.name)
          sums[variable.op.name] = (
              before[0] + gradient if before else gradient, variable)
      last = moves.note(tf.get_collection_ref(_UPDATES), seen)
      ready = [gradient for gradient, _ in sums.values()] + last
    moves.finish(last)
    return tf.concat(losses, axis=0), list(sums.values())


class _Moves:
  """Where the parts move the moving statistics, and the mean of that.

  Each part starts from the old values, which are put back after it. So nothing
  changes unless the update runs that `finish` adds.
  """

  def __init__(self, variables, count):
    self._variables = variables
    self._count = count
    self._sums = []
    self.old = [v.value() for v in variables]  # All updates use this read.

  def note(self, updates, seen):
    """Runs the updates after the first `seen`; returns ops that end it."""
    own = updates[seen:]
    del updates[seen:]
    with tf.control_dependencies(own):
      new = [v.read_value() for v in self._variables]
    self._sums = [a + b for a, b in zip(self._sums, new)] or new
    with tf.control_dependencies(new):
      return [v.assign(old).op for v, old in zip(self._variables, self.old)]

  def finish(self, last):
    """Adds the one update of a step, after the ops `last`."""
    with tf.control_dependencies(last):
      for variable, total in zip(self._variables, self._sums):
        tf.add_to_collection(_UPDATES, variable.assign(total / self._count))
