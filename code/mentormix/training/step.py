"""The graph of one training step.

    batch -> method (methods) -> mean + decay -> momentum -> averages

A step changes each state once: weights, their averages, moving statistics, the
mentors' loss averages, the global step. In a cluster, every worker builds this
graph, and the variables are on the servers: all workers share what a step
changes. B is the batch size.
"""
from typing import Any, NamedTuple, Optional

from mentormix import mentormix_loss
from mentormix import precision
from mentormix import runtime
from mentormix import sampling
from mentormix import schedules
from mentormix import students
from mentormix.cluster import roles
from mentormix.cluster import sync_hook as sync_lib
from mentormix.runtime import tf
from mentormix.training import finetuning
from mentormix.training import methods
from mentormix.training import microbatches

MOMENTUM = 0.9
_FIRST_STREAM = 32  # Of random numbers; augmentation uses those before it.


class Step(NamedTuple):
  """One training step."""
  train_op: tf.Operation  # Runs the step.
  done: tf.Tensor  # int64 scalar, steps done after it, by all workers.
  loss: tf.Tensor  # float32 scalar, mean over the batch plus weight decay.
  v: tf.Tensor  # [B], the weight of each example.
  selected: tf.Tensor  # float32 scalar, share of the batch that is trusted.
  unmixed: Optional[tf.Tensor]  # [B], losses of the images as they are.
  epoch_percent: tf.Tensor  # int32 scalar, how far training is.
  weights_l2: tf.Tensor  # float32 scalar, half the sum of squared new weights.
  sync_hook: Any  # What a session of synchronous training needs, or None.


def build_step(config, dataset, num_examples, batch, network=None,
               sampler=None, cluster=roles.ALONE):
  """Adds one training step to the graph, with its summaries.

  Args:
    config: a `config.TrainConfig`.
    dataset: a `datasets.Dataset`.
    num_examples: number of examples in an epoch.
    batch: an `input_pipeline.Batch`.
    network: the MentorNet, features [B, 4] -> v [B], for methods that use one.
    sampler: draws partners, mixing coefficients and dropped examples; by
      default a `sampling.Sampler` of the step.
    cluster: a `roles.Cluster`.

  Returns:
    A `Step`.
  """
  global_step = tf.train.get_or_create_global_step()
  step = tf.identity(global_step)  # Steps done before this one.
  labels = tf.one_hot(batch.labels, dataset.num_classes)  # [B, K]
  student = _student(config, dataset.num_classes, cluster)
  auxiliary_weight = students.get(config.studentnet).auxiliary_weight
  parts = microbatches.Parts(student, config.microbatches, auxiliary_weight)
  epoch_percent = schedules.epoch_percent(step, config.max_number_of_steps)

  sampler = sampler or sampling.Sampler(
      sampling.worker_seed(config.seed, cluster.worker), step, _FIRST_STREAM)
  # Number of gradients averaged into one step.
  num_replicas = cluster.num_workers if config.sync_replicas else 1
  result = methods.apply(
      config, network, methods.Progress(
          step, epoch_percent, num_examples, num_replicas), batch, labels,
      student if config.microbatches == 1 else parts.forward, sampler)
  finetuning.train_only(config.trainable_scopes)

  rate = schedules.configured_rate(config, step, num_examples, num_replicas)
  optimizer = _optimizer(config, rate, step)
  sync_hook = None
  if config.sync_replicas:
    optimizer = tf.train.SyncReplicasOptimizer(optimizer, num_replicas)
  decay, losses, gradients = _weight_decay(config), result.per_example, None
  if config.microbatches > 1:
    losses, gradients = parts.gradients(result, optimizer, decay)
  elif auxiliary_weight:
    losses += auxiliary_weight * microbatches.auxiliary_losses(
        result.labels, result.weight, result.criterion)
  loss = tf.reduce_mean(losses)
  if decay is not None:
    loss += decay
  train_op = _update(loss, optimizer, global_step, gradients)
  if config.sync_replicas:
    sync_hook = sync_lib.SyncHook(optimizer, cluster)
  with tf.control_dependencies([train_op]):
    done = global_step.read_value()
    weights_l2 = _weights_l2()

  selected = tf.reduce_mean(tf.cast(
      result.v >= mentormix_loss.TRUSTED, tf.float32))
  tf.summary.scalar('loss', loss)
  tf.summary.scalar('learning_rate', rate)
  tf.summary.scalar('v/mean', tf.reduce_mean(result.v))
  tf.summary.scalar('v/selected', selected)
  # A NaN would end the run here, with a less helpful message.
  tf.summary.histogram('v', tf.where(
      tf.math.is_nan(result.v), tf.zeros_like(result.v), result.v))
  return Step(train_op, done, loss, result.v, selected, result.unmixed,
              epoch_percent, weights_l2, sync_hook)


