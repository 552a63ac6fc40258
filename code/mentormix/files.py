"""Directories that are there whole or not at all, and can be written."""
import contextlib
import os
import shutil
import tempfile

from mentormix.command import UserError


def writable_directory(path, flag):
  """Makes the directory `path` where it is missing and tries to write there.

  Raises:
    UserError: it cannot be written; the line names `flag`.
  """
  try:
    os.makedirs(path, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
  except OSError as error:
    raise UserError('--%s=%s cannot be written: %s'
                    % (flag, path, error.strerror))


def check_output(path, own, overwrite):
  """Refuses an --output_dir that may not or cannot be replaced.

  Args:
    path: the directory that is to be written whole, see `new_directory`.
    own: names of the files that an earlier run may have left in it.
    overwrite: whether these may go.

  Raises:
    UserError: the line names the flag that helps.
  """
  if os.path.isdir(path):
    held = set(os.listdir(path))
    if held - own:
      raise UserError('--output_dir=%s holds other files (%s); name a '
                      'directory of its own' % (path, min(held - own)))
    if held and not overwrite:
      raise UserError('--output_dir=%s is there already; add --overwrite to '
                      'replace it' % path)
  elif os.path.lexists(path):
    raise UserError('--output_dir=%s is no directory' % path)
  writable_directory(os.path.dirname(os.path.realpath(path)), 'output_dir')


@contextlib.contextmanager
def new_directory(path):
  """Yields a hidden directory that becomes `path` once the block succeeds.

  What was at `path` makes way only then. If the block fails, nothing is left.
  """
  path = os.path.realpath(path)  # A link stays one.
  parent, name = os.path.split(path)
  suffix = '%d-%s' % (os.getpid(), os.urandom(4).hex())
  temporary = os.path.join(parent, '.%s.tmp-%s' % (name, suffix))
  previous = os.path.join(parent, '.%s.old-%s' % (name, suffix))
  try:
    os.mkdir(temporary)
    yield temporary
    if os.path.lexists(path):
      os.rename(path, previous)
    os.rename(temporary, path)
  finally:
    if os.path.lexists(previous) and not os.path.lexists(path):
      os.rename(previous, path)
    shutil.rmtree(previous, ignore_errors=True)
    shutil.rmtree(temporary, ignore_errors=True)
