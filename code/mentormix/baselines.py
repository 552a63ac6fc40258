"""Other methods for noisy labels, to compare MentorMix with.

Each is plain training with another criterion, or on a part of the batch. Their
limits:

    bootstrap_soft, bootstrap_hard  -- beta 1        -->  cross_entropy
    s_model                         -- epsilon 0     -->  cross_entropy
    gce                             -- q to 0        -->  cross_entropy
    elr                             -- lam 0         -->  cross_entropy
    co_teaching                     -- forgotten 0   -->  cross_entropy

The functions have the form of those in `mentormix_loss`: they are pure, take
images [B, H, W, 3], labels [B, K] one-hot, noisy, and a student, and return a
`Loss`. Its `unmixed` is always the cross-entropy of the labels.
"""
import numpy as np

from mentormix.mentormix_loss import Loss, softmax_cross_entropy
from mentormix.runtime import tf

# As published.
BETA_SOFT, BETA_HARD = 0.95, 0.8  # Bootstrapping, by Reed et al.
_LEAST_NOISE = 1e-8  # In the noise layer, whose logits are finite.
_LEAST_P = 1e-4  # ELR limits p to this and to 1 minus this.


def bootstrap_soft(images, labels, student, beta=BETA_SOFT):
  """Soft bootstrapping (Reed et al., 2014, arXiv:1412.6596, equation 6).

  The targets are mixed with the prediction p. As published, the objective is
  minimised as a whole: the gradient flows through the p of the target, too,
  which makes this cross-entropy with minimum entropy regularisation.

  Args:
    images, labels, student: as above.
    beta: share of the labels in the targets.
  """
  def criterion(labels, logits):
    log_p = tf.nn.log_softmax(logits)  # [B, K]
    target = beta * labels + (1 - beta) * tf.exp(log_p)
    return -tf.reduce_sum(target * log_p, axis=1)
  return _train(images, labels, student(images), criterion)


def bootstrap_hard(images, labels, student, beta=BETA_HARD):
  """Hard bootstrapping (Reed et al., 2014, equation 7); as `bootstrap_soft`.

  The targets are mixed with the predicted class, which has no gradient.
  """
  def criterion(labels, logits):
    predicted = tf.one_hot(tf.argmax(logits, axis=1), logits.shape[1].value)
    return softmax_cross_entropy(beta * labels + (1 - beta) * predicted, logits)
  return _train(images, labels, student(images), criterion)


def s_model(images, labels, student, noise):
  """The simple noise layer (Goldberger and Ben-Reuven, ICLR 2017).

  Training compares the labels with p Q: p is the prediction, and row i of Q
  [K, K], the softmax of row i of `noise`, the labels given to class i.

  Args:
    images, labels, student: as above.
    noise: [K, K], trained with the student; starts as `noise_logits`.
  """
  def criterion(labels, logits):
    log_q = tf.matmul(labels, tf.nn.log_softmax(noise), transpose_b=True)
    return -tf.reduce_logsumexp(tf.nn.log_softmax(logits) + log_q, axis=1)
  return _train(images, labels, student(images), criterion)


def noise_logits(epsilon, num_classes):
  """log((1 - epsilon) [i = j] + epsilon / (K - 1) [i != j]), float32 [K, K]."""
  q = np.full([num_classes] * 2, epsilon / (num_classes - 1), np.float32)
  np.fill_diagonal(q, 1 - epsilon)
  return np.log(np.maximum(q, np.float32(_LEAST_NOISE)))


def gce(images, labels, student, q):
  """Generalised cross-entropy (Zhang and Sabuncu, NeurIPS 2018).

  (1 - p_y^q) / q, where p_y is the probability of the label. Without the
  truncation that the paper adds in a second version.

  Args:
    images, labels, student: as above.
    q: from above 0 to 1, which gives the mean absolute error.
  """
  def criterion(labels, logits):
    log_p = -softmax_cross_entropy(labels, logits)  # [B], of the labels.
    return -tf.math.expm1(q * log_p) / q
  return _train(images, labels, student(images), criterion)


def elr(images, labels, student, remember, lam):
  """Early-learning regularisation (Liu et al., NeurIPS 2020), one network.

  Adds lam * log(1 - <p, t>). The targets t have no gradient. As in the
  published code, p is limited to [0.0001, 0.9999] there.

  Args:
    images, labels, student: as above.
    remember: a callable, probabilities [B, K] that sum to 1 -> targets t
      [B, K], their running means for each example.
    lam: weight of the regulariser.

  Returns:
    A `Loss`, whose `labels` are [B, 2, K]: labels and targets.
  """
  logits = student(images)
  p = _limited_softmax(logits)  # [B, K]
  t = tf.stop_gradient(
      remember(tf.stop_gradient(p / tf.reduce_sum(p, axis=1, keepdims=True))))

  def criterion(labels_and_targets, logits):
    labels, t = tf.unstack(tf.stop_gradient(labels_and_targets), axis=1)
    agreement = tf.reduce_sum(_limited_softmax(logits) * t, axis=1)  # [B]
    return (softmax_cross_entropy(labels, logits)
            + lam * tf.math.log(1 - agreement))
  return _train(images, labels, logits, criterion,
                tf.stack([labels, t], axis=1))


def co_teaching(images, labels, student, forgotten):
  """The small-loss selection of Co-teaching, with ONE network.

  It is not the method of Han et al. (NeurIPS 2018), where each of two networks
  learns from what the other selects. The share 1 - `forgotten` of the batch
  with the smallest losses has v = 1, the rest v = 0; training minimises the
  mean over what is kept.

  Args:
    images, labels, student: as above.
    forgotten: scalar from 0 to 1; at least one example is kept.
  """
  loss = softmax_cross_entropy(labels, student(images))  # [B]
  size = loss.shape.num_elements()
  kept = tf.maximum(1, tf.cast(tf.round((1 - forgotten) * size), tf.int32))
  rank = tf.argsort(tf.argsort(tf.stop_gradient(loss)))  # [B], 0: smallest.
  v = tf.cast(rank < kept, tf.float32)
  weight = v / tf.reduce_mean(v)
  return Loss(weight * loss, v, loss, images, labels, weight)


def _train(images, labels, logits, criterion, targets=None):
  """Plain training with a criterion: (targets or labels, logits) -> [B]."""
  targets = labels if targets is None else targets
  loss = criterion(targets, logits)  # [B]
  return Loss(loss, tf.ones_like(loss), softmax_cross_entropy(labels, logits),
              images, targets, None, criterion)


def _limited_softmax(logits):
  return tf.clip_by_value(tf.nn.softmax(logits), _LEAST_P, 1 - _LEAST_P)
