"""Which checkpoints a directory holds: what training and evaluation agree on."""
import glob
import os

from mentormix.command import UserError
from mentormix.runtime import tf

BASENAME = 'model.ckpt'


def find(directory):
  """Step -> prefix of every checkpoint that is listed and there.

  Args:
    directory: where training writes; it may be missing, and may have been moved
      since.

  Raises:
    UserError: the file `checkpoint` is damaged.
  """
  try:
    state = tf.train.get_checkpoint_state(directory)
  except (ValueError, tf.errors.OpError):
    raise UserError('%s is damaged; restore it, or name another directory'
                    % os.path.join(directory, 'checkpoint'))
  found = {}
  for prefix in state.all_model_checkpoint_paths if state else []:
    prefix = os.path.join(directory, os.path.basename(prefix))
    step = prefix.rpartition('-')[2]
    if step.isdigit() and os.path.isfile(prefix + '.index'):
      found[int(step)] = prefix
  return found


def last_step(directory):
  """The step that training in `directory` goes on from, 0 for a new run.

  Raises:
    UserError: there are checkpoints, but not the one that TensorFlow would go
      on from: it would start anew, without a word.
  """
  there = glob.glob(os.path.join(glob.escape(directory), BASENAME + '-*.index'))
  if not there:
    return 0
  found = find(directory)
  latest = tf.train.latest_checkpoint(directory)
  if not latest or os.path.basename(latest) not in map(
      os.path.basename, found.values()):
    raise UserError(
        '%s holds checkpoints, but its file `checkpoint` is missing or does '
        'not point to a complete one (%s); restore it, or name another '
        '--train_log_dir' % (directory, ', '.join(sorted(
            os.path.basename(name)[:-len('.index')] for name in there))))
  return max(found)
