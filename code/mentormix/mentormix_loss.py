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


def mentormix(images, labels, student, mentor, alpha, sampler,
              second_mentor=None):
  """Algorithm 1.

  Args:
    images: [B, H, W, 3].
    labels: [B, K] one-hot, noisy.
    student: a callable with the keyword `update_statistics`: the mixed pass
      alone moves the moving statistics.
    mentor: a callable, losses -> weights; of the images as they are.
    alpha: of Beta(alpha, alpha); 0 or less mixes nothing.
    sampler: where partners and shares are drawn, such as a `sampling.Sampler`.
    second_mentor: a callable, weights of the mixed images; None for no second
      weighting.

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


def mixup(images, labels, student, alpha, sampler):
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
  j = sampler.partners(v)  # [B]
  lam = mixing_coefficients(sampler.beta(alpha, tf.shape(v)), v)  # [B]
  return mix(images, j, lam), mix(labels, j, lam)


def mixing_coefficients(beta, v):
  """Share lam of the example itself: the larger one, unless v < 0.5.

  An example that the mentor distrusts thus counts for less than its partner
  (published code; the paper interpolates by v).

  Args:
    beta: [B] draws from Beta(alpha, alpha).
    v: [B] weights.

  Returns:
    lam [B].
  """
  lam = tf.maximum(beta, 1 - beta)
  return tf.where(v < 0.5, 1 - lam, lam)


def mix(x, j, lam):
  """lam * x_i + (1 - lam) * x_j along the first axis of `x`."""
  lam = tf.reshape(lam, tf.concat(
      [tf.shape(lam), tf.ones([x.shape.ndims - 1], tf.int32)], axis=0))
  return lam * x + (1 - lam) * tf.gather(x, j)


def _softmax_cross_entropy(labels, logits):
  """Per-example cross-entropy [B]; labels may be soft."""
  return tf.nn.softmax_cross_entropy_with_logits_v2(
      labels=tf.stop_gradient(labels), logits=logits)
