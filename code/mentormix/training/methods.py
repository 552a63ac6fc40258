"""The method of a run, with the state that it has beside the student.

That state is in the checkpoints, but not part of the student: evaluation does
not see it. B is the batch size, K the number of classes, N the number of
training examples.
"""
from typing import NamedTuple

from mentormix import baselines
from mentormix import mentormix_loss
from mentormix import schedules
from mentormix.mentornet import mentor as mentor_lib
from mentormix.runtime import tf

STATE = 'method_state'  # Scope of the variables of the baselines.


class Progress(NamedTuple):
  """How far training is."""
  step: tf.Tensor  # int64 scalar, steps done before this one.
  epoch_percent: tf.Tensor  # int32 scalar.
  num_examples: int  # In an epoch.
  num_replicas: int  # Batches in a step.


def apply(config, network, progress, batch, labels, student, sampler):
  """Returns the `mentormix_loss.Loss` of the configured method.

  Args:
    config: a `config.TrainConfig`.
    network: the MentorNet, for methods that use one.
    progress: a `Progress`.
    batch: an `input_pipeline.Batch`, with `indices` if
      `config_lib.remembering` names a flag.
    labels: [B, K] one-hot.
    student: a callable, images -> logits, as `mentormix_loss` takes it.
    sampler: a `sampling.Sampler`.
  """
  images = batch.images
  if config.method == 'cross_entropy':
    return mentormix_loss.cross_entropy(images, labels, student)
  if config.method == 'mixup':
    return mentormix_loss.mixup(images, labels, student, config.mixup_alpha,
                                sampler)
  if config.method in ('mentornet', 'mentormix'):
    return _weighted(config, network, progress, batch, labels, student, sampler)
  return _baseline(config, progress, batch, labels, student)


def _weighted(config, network, progress, batch, labels, student, sampler):
  """The methods with a MentorNet."""
  def new_mentor(name):
    return mentor_lib.Mentor(
        network, progress.epoch_percent, config.loss_p_percentile,
        config.burn_in_epoch,
        schedules.dropout_table(config.example_dropout_rates), name,
        sampler.uniform)

  mentor, second_mentor = new_mentor('mentor'), None
  if config.method == 'mentornet':
    result = mentormix_loss.mentornet(batch.images, labels, student, mentor)
  else:
    if config.second_reweight:
      second_mentor = new_mentor('second_mentor')
    result = mentormix_loss.mentormix(
        batch.images, labels, student, mentor, config.mixup_alpha, sampler,
        second_mentor, _first_losses(config, progress, batch.indices, student))
  tf.summary.scalar('loss_average', mentor.average)
  if second_mentor:
    tf.summary.scalar('second_loss_average', second_mentor.average)
  return result


def _first_losses(config, progress, indices, student):
  """The losses of the first pass, as `mentormix_loss.mentormix` takes them."""
  mode = (dict(is_training=False) if config.first_pass == 'inference' else {})

  def measure(images, labels):
    if config.first_pass == 'half':
      images = tf.nn.avg_pool(images, [1, 2, 2, 1], [1, 2, 2, 1], 'VALID')
    return mentormix_loss.softmax_cross_entropy(
        labels, student(images, update_statistics=False, **mode))

  if config.first_pass_interval_epochs == 1:
    return measure
  return _RememberedLosses(measure, indices, progress, config)


class _RememberedLosses:
  """Losses of the first pass, which it takes in every so many epochs only.

  In the epochs between, each example has the loss of its last visit.
  """

  def __init__(self, measure, indices, progress, config):
    """Creates it.

    Args:
      measure: a callable, images and labels -> losses [B].
      indices: [B], of the examples, below N.
      progress: a `Progress`.
      config: a `config.TrainConfig`.
    """
    self._measure = measure
    self._indices = indices
    self._num_examples = progress.num_examples
    # Of the first example of the batch; epoch 0 thus measures all.
    epoch = progress.step * config.batch_size // progress.num_examples
    self._is_due = tf.equal(epoch % config.first_pass_interval_epochs, 0)

  def __call__(self, images, labels):
    """The losses [B] of this step, for labels [B, K]."""
    memory = _memory('losses', [self._num_examples])
    losses = tf.cond(self._is_due, lambda: self._measure(images, labels),
                     lambda: tf.gather(memory, self._indices))
    _remember(memory, losses, self._indices)
    return losses


def _memory(name, shape):
  """A variable with a row for each example, at first of zeros."""
  with tf.variable_scope(STATE):
    return tf.get_variable(name, shape, initializer=tf.zeros_initializer(),
                           trainable=False)


def _remember(memory, rows, indices):
  """Adds to tf.GraphKeys.UPDATE_OPS that a step writes `rows` there."""
  tf.add_to_collection(
      tf.GraphKeys.UPDATE_OPS,
      memory.scatter_update(tf.IndexedSlices(rows, indices)))


def _baseline(config, progress, batch, labels, student):
  """The methods of `baselines`."""
  method = getattr(baselines, config.method)
  options = {}
  if config.method.startswith('bootstrap') and config.bootstrap_beta >= 0:
    options = dict(beta=config.bootstrap_beta)
  elif config.method == 'gce':
    options = dict(q=config.gce_q)
  elif config.method == 's_model':
    with tf.variable_scope(STATE):
      options = dict(noise=tf.get_variable(
          'noise_logits', initializer=baselines.noise_logits(
              config.noise_rate, labels.shape[1].value)))
  elif config.method == 'elr':
    options = dict(lam=config.elr_lambda, remember=_Targets(
        batch.indices, progress.num_examples, config.elr_beta))
  elif config.method == 'co_teaching':
    options = dict(forgotten=schedules.forgotten_share(
        config.forget_rate, progress.step, schedules.decay_steps(
            progress.num_examples, config.batch_size * progress.num_replicas,
            1)))
  return method(batch.images, labels, student, **options)


class _Targets:
  """The running means of the predictions of each example, for ELR.

  A step changes the rows of its batch, by an update in
  tf.GraphKeys.UPDATE_OPS.
  """

  def __init__(self, indices, num_examples, beta):
    """Creates it; `indices` [B] are those of the examples, below N."""
    self._indices = indices
    self._num_examples = num_examples
    self._beta = beta

  def __call__(self, p):
    """The targets [B, K] after this step, for probabilities [B, K]."""
    memory = _memory('targets', [self._num_examples, p.shape[1].value])
    targets = (self._beta * tf.gather(memory, self._indices)
               + (1 - self._beta) * p)
    _remember(memory, targets, self._indices)
    return targets
