"""Training images that are held out, with their noisy labels.

A method may be stopped early, or its settings chosen, by its accuracy on them:
that needs no clean label. They are written as a test set beside the training
set, whose labels do not depend on them.
"""
import os
import shlex

import numpy as np

from mentormix.messages import UserError

_STREAM = 3  # Of random numbers: neither that of the noise nor of the order.


def check(share):
  """Raises UserError for a share that is not in [0, 1)."""
  if not 0 <= share < 1:
    raise UserError(f'--holdout={share} must be at least 0 and below 1')


def directory_of(directory):
  """The directory of the images held out from the training set in another."""
  return f'{directory}_holdout'


def refuse_old(directory):
  """Raises UserError if images held out before would be trained on now."""
  path = directory_of(directory)
  if os.path.lexists(path):
    raise UserError(f'{path} holds images that would also be in the training '
                    'set now; pass --holdout, or remove it')


def held_out(count, share, seed):
  """Which of `count` training images are held out.

  Args:
    count: of the training images, in the order of their source.
    share: of them to hold out, above 0 and below 1.
    seed: the same one gives the same images, for all kinds and levels of noise.

  Returns:
    bool [count]; round(share * count) are True.

  Raises:
    UserError: no image would be held out, or none be left.
  """
  number = int(round(share * count))
  if not 0 < number < count:
    raise UserError(f'--holdout={share:g} holds out {number} of {count} '
                    'training images; both parts need one')
  held = np.zeros(count, bool)
  held[np.random.RandomState([seed, _STREAM]).permutation(count)[:number]] = 1
  return held


def facts(share, held):
  """What noise.json of both parts says, a dict; `held` is from `held_out`."""
  return {'holdout': share, 'num_held_out': int(held.sum()),
          'num_kept': int((~held).sum())}


def hint(directory, share):
  """How to evaluate on the held-out images; '' if there are none."""
  return (', on the held-out images with '
          f'--data_dir={shlex.quote(directory_of(directory))}' if share else '')
