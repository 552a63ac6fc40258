"""Files and directories: whole or not at all, bounded, held by one process."""
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time

import numpy as np

from mentormix.messages import UserError

LOCK_FILE = '.lock'
_MAX_NAME = 220  # Bytes; `new_directory` adds some 30, and 255 is the end.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO,
                errno.EACCES, errno.EPERM, errno.EFBIG)
_CHUNK = 1 << 20
_PATIENCE_SECS = 3  # A process that was killed lets go when it is taken apart.


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


@contextlib.contextmanager
def replaced(path, mode='w'):
  """Yields an open file that takes the place of `path` once the block succeeds.

  Whatever happens, the power included, `path` is as before or as written.

  Args:
    path: of a file, there or not.
    mode: 'w' or 'wb'.
  """
  path = os.path.realpath(path)  # A link stays one.
  try:
    with open(path + '.tmp', mode) as f:
      yield f
      f.flush()
      os.fsync(f.fileno())
    os.replace(path + '.tmp', path)
  except BaseException as error:
    with contextlib.suppress(OSError):
      os.remove(path + '.tmp')
    if isinstance(error, OSError) and not error.filename:
      error.filename = path
    raise


def md5_of(path):
  """The md5 of a file, in hexadecimal."""
  return _checksum(path, hashlib.md5())


def sha256_of(path):
  """The SHA-256 of a file, in hexadecimal."""
  return _checksum(path, hashlib.sha256())


def _checksum(path, digest):
  with open(path, 'rb') as f:
    for chunk in iter(lambda: f.read(_CHUNK), b''):
      digest.update(chunk)
  return digest.hexdigest()


def write_json(path, value):
  """Writes a value as JSON, atomically."""
  with replaced(path) as f:
    json.dump(value, f, indent=2, sort_keys=True)
    f.write('\n')


def contents(path, most):
  """What is in a file, bytes; ValueError if it is more than `most` bytes."""
  with open(path, 'rb') as f:
    data = f.read(most + 1)
  if len(data) > most:
    raise ValueError('it has more than %d MiB' % (most >> 20))
  return data


@contextlib.contextmanager
def only_writer(directory, flag):
  """Holds a directory for this process; the block runs if nobody else does.

  The system lets go of the lock when the process ends, however it ends, so none
  is ever left behind.

  Args:
    directory: an existing one.
    flag: that names it.

  Raises:
    UserError: another process holds it; the line says which.
  """
  with open(os.path.join(directory, LOCK_FILE), 'a+') as f:
    until = time.time() + _PATIENCE_SECS
    while True:
      try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except BlockingIOError:
        if time.time() > until:
          raise UserError(
              '--%s=%s is in use by %s; stop that, or name another directory'
              % (flag, directory, holder(directory) or 'another process'))
        time.sleep(0.1)
      except OSError:  # A file system without locks.
        break
    note = 'process %d on %s since %s\n' % (
        os.getpid(), socket.gethostname(), time.strftime('%Y-%m-%d %H:%M:%S'))
    with contextlib.suppress(OSError):  # On a full disk we hold it all the same.
      os.ftruncate(f.fileno(), 0)
      os.write(f.fileno(), note.encode())
    yield


def is_about_disk(text):
  """Whether an error message is one of a disk that is full or read-only."""
  return any(os.strerror(number) in text for number in _DISK_ERRORS)


def holder(directory):
  """The process that holds a directory by `only_writer`, or None.

  Returns:
    As in 'process 7 on a-host since 2020-07-13 12:00:00'.
  """
  try:
    with open(os.path.join(directory, LOCK_FILE)) as f:
      try:
        fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
      except BlockingIOError:
        return f.read().strip() or 'another process'
  except OSError:  # Nobody ever held it, or a file system without locks.
    pass
  return None


def check_output(path, own, overwrite):
  """Refuses an --output_dir that may not or cannot be replaced.

  Args:
    path: the directory that is to be written whole, see `new_directory`.
    own: names of the files that an earlier run may have left in it.
    overwrite: whether these may go.

  Raises:
    UserError: the line names the flag that helps.
  """
  if len(os.fsencode(os.path.basename(os.path.realpath(path)))) > _MAX_NAME:
    raise UserError('--output_dir=%s: its name has more than %d bytes; take a '
                    'shorter one' % (path, _MAX_NAME))
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


_MAX_BYTES = 4 << 20  # Of a JSON file.
_MAX_DIGITS = 18  # What an int64 holds.


def read_object(path, what):
  """Reads a JSON file that holds an object.

  Args:
    path: of the file.
    what: the object is, for the error message.

  Returns:
    A dict; None if there is no file.

  Raises:
    UserError: the file holds something else, or a number that is too large.
  """
  if not os.path.isfile(path):
    return None
  try:
    found = json.loads(contents(path, _MAX_BYTES).decode('utf-8'),
                       parse_int=_integer, parse_float=_finite,
                       parse_constant=_finite)
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f'{path} cannot be read: {error}')
  if not isinstance(found, dict):
    raise UserError(f'{path} does not hold {what}')
  return found


def _integer(digits):
  # Python would take hours for a million digits.
  if len(digits) > _MAX_DIGITS:
    raise ValueError(f'the number {digits:.40} is too large')
  return int(digits)


def _finite(digits):
  value = float(digits)
  if not abs(value) < np.inf:  # NaN, too.
    raise ValueError(f'the number {digits:.40} is not finite')
  return value
