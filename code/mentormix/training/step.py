"""The graph of one training step.

    batch -> method (mentormix_loss) -> mean + decay -> momentum -> averages

What a step changes, it changes once: weights, their averages, the moving
statistics, the mentors' loss averages, the global step.
"""
import collections

from mentormix.cluster import roles
from mentormix.cluster import sync_hook as sync_hook_lib
from mentormix import mentormix_loss
from mentormix.mentornet import mentor as mentor_lib
from mentormix import precision as precision_lib
from mentormix import runtime
from mentormix.runtime import tf
from mentormix import sampling
from mentormix import schedules
from mentormix import students
from mentormix.students import resnet

MOMENTUM = 0.9

_FIRST_STREAM = 32  # Of random numbers; those below are of the augmentation.


class Step(collections.namedtuple(
    'Step', 'train_op done loss v selected unmixed epoch_percent weights_l2 '
    'sync_hook')):
  """One training step.

  Attributes:
    train_op: runs the step.
    done: int64 scalar, how many steps are done after it, those of other
      workers included.
    loss: float32 scalar, the mean over the batch plus weight decay.
    v: [B], the weight of each example.
    selected: float32 scalar, share of the batch with v >= 0.5.
    unmixed: [B], the loss of each example as it is; None for mixup.
    epoch_percent: int32 scalar, how far training is.
    weights_l2: float32 scalar, half the sum of the squared weights that the
      step leads to.
    sync_hook: what the session of synchronous training needs; else None.
  """
  __slots__ = ()


def build_step(config, dataset, num_examples, batch, network=None,
               sampler=None, cluster=roles.ALONE):
  """Adds one training step to the graph, summaries included.

  Args:
    config: a `config.TrainConfig`.
    dataset: a `datasets.Dataset`.
    num_examples: size of an epoch.
    batch: an `input_pipeline.Batch`.
    network: the MentorNet, features [B, 4] -> v [B]; for the methods that
      need one.
    sampler: what draws partners, shares and dropped examples; None: a
      `sampling.Sampler` of the step.
    cluster: a `cluster.Cluster`.

  Returns:
    A `Step`.
  """
  global_step = tf.train.get_or_create_global_step()
  step = tf.identity(global_step)  # Steps done before this one.
  labels = tf.one_hot(batch.labels, dataset.num_classes)  # [B, K]
  student = _student(config, dataset.num_classes, cluster)
  epoch_percent = schedules.epoch_percent(step, config.max_number_of_steps)

  sampler = sampler or sampling.Sampler(
      sampling.worker_seed(config.seed, cluster.worker), step, _FIRST_STREAM)
  result = _apply_method(config, network, epoch_percent, batch.images, labels,
                         student, sampler)

  loss = tf.reduce_mean(result.per_example)
  # With a second weighting, published: no weight decay.
  if not (config.method == 'mentormix' and config.second_reweight):
    loss += resnet.weight_decay()
  # Of one step, which is a worker's own unless it waits for the others.
  num_replicas = cluster.num_workers if config.sync_replicas else 1
  rate = schedules.learning_rate(
      step, config.learning_rate, config.learning_rate_decay_factor,
      schedules.decay_steps(num_examples, config.batch_size * num_replicas,
                            config.num_epochs_per_decay), config.warmup_steps)
  optimizer = _optimizer(rate, step, config.precision)
  sync_hook = None
  if config.sync_replicas:
    optimizer = tf.train.SyncReplicasOptimizer(optimizer, num_replicas)
  train_op = _update(loss, optimizer, global_step)
  if config.sync_replicas:
    sync_hook = sync_hook_lib.SyncHook(optimizer, cluster)
  with tf.control_dependencies([train_op]):
    done = global_step.read_value()
    weights_l2 = _weights_l2()

  selected = tf.reduce_mean(tf.cast(result.v >= mentor_lib.SELECTED, tf.float32))
  tf.summary.scalar('loss', loss)
  tf.summary.scalar('learning_rate', rate)
  tf.summary.scalar('v/mean', tf.reduce_mean(result.v))
  tf.summary.scalar('v/selected', selected)
  # A weight that is no number would end the run here, with another message.
  tf.summary.histogram('v', tf.where(
      tf.math.is_nan(result.v), tf.zeros_like(result.v), result.v))
  return Step(train_op, done, loss, result.v, selected, result.unmixed,
              epoch_percent, weights_l2, sync_hook)


