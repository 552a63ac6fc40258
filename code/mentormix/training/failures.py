"""What an error in a training step means, and what to do about it."""
import contextlib

from mentormix import checkpoints
from mentormix import files
from mentormix import runtime
from mentormix.data import splits
from mentormix.mentornet import loading
from mentormix.messages import log, RunError, UserError
from mentormix.runtime import tf


@contextlib.contextmanager
def explained(config, data):
  """Turns an error in the block into a RunError that says what it means.

  Args:
    config: a `config.TrainConfig`.
    data: the `splits.Split` of the training set.
  """
  try:
    yield
  except (RunError, UserError):
    raise
  except Exception as error:
    last = checkpoints.last_step(config.train_log_dir)
    resume = ('then rerun the same command to resume from step '
              f'{last} in {config.train_log_dir}')
    cause = _cause(error, config, data)
    if not cause:
      log(f'training stopped on an unexpected error; fix it, {resume}')
      raise
    raise RunError(f'{cause}; {resume}')


def _cause(error, config, data):
  """Says what an error means and how to fix it; None if that is not known."""
  reason = runtime.reason(error)
  if files.is_about_disk(reason):
    for name in ('data_dir', 'loss_csv_file', 'train_log_dir'):
      path = getattr(config, name)
      if path and path in reason:
        break
    return (f'--{name}={path} cannot be read or written ({reason}): free some '
            'space or fix that')
  if isinstance(error, tf.errors.ResourceExhaustedError):
    return (f'out of memory or another resource ({reason}): end other '
            'processes, or use more --microbatches or a smaller --batch_size')
  if isinstance(error, tf.errors.NotFoundError) and config.master:
    return f'--master={config.master} is not a TensorFlow master ({reason})'
  if isinstance(error, tf.errors.UnknownError):
    said = loading.formula_error(error)
    return said and (f'--trained_mentornet_dir={config.trained_mentornet_dir}: '
                     f'{said}: fix that')
  if isinstance(error, (tf.errors.DataLossError,
                        tf.errors.InvalidArgumentError)):
    try:  # A file that does not fit into memory may have changed since.
      splits.find(data.dataset, 'train', config.data_dir, data.recipe,
                  config.max_bad_records).check_images()
    except UserError as damage:
      return str(damage)
    return (f'a step failed, as it does on a damaged file or image ({reason}): '
            f'check --data_dir={config.data_dir}')
  return None
