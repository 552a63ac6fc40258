"""Writes files and directories atomically, and locks directories."""
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

from mentormix import file_kinds
from mentormix.messages import UserError

LOCK_FILE = '.lock'
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO,
                errno.EACCES, errno.EPERM, errno.EFBIG, errno.EMFILE,
                errno.ENFILE, errno.ENOMEM)
_MAX_JSON = 4 << 20  # Bytes.
_PATIENCE_SECS = 3  # A killed process releases its lock a little later.


def writable_directory(path, flag):
  """Makes the directory `path` if it is missing, and tries to write there.

  Raises:
    UserError: it cannot be written; the line names `flag`.
  """
  try:
    os.makedirs(path, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
  except OSError as error:
    raise UserError(f'--{flag}={path} cannot be written: {error.strerror}')


@contextlib.contextmanager
def replaced(path, mode='w'):
  """Yields an open file that replaces `path` once the block succeeds.

  `path` is either as before or as written, even if the power fails.

  Args:
    path: of a file, which may exist.
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
    for chunk in iter(lambda: f.read(1 << 20), b''):
      digest.update(chunk)
  return digest.hexdigest()


def write_json(path, value, indent=2):
  """Writes a value as JSON with sorted keys, atomically."""
  with replaced(path) as f:
    json.dump(value, f, indent=indent, sort_keys=True)
    f.write('\n')


def contents(path, most):
  """What is in a file, bytes; ValueError if it is more than `most` bytes."""
  with open(path, 'rb') as f:
    data = f.read(most + 1)
  if len(data) > most:
    raise ValueError(f'it has more than {most >> 20} MiB')
  return data


@contextlib.contextmanager
def only_writer(directory, flag):
  """Locks a directory for this process while the block runs.

  The system releases the lock when the process ends, however it ends.

  Args:
    directory: an existing one.
    flag: the flag that names it.

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
              f'--{flag}={directory} is in use by '
              f'{holder(directory) or "another process"}; stop that, or name '
              'another directory')
        time.sleep(0.1)
      except OSError:  # A file system without locks.
        break
    note = (f'process {os.getpid()} on {socket.gethostname()} since '
            f'{time.strftime("%Y-%m-%d %H:%M:%S")}\n')
    with contextlib.suppress(OSError):  # The lock holds on a full disk, too.
      os.ftruncate(f.fileno(), 0)
      os.write(f.fileno(), note.encode())
    yield


def is_about_disk(text):
  """Whether an error message is about the disk or the system, not a file."""
  return any(os.strerror(number) in text for number in _DISK_ERRORS)


def holder(directory):
  """The process that has locked a directory by `only_writer`, or None.

  Returns:
    As in 'process 7 on a-host since 2020-07-13 12:00:00'.
  """
  try:
    with open(os.path.join(directory, LOCK_FILE)) as f:
      try:
        fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
      except BlockingIOError:
        return f.read().strip() or 'another process'
  except OSError:  # It was never locked, or the file system has no locks.
    pass
  return None


def check_output(path, own, overwrite):
  """Checks that an --output_dir may and can be replaced.

  Args:
    path: the directory that `new_directory` is to write.
    own: names of the files that an earlier run may have left in it.
    overwrite: whether these may be replaced.

  Raises:
    UserError: the line names the flag that helps.
  """
  if os.path.isdir(path):
    held = set(os.listdir(path))
    if held - own:
      raise UserError(f'--output_dir={path} holds other files '
                      f'({min(held - own)}); name another directory')
    if held and not overwrite:
      raise UserError(f'--output_dir={path} already exists; add --overwrite to '
                      'replace it')
  elif os.path.lexists(path):
    raise UserError(f'--output_dir={path} is not a directory')
  writable_directory(os.path.dirname(os.path.realpath(path)), 'output_dir')


@contextlib.contextmanager
def new_directory(path):
  """Yields a hidden directory that becomes `path` once the block succeeds.

  What was at `path` is replaced only then. If the block fails, nothing is left.
  """
  path = os.path.realpath(path)  # A link stays one.
  parent, name = os.path.split(path)
  suffix = f'{os.getpid()}-{os.urandom(4).hex()}'
  temporary = os.path.join(parent, f'.{name}.tmp-{suffix}')
  previous = os.path.join(parent, f'.{name}.old-{suffix}')
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


def read_object(path, what):
  """Reads a JSON file that holds an object.

  Args:
    path: of the file.
    what: the object is, for the error message.

  Returns:
    A dict; None if there is no file.

  Raises:
    UserError: the file holds something else.
  """
  if not os.path.isfile(path):
    return None
  try:
    found = json.loads(contents(path, _MAX_JSON).decode('utf-8'))
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f'{path} cannot be read{file_kinds.explain(path)}: {error}')
  if not isinstance(found, dict):
    raise UserError(f'{path} does not hold {what}')
  return found
