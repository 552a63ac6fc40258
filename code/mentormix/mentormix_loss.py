"""MentorMix: weight, sample, mix up, weight again. And the methods beside it.

`mentormix` is Algorithm 1 of "Beyond Synthetic Noise: Deep Learning on
Controlled Noisy Labels" (ICML 2020), with the choices of the published code
where it differs from the paper. What it is compared with are its limits:

    mentormix, no second weighting  -- constant v -->  mixup
    mentormix, second weighting     -- alpha 0    -->  mentornet
    mixup                           -- alpha 0    -->  cross_entropy
    mentornet                       -- v = 1      -->  cross_entropy

All take and return the same. Pure: tensors and callables in, tensors out. B is
the batch size, K the number of classes. A `student` maps images [B, H, W, 3] to
logits [B, K]; a `mentor` maps losses [B] to weights [B].
"""
import collections

from mentormix.runtime import tf


class Loss(collections.namedtuple('Loss', 'per_example v unmixed')):
  """What a method returns.

  Attributes:
    per_example: [B], its mean is what training minimises, weight decay aside.
    v: [B], the weight of each example of the batch before any mixing.
    unmixed: [B], the loss of each example before mixing and weighting; None for
      mixup, which never computes it.
  """
  __slots__ = ()


# Where random draws come from: v [B] -> partners [B]; alpha, shape -> draws from
# Beta(alpha, alpha); shape -> draws from [0, 1), for a mentor that drops.
Sampler = collections.namedtuple('Sampler', 'partners beta uniform')


def mentormix(images, labels, student, mentor, alpha, second_mentor=None,
              sampler=None):
  """Algorithm 1.

  Args:
    images: [B, H, W, 3].
    labels: [B, K] one-hot, noisy.
    student: a callable with the keyword `update_statistics`: the mixed pass
      alone moves the moving statistics.
    mentor: a callable, losses -> weights; of the images as they are.
    alpha: of Beta(alpha, alpha); 0 or less mixes nothing.
    second_mentor: a callable, weights of the mixed images, or None.
    sampler: a `Sampler`; None for `RANDOM`.

  Returns:
    A `Loss`.
  """
  # Step 1: weight each example by its loss. No gradient, no moving statistics.
  loss = tf.stop_gradient(_softmax_cross_entropy(
      labels, student(images, update_statistics=False)))  # [B]
  v = tf.stop_gradient(mentor(loss))  # [B]

  # Step 2: sample a partner for each, more often where the weight is high.
  # Step 3: mix the pairs up.
  images, labels = _mix_with_partners(images, labels, v, alpha, sampler)

  # Step 4: train on the mixed examples, weighted again.
  mixed = _softmax_cross_entropy(labels, student(images))  # [B]
  if second_mentor is not None:
    mixed *= tf.stop_gradient(second_mentor(mixed))
  return Loss(mixed, v, unmixed=loss)


def mixup(images, labels, student, alpha, sampler=None):
  """Mixup (Zhang et al., ICLR 2018), as in `mentormix` a lam for each pair."""
  v = tf.ones(tf.shape(labels)[:1])  # [B]
  images, labels = _mix_with_partners(images, labels, v, alpha, sampler)
  return Loss(_softmax_cross_entropy(labels, student(images)), v, None)


def mentornet(images, labels, student, mentor):
  """MentorNet (Jiang et al., ICML 2018): the loss weighted, nothing mixed."""
  loss = _softmax_cross_entropy(labels, student(images))  # [B]
  v = tf.stop_gradient(mentor(loss))  # [B]
  return Loss(v * loss, v, unmixed=loss)


def cross_entropy(images, labels, student):
  """Plain training: the labels are believed."""
  loss = _softmax_cross_entropy(labels, student(images))  # [B]
  return Loss(loss, tf.ones_like(loss), unmixed=loss)


def _mix_with_partners(images, labels, v, alpha, sampler):
  """Each example mixed with a partner drawn by weight; as it is at alpha 0."""
  if alpha <= 0:
    return images, labels
  sampler = sampler or RANDOM
  j = sampler.partners(v)  # [B]
  lam = mixing_coefficients(sampler.beta(alpha, tf.shape(v)), v)  # [B]
  return mix(images, j, lam), mix(labels, j, lam)


def sample_partners(v):
  """Draws j ~ Categorical(softmax(v)), one for each example, [B] int32.

  With replacement and at temperature 1 (published code; the paper has a
  temperature). A weight that is no number counts as 0: what has gone wrong is
  to show in the loss, not in an index out of range here.
  """
  logits = tf.where(tf.math.is_nan(v), tf.zeros_like(v), v)
  return tf.random.categorical([logits], tf.size(v), dtype=tf.int32)[0]


def sample_beta(alpha, shape):
  """Draws from Beta(alpha, alpha), as a ratio of Gamma(alpha) draws.

  For an alpha near 0 both draws can underflow; the limit is then 0 or 1.
  """
  a, b = tf.unstack(tf.random.gamma(tf.concat([[2], shape], 0), alpha))
  return tf.where(a + b > 0, a / (a + b), tf.ones_like(a))


def mixing_coefficients(beta, v):
  """Share lam of the example itself: the larger one, unless v < 0.5.

  An example that the mentor distrusts thus counts for less than its partner
  (published code; the paper interpolates by v). All are [B].
  """
  lam = tf.maximum(beta, 1 - beta)
  return tf.where(v < 0.5, 1 - lam, lam)


# Draws that follow tf.set_random_seed.
RANDOM = Sampler(sample_partners, sample_beta, tf.random.uniform)


def mix(x, j, lam):
  """lam * x_i + (1 - lam) * x_j along the first axis of `x`."""
  lam = tf.reshape(lam, tf.concat(
      [tf.shape(lam), tf.ones([x.shape.ndims - 1], tf.int32)], axis=0))
  return lam * x + (1 - lam) * tf.gather(x, j)


def _softmax_cross_entropy(labels, logits):
  """Per-example cross-entropy [B]; labels may be soft."""
  return tf.nn.softmax_cross_entropy_with_logits_v2(
      labels=tf.stop_gradient(labels), logits=logits)
