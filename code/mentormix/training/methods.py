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
    batch: an `input_pipeline.Batch`, with `indices` for elr.
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
    return _weighted(config, network, progress.epoch_percent, images, labels,
                     student, sampler)
  return _baseline(config, progress, batch, labels, student)


def _weighted(config, network, epoch_percent, images, labels, student, sampler):
  """The methods with a MentorNet."""
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
        second_mentor, _first_pass(config.first_pass, student))
  tf.summary.scalar('loss_average', mentor.average)
  if second_mentor:
    tf.summary.scalar('second_loss_average', second_mentor.average)
  return result


def _first_pass(name, student):
  """What `mentormix_loss.mentormix` takes for a --first_pass."""
  if name == 'inference':
    return lambda images: student(images, update_statistics=False,
                                  is_training=False)
  if name == 'half':
    return lambda images: student(
        tf.nn.avg_pool(images, [1, 2, 2, 1], [1, 2, 2, 1], 'VALID'),
        update_statistics=False)
  return None


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
    with tf.variable_scope(STATE):
      memory = tf.get_variable(
          'targets', [self._num_examples, p.shape[1].value],
          initializer=tf.zeros_initializer(), trainable=False)
    targets = (self._beta * tf.gather(memory, self._indices)
               + (1 - self._beta) * p)
    tf.add_to_collection(
        tf.GraphKeys.UPDATE_OPS,
        memory.scatter_update(tf.IndexedSlices(targets, self._indices)))
    return targets
