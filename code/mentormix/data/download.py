"""Finds an archive on disk, or downloads it."""
import os
import re
import sys
import typing

from mentormix import files
from mentormix.data import cifar_archive
from mentormix.data import digits
from mentormix.messages import UserError


class Source(typing.NamedTuple):
  """Where the images come from."""
  path: str  # Of the file.
  md5: str  # Of the file.
  url: typing.Optional[str] = None  # To download it from; None if it is there.


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
    return Source(digits.PATH, files.md5_of(digits.PATH))
  official = cifar_archive.OFFICIAL[dataset_name]
  archive = archive or official.url
  if '://' not in archive:
    found = _md5(archive)
    if md5 and found != md5:
      raise UserError(f'--archive={archive} has md5 {found}, not --md5={md5}; '
                      'get it again, or correct --md5')
    if not md5 and found != official.md5:
      print(f'Note: {archive} is not the official archive (md5 {found} instead '
            f'of {official.md5})')
    return Source(archive, found)
  match = re.match(r'https?://[^/]+/(?:[^?#]*/)?([^/?#]+)', archive)
  if not match:
    raise UserError(f'--archive={archive} is neither a file nor the http or '
                    'https URL of a file')
  path = os.path.join(directory, match.group(1))
  md5 = md5 or official.md5
  if not os.path.exists(path):
    return Source(path, md5, archive)
  found = _md5(path)
  if found != md5:
    raise UserError(f'{path} exists but has md5 {found} instead of {md5}; '
                    'delete it to download it again, or pass '
                    f'--archive={path} to use it as it is')
  print(f'Using {path}')
  return Source(path, md5)


def _md5(path):
  """The md5 of an archive; UserError if the file cannot be read."""
  try:
    return files.md5_of(path)
  except OSError as error:
    raise UserError(f'--archive={path} cannot be read ({error.strerror}); pass '
                    'a file, or leave --archive out to download the official')


def download(url, path, md5):
  """Downloads `url` to `path`, which exists only once it is complete.

  Args:
    url: http or https.
    path: where the file goes; its directory is made if need be.
    md5: the checksum that the file must have.

  Raises:
    UserError: the server or the network fails, or the checksum is wrong.
    OSError: the file cannot be written.
  """
  # Slow to load.
  import pooch
  import requests
  print(f'Downloading {url} to {path}', flush=True)
  os.makedirs(os.path.dirname(path), exist_ok=True)
  fetch = pooch.HTTPDownloader(
      progressbar=sys.stderr.isatty(), chunk_size=1 << 16,
      headers={'Accept-Encoding': 'identity'})
  elsewhere = 'or get the file elsewhere and pass it with --archive=FILE'
  with files.replaced(path, 'wb') as stream:
    try:
      fetch(url, stream, None)
    except requests.RequestException as error:
      raise UserError(f'cannot download {url} ({error}); try again '
                      f'{elsewhere}')
    stream.flush()
    found = files.md5_of(stream.name)
    if found != md5:
      raise UserError(f'{url} has md5 {found} instead of {md5} and was '
                      f'discarded; correct --md5, {elsewhere}')
