"""MentorMix: weight, sample, mix up, weight again. And the methods beside it.

`mentormix` is Algorithm 1 of "Beyond Synthetic Noise: Deep Learning on
Controlled Noisy Labels" (ICML 2020), with the choices of the published code
where it differs from the paper. Beside it are its limits; `baselines` has other
methods to compare it with:

    mentormix, no second weighting  -- v = 1      -->  mixup
    mentormix, second weighting     -- alpha 0    -->  mentornet
    mixup                           -- alpha 0    -->  cross_entropy
    mentornet                       -- v = 1      -->  cross_entropy

All of them return a `Loss`. The functions are pure: tensors and callables in,
tensors out. B is the batch size, K the number of classes. A `student` maps
images [B, H, W, 3] to logits [B, K]; a `mentor` maps losses [B] to weights [B].
"""
from typing import Callable, NamedTuple, Optional

from mentormix.runtime import tf

TRUSTED = 0.5  # The mentor trusts an example of at least this weight.


def softmax_cross_entropy(labels, logits):
  """Per-example cross-entropy [B]; labels may be soft."""
  return tf.nn.softmax_cross_entropy_with_logits_v2(
      labels=tf.stop_gradient(labels), logits=logits)


class Loss(NamedTuple):
  """What a method returns."""
  per_example: tf.Tensor  # [B]; training minimises its mean plus weight decay.
  v: tf.Tensor  # [B], the weight of each example before any mixing.
  unmixed: Optional[tf.Tensor]  # [B], before mixing and weighting; mixup: None.
  # per_example is weight * criterion(labels, student(images)), of:
  images: tf.Tensor  # [B, H, W, 3], mixed.
  labels: tf.Tensor  # [B, K], mixed.
  weight: Optional[tf.Tensor]  # [B], without gradient; None stands for 1.
  criterion: Callable = softmax_cross_entropy


def mentormix(images, labels, student, mentor, alpha, sampler,
              second_mentor=None, first_losses=None):
  """Algorithm 1.

  Args:
    images: [B, H, W, 3].
    labels: [B, K] one-hot, noisy.
    student: a callable with the keyword `update_statistics`: only the mixed
      pass updates the moving statistics.
    mentor: a callable, losses -> weights, for the images as they are.
    alpha: of Beta(alpha, alpha); 0 or less mixes nothing.
    sampler: draws partners and mixing coefficients, as `sampling.Sampler` does.
    second_mentor: as `mentor`, for the mixed images; None to weight only once.
    first_losses: a callable, images and labels -> losses [B], that takes the
      place of the student in step 1; it updates no statistics.

  Returns:
    A `Loss`.
  """
  # Step 1: weight each example i by its loss. No gradient, no statistics.
  loss = tf.stop_gradient(
      first_losses(images, labels) if first_losses else softmax_cross_entropy(
          labels, student(images, update_statistics=False)))  # [B]
  v = tf.stop_gradient(mentor(loss))  # [B]
  with tf.control_dependencies([loss]):  # Step 4 moves what step 1 may read.
    images = tf.identity(images)

  if alpha > 0:
    # Step 2: sample a partner j for each i, more often where v_j is high.
    j = sampler.partners(v)  # [B]

    # Step 3: mix each pair up, in favour of the one that is trusted more.
    lam = mixing_coefficients(sampler.beta(alpha, tf.shape(v)), v)  # [B]
    images, labels = mix(images, j, lam), mix(labels, j, lam)

  # Step 4: train on the mixed examples, weighted again.
  mixed = softmax_cross_entropy(labels, student(images))  # [B]
  if second_mentor is None:
    return Loss(mixed, v, loss, images, labels, weight=None)
  weight = tf.stop_gradient(second_mentor(mixed))  # [B]
  return Loss(mixed * weight, v, loss, images, labels, weight)


def mixup(images, labels, student, alpha, sampler):
  """Mixup (Zhang et al., ICLR 2018), with a lam per pair as in `mentormix`."""
  v = tf.ones(tf.shape(labels)[:1])  # [B]
  if alpha > 0:
    j = sampler.partners(v)  # [B]
    lam = mixing_coefficients(sampler.beta(alpha, tf.shape(v)), v)  # [B]
    images, labels = mix(images, j, lam), mix(labels, j, lam)
  return cross_entropy(images, labels, student)._replace(v=v, unmixed=None)


def mentornet(images, labels, student, mentor):
  """MentorNet (Jiang et al., ICML 2018): weights the loss, mixes nothing."""
  loss = softmax_cross_entropy(labels, student(images))  # [B]
  v = tf.stop_gradient(mentor(loss))  # [B]
  return Loss(v * loss, v, loss, images, labels, weight=v)


def cross_entropy(images, labels, student):
  """Plain training, which trusts every label."""
  loss = softmax_cross_entropy(labels, student(images))  # [B]
  return Loss(loss, tf.ones_like(loss), loss, images, labels, weight=None)


def mixing_coefficients(beta, v):
  """Share lam of example i itself: the larger share, unless v < 0.5.

  An example that the mentor does not trust thus counts for less than its
  partner (published code; the paper interpolates by v).

  Args:
    beta: [B] draws from Beta(alpha, alpha).
    v: [B] weights.

  Returns:
    lam [B].
  """
  lam = tf.maximum(beta, 1 - beta)
  return tf.where(v < TRUSTED, 1 - lam, lam)


def mix(x, j, lam):
  """lam * x_i + (1 - lam) * x_j along the first axis of `x`."""
  lam = tf.reshape(lam, tf.concat(
      [tf.shape(lam), tf.ones([x.shape.ndims - 1], tf.int32)], axis=0))
  return lam * x + (1 - lam) * tf.gather(x, j)