def _apply_method(config, network, epoch_percent, images, labels, student,
                  sampler):
  """The `mentormix_loss.Loss` of the method asked for."""
  if config.method == 'cross_entropy':
    return mentormix_loss.cross_entropy(images, labels, student)
  if config.method == 'mixup':
    return mentormix_loss.mixup(images, labels, student, config.mixup_alpha,
                                sampler)

  def new_mentor(name):
    return mentor_lib.Mentor(
        network, epoch_percent, config.loss_p_percentile, config.burn_in_epoch,
        schedules.dropout_table(config.example_dropout_rates), name,
        sampler.uniform)

  mentor, second_mentor = new_mentor('mentor'), None
  if config.method == 'mentornet':
    result = mentormix_loss.mentornet(images, labels, student, mentor)
  else:
    if config.second_reweight:
      second_mentor = new_mentor('second_mentor')
    result = mentormix_loss.mentormix(
        images, labels, student, mentor, config.mixup_alpha, sampler,
        second_mentor)
  tf.summary.scalar('loss_average', mentor.average)
  if second_mentor:
    tf.summary.scalar('second_loss_average', second_mentor.average)
  return result


def _student(config, num_classes, cluster):
  """The student in training mode; every call shares the same variables."""
  network = students.get(config.studentnet)
  dtype = precision_lib.arithmetic(config.precision)

  def student(images, update_statistics=True):
    # From a server each weight is fetched once a step, not by every use of it.
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE,
                           caching_device=cluster.device or None):
      return network(images, num_classes, is_training=True,
                     update_statistics=update_statistics, dtype=dtype)
  return student


class _AveragingOptimizer(object):
  """Takes a step, then moves the averages of the weights, then counts it."""

  def __init__(self, optimizer, decay):
    """Creates the optimizer.

    Args:
      optimizer: a tf.train.Optimizer.
      decay: float32 scalar, of the averages.
    """
    self._decay = decay
    self._optimizer = optimizer
    self.compute_gradients = optimizer.compute_gradients

  def apply_gradients(self, gradients, global_step):
    """As of a tf.train.Optimizer."""
    apply = self._optimizer.apply_gradients(gradients)
    # The average takes the weights *after* the step.
    with tf.control_dependencies([apply]):
      averages = [self._average(w) for w in tf.trainable_variables()]
    with tf.control_dependencies(averages):
      return global_step.assign_add(1).op

  def _average(self, weight):
    """As tf.train.ExponentialMovingAverage, which would take a cached weight."""
    name = tf.train.ExponentialMovingAverage(0.0).average_name(weight)
    with tf.device(weight.device):
      with runtime.without_xla():  # In 1.15 it would leave both uninitialized.
        average = tf.get_variable(name, initializer=weight.initial_value,
                                  trainable=False)
      return average.assign_sub((1 - self._decay) * (
          average.read_value() - weight.read_value())).op


def _optimizer(rate, step, precision):
  """Momentum at that learning rate, and the averages of the weights."""
  return _AveragingOptimizer(
      precision_lib.scale_loss(tf.train.MomentumOptimizer(rate, MOMENTUM), precision),
      schedules.weight_average_decay(step))


def _update(loss, optimizer, global_step):
  """Statistics and loss averages, then the step of the optimizer."""
  # Not gated, which would compute the gradient by the images, too, for nothing.
  gradients = optimizer.compute_gradients(
      loss, gate_gradients=tf.train.Optimizer.GATE_NONE)
  # Both passes are over before a weight moves. Not as a dependence of all that
  # the optimizer adds: what synchronous training runs besides is no step.
  with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
    gradients = [(tf.identity(g), w) for g, w in gradients]
  return optimizer.apply_gradients(gradients, global_step)


def _weights_l2():
  """Half the sum of the squared weights, each computed where it is."""
  squares = []
  for weight in tf.trainable_variables():
    with tf.device(weight.device):
      squares.append(tf.nn.l2_loss(weight.read_value()))
  return tf.add_n(squares)


def summarize_separation(v, is_clean):
  """Summaries of how well v tells clean from noisy labels.

  Args:
    v: [B] weights.
    is_clean: [B] bool.

  Returns:
    (auc, precision, recall), float32 scalars: the chance that a clean example
    outweighs a noisy one (ties count half), and of the selection v >= 0.5 the
    share that is clean and the share of the clean that it finds. NaN where the
    batch leaves a value undefined.
  """
  clean, noisy = tf.boolean_mask(v, is_clean), tf.boolean_mask(v, ~is_clean)
  means = tf.reduce_mean(clean), tf.reduce_mean(noisy)
  sign = tf.sign(clean[:, tf.newaxis] - noisy[tf.newaxis, :])
  auc = tf.reduce_mean((sign + 1) / 2)
  chosen = v >= mentor_lib.SELECTED
  hits = tf.reduce_sum(tf.cast(chosen & is_clean, tf.float32))
  precision = hits / tf.reduce_sum(tf.cast(chosen, tf.float32))
  recall = hits / tf.reduce_sum(tf.cast(is_clean, tf.float32))
  tf.summary.scalar('v/clean', means[0])
  tf.summary.scalar('v/noisy', means[1])
  tf.summary.scalar('v/auc', auc)
  tf.summary.scalar('v/precision', precision)
  tf.summary.scalar('v/recall', recall)
  return auc, precision, recall
