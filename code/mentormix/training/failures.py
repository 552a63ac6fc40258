"""What an error in a training step means, and what to do about it."""
import contextlib

from mentormix import checkpoints
from mentormix.data import decoding
from mentormix.data import record_checks
from mentormix import files
from mentormix.mentornet import loading as mentornet_loading
from mentormix.messages import log
from mentormix.messages import RunError
from mentormix.messages import UserError
from mentormix import runtime
from mentormix.runtime import tf


@contextlib.contextmanager
def explained(config, dataset, shards):
  """Says of an error in the block, in a line, what it means and what to do."""
  try:
    yield
  except (RunError, UserError):
    raise
  except Exception as error:
    goes_on = 'then the same command goes on from step %d in %s' % (
        checkpoints.last_step(config.train_log_dir), config.train_log_dir)
    cause = _cause(error, config, dataset, shards)
    if not cause:
      log('training ended by an error that nobody foresaw; mend it, %s'
          % goes_on)
      raise
    raise RunError('%s; %s' % (cause, goes_on))


def _cause(error, config, dataset, shards):
  """What an error in a step or a write means, and what to do; or None."""
  reason = runtime.reason(error)
  if files.is_about_disk(reason):
    for name in ('data_dir', 'loss_csv_file', 'train_log_dir'):
      path = getattr(config, name)
      if path and path in reason:
        break
    return '--%s=%s cannot be read or written (%s): make room or mend it' % (
        name, path, reason)
  if isinstance(error, tf.errors.ResourceExhaustedError):
    return ('out of memory or the like (%s): end other processes, or take a '
            'smaller --batch_size' % reason)
  if isinstance(error, tf.errors.NotFoundError) and config.master:
    return '--master=%s is none (%s): mend it' % (config.master, reason)
  if isinstance(error, tf.errors.UnknownError):
    said = mentornet_loading.formula_error(error)
    return said and '--trained_mentornet_dir=%s: %s: mend it' % (
        config.trained_mentornet_dir, said)
  if isinstance(error, (tf.errors.DataLossError,
                        tf.errors.InvalidArgumentError)):
    try:  # As when a file too large for memory was changed meanwhile.
      shards, _ = record_checks.check_files(
          dataset, 'train', [shard.path for shard in shards],
          config.max_bad_records)
      decoding.check_images(dataset, 'train', shards)
    except UserError as damage:
      return str(damage)
    return ('a step failed, as it does on a damaged file or image (%s): check '
            '--data_dir=%s' % (reason, config.data_dir))
  return None
