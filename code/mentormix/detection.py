"""How well scores find the positives among N examples: areas under curves."""
import numpy as np


def _groups(values, is_positive):
  """(positives, negatives) among equal values, the highest first; or None."""
  if is_positive.all() or not is_positive.any():
    return None
  _, group, sizes = np.unique(-values, return_inverse=True, return_counts=True)
  hits = np.bincount(group, weights=is_positive)
  return hits, sizes - hits


def auc(values, is_positive):
  """The chance that a positive scores above a negative; ties count half.

  Args:
    values: [N].
    is_positive: [N] bool.

  Returns:
    A float, the area under the ROC curve; None without both kinds.
  """
  groups = _groups(values, is_positive)
  if groups is None:
    return None
  hits, misses = groups
  below = misses.sum() - np.cumsum(misses)
  return float((hits * (below + misses / 2)).sum()
               / (hits.sum() * misses.sum()))


def average_precision(values, is_positive):
  """The precision averaged over the steps of recall; arguments as `auc`."""
  groups = _groups(values, is_positive)
  if groups is None:
    return None
  hits, misses = groups
  precision = np.cumsum(hits) / np.cumsum(hits + misses)
  return float((hits * precision).sum() / hits.sum())
