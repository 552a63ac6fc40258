"""Finds an archive on disk, or downloads it."""
import errno
import os
import time
import typing
import urllib.parse

import tqdm

from mentormix.data import cifar_archive
from mentormix.data import digits
from mentormix import files
from mentormix.messages import RunError
from mentormix.messages import UserError

_MAX_NAME = 240  # File systems take 255 bytes; `files.replaced` adds some.
_TIMEOUT = 30  # Seconds without a byte.


def check_file(path):
  """Raises UserError unless `path` is a file that can be read."""
  if not os.path.exists(path):
    raise UserError(f'--archive={path} does not exist; leave --archive out to '
                    'download the official archive')
  if not os.path.isfile(path):
    raise UserError(f'--archive={path} is not a file; pass the .tar.gz archive '
                    'as it was downloaded')
  if not os.access(path, os.R_OK):
    raise UserError(f'--archive={path} is not readable; change its permissions')


# Finding and downloading archives.


class Source(typing.NamedTuple):
  """Where the images come from."""
  path: str  # Of the file.
  md5: str  # Of the file.
  url: typing.Optional[str]  # To download it from; None if it is there.


def locate(dataset_name, archive, md5, directory):
  """Finds where the images come from; downloads nothing.

  Args:
    dataset_name: a key of NUM_CLASSES.
    archive: a file or a URL; None for the official URL.
    md5: the checksum that the file must have; None for the official one, which
      only a local file may differ from.
    directory: where downloads go.

  Returns:
    A `Source`.

  Raises:
    UserError: the file or the URL is bad, or the checksum is wrong.
  """
  if dataset_name == 'digits':
    return Source(digits.digits_path(), files.md5_of(digits.digits_path()), None)
  official = cifar_archive.OFFICIAL[dataset_name]
  archive = archive or official.url
  if '://' not in archive:
    return _local(archive, md5, official)

  try:
    url = urllib.parse.urlparse(archive)
    name = os.path.basename(url.path)
    valid = url.scheme in ('http', 'https') and url.netloc and name
  except ValueError:
    valid = False
  if not valid:
    raise UserError(f'--archive={archive} is neither a file nor the http or '
                    'https URL of a file')
  if len(os.fsencode(name)) > _MAX_NAME:
    raise UserError(f'--archive={archive} names a file of more than '
                    f'{_MAX_NAME} bytes; get it elsewhere and pass the file')
  path = os.path.join(directory, name)
  md5 = md5 or official.md5
  if not os.path.exists(path):
    return Source(path, md5, archive)
  check_file(path)
  found = files.md5_of(path)
  if found != md5:
    raise UserError(f'{path} exists but has md5 {found} instead of {md5}; '
                    'delete it to download it again, or pass '
                    f'--archive={path} to use it as it is')
  print(f'Using {path}')
  return Source(path, md5, None)


def _local(path, md5, official):
  """The `Source` of a local file."""
  check_file(path)
  found = files.md5_of(path)
  if md5 and found != md5:
    raise UserError(f'--archive={path} has md5 {found}, not --md5={md5}; get '
                    'it again, or correct --md5')
  if not md5 and found != official.md5:
    print(f'Note: {path} is not the official archive (md5 {found} instead of '
          f'{official.md5})')
  return Source(path, found, None)


def download(url, path, md5, delays=(1, 2, 4, 8)):
  """Downloads `url` to `path`, which exists only once it is complete.

  Args:
    url: http or https.
    path: where the file goes; its directory is made if need be.
    md5: the checksum that the file must have.
    delays: seconds to wait before each further attempt.

  Raises:
    UserError: the server or the network fails every time, the file cannot be
      written, or the checksum is wrong.
    RunError: the disk is full.
  """
  from requests import exceptions  # pylint: disable=g-import-not-at-top
  print(f'Downloading {url} to {path}', flush=True)
  for delay in tuple(delays) + (None,):
    try:
      os.makedirs(os.path.dirname(path), exist_ok=True)
      return _fetch(url, path, md5)
    except exceptions.HTTPError as error:
      status = error.response.status_code
      problem = f'the server answers {status} {error.response.reason}'
      if 400 <= status < 500 and status not in (408, 429):
        break
    except (exceptions.RequestException, ValueError) as error:
      problem = error
      while problem.__context__:  # The others only say where it happened.
        problem = problem.__context__
    except OSError as error:
      if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise RunError(f'{path}: the disk is full; free some space and run the '
                       'command again')
      raise UserError(f'cannot write {path} ({error.strerror}); choose a '
                      'writable directory')
    if delay is not None:
      time.sleep(delay)
  raise UserError(f'cannot download {url} ({problem}); check the network, or '
                  'get the file elsewhere and pass it with --archive=FILE')


def _fetch(url, path, md5):
  """Downloads a file once.

  Raises:
    UserError: the checksum is wrong.
    OSError: the network (a RequestException) or the disk failed.
  """
  import pooch  # Slow to load.  pylint: disable=g-import-not-at-top
  with files.replaced(path, 'wb') as stream:
    # Without a total, a tqdm bar has no truth value; pooch sets the right one.
    with tqdm.tqdm(total=1, unit='B', unit_scale=True, disable=None,
                   desc=os.path.basename(path)) as bar:
      pooch.HTTPDownloader(
          progressbar=bar, chunk_size=1 << 16, timeout=_TIMEOUT,
          headers={'Accept-Encoding': 'identity'})(url, stream, None)
    found = files.md5_of(stream.name)
    if found != md5:
      raise UserError(
          f'{url} has md5 {found} instead of {md5} and was discarded; try '
          'again later, or get the file elsewhere and pass it with '
          '--archive=FILE')