def _weight_decay(config):
  """The term that it adds to the loss, a scalar; None for no term."""
  student = students.get(config.studentnet)
  if config.weight_decay >= 0:
    return student.decay_loss(config.weight_decay)
  # As published, there is none with a second weighting.
  if config.method == 'mentormix' and config.second_reweight:
    return None
  return student.decay_loss()


def _student(config, num_classes, cluster):
  """Returns the student, by default in training mode.

  All calls share its variables.
  """
  network = students.get(config.studentnet)
  options = dict(dtype=precision.arithmetic(config.precision))
  if config.dropout >= 0:
    options['dropout_keep'] = 1 - config.dropout

  # Fetch each weight from its server once per step, not once per use.
  cache = cluster.device or None
  if config.microbatches > 1:
    cache = cache or (lambda op: op.device)

  def student(images, update_statistics=True, is_training=True):
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE,
                           caching_device=cache):
      return network(images, num_classes, is_training=is_training,
                     update_statistics=update_statistics, **options)
  return student


class _AveragingOptimizer:
  """Takes a step, then updates the weight averages, then counts the step."""

  def __init__(self, optimizer, decay):
    self._decay = decay
    self._optimizer = optimizer
    self.compute_gradients = optimizer.compute_gradients

  def apply_gradients(self, gradients, global_step):
    """As tf.train.Optimizer.apply_gradients."""
    apply = self._optimizer.apply_gradients(gradients)
    # The average takes the weights *after* the step.
    with tf.control_dependencies([apply]):
      averages = [self._average(w) for w in tf.trainable_variables()]
    with tf.control_dependencies(averages):
      return global_step.assign_add(1).op

  def _average(self, weight):
    """As tf.train.ExponentialMovingAverage, which would use a cached weight."""
    name = tf.train.ExponentialMovingAverage(0.0).average_name(weight)
    with tf.device(weight.device):
      with runtime.without_xla():  # On 1.15, XLA would not initialize these.
        average = tf.get_variable(name, initializer=weight.initial_value,
                                  trainable=False)
      return average.assign_sub((1 - self._decay) * (
          average.read_value() - weight.read_value())).op


def _optimizer(config, rate, step):
  """Momentum SGD, which also averages the weights."""
  momentum = tf.train.MomentumOptimizer(rate, MOMENTUM,
                                        use_nesterov=config.nesterov)
  return _AveragingOptimizer(precision.scale_loss(momentum, config.precision),
                             schedules.weight_average_decay(step))


def _update(loss, optimizer, global_step, gradients=None):
  """Updates statistics and loss averages, then takes an optimizer step.

  `gradients` is a list of (gradient, variable), by default those of `loss`.
  """
  # Gating would also compute the gradient of the images, which nobody needs.
  gradients = gradients or optimizer.compute_gradients(
      loss, gate_gradients=tf.train.Optimizer.GATE_NONE)
  # Both passes end before a weight changes. Only the gradients depend on the
  # updates, since synchronous training runs some of the optimizer's operations
  # outside of steps.
  with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
    gradients = [(tf.identity(g), w) for g, w in gradients]
  return optimizer.apply_gradients(gradients, global_step)


def _weights_l2():
  """Half the sum of squared weights, computed where each weight is stored."""
  squares = []
  for weight in tf.trainable_variables():
    with tf.device(weight.device):
      squares.append(tf.nn.l2_loss(weight.read_value()))
  return tf.add_n(squares)


def summarize_separation(v, is_clean):
  """Adds summaries of how well v separates clean from noisy labels.

  Args:
    v: [B] weights.
    is_clean: [B] bool.

  Returns:
    (auc, precision, recall), float32 scalars. auc: the chance that a clean
    example has a higher weight than a noisy one (ties count half). precision
    and recall of the selection v >= 0.5 as a detector of clean labels. A value
    that is undefined for the batch is NaN.
  """
  clean, noisy = tf.boolean_mask(v, is_clean), tf.boolean_mask(v, ~is_clean)
  means = tf.reduce_mean(clean), tf.reduce_mean(noisy)
  sign = tf.sign(clean[:, tf.newaxis] - noisy[tf.newaxis, :])
  auc = tf.reduce_mean((sign + 1) / 2)
  chosen = v >= mentormix_loss.TRUSTED
  hits = tf.reduce_sum(tf.cast(chosen & is_clean, tf.float32))
  chosen_clean = hits / tf.reduce_sum(tf.cast(chosen, tf.float32))
  recall = hits / tf.reduce_sum(tf.cast(is_clean, tf.float32))
  tf.summary.scalar('v/clean', means[0])
  tf.summary.scalar('v/noisy', means[1])
  tf.summary.scalar('v/auc', auc)
  tf.summary.scalar('v/precision', chosen_clean)
  tf.summary.scalar('v/recall', recall)
  return auc, chosen_clean, recall
