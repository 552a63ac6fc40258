"""Downloads the web images by their URLs, and lists those that are gone.

    <directory>/<id>.jpg       an image, whatever its format
    <directory>/missing.csv    id,url,reason of those that cannot be had

What is there is not downloaded again, and what a server says is gone not asked
for again, unless missing.csv is removed.
"""
import collections
import concurrent.futures
import contextlib
import csv
import hashlib
import os
import threading
import time

from mentormix import files
from mentormix import progress
from mentormix.data.photos import pictures
from mentormix.messages import log, UserError

FOLDER = 'noisy_images'  # Below --image_root; TFDS calls it so.
MISSING_FILE = 'missing.csv'
AT_ONCE = 16
_CONNECT_SECS, _READ_SECS, _WHOLE_SECS = 10, 20, 60
_MOST_BYTES = 50 << 20
_GONE = 'gone: '  # Begins a reason that will not change.
# So many ids with one picture: it says that the photograph was removed.
PLACEHOLDER = 5
_BROWSER = {'User-Agent': 'Mozilla/5.0 (compatible; mentormix)'}


def fetch(urls, directory, at_once=AT_ONCE):
  """Downloads images.

  Args:
    urls: id -> URL; '' if it is not known.
    directory: where they go.
    at_once: how many at a time.

  Raises:
    UserError: the directory cannot be written, or not one image can be had.
    OSError: the disk is full.
  """
  try:
    os.makedirs(directory, exist_ok=True)
  except OSError as error:
    raise UserError(f'--image_root: {directory} cannot be made '
                    f'({error.strerror})')
  with files.only_writer(directory, 'image_root'):
    missing = {name: reason for name, reason in _read_missing(directory).items()
               if reason.startswith(_GONE)}
    there = {os.path.splitext(name)[0] for name in os.listdir(directory)}
    wanted = [name for name in urls if name not in there | set(missing)]
    log(f'{len(urls)} web images: {len(there & set(urls))} are there, '
        f'{len(set(missing) & set(urls))} are gone, {len(wanted)} to fetch')
    try:
      _fetch_all(urls, wanted, directory, missing, at_once)
      _remove_placeholders(urls, directory, missing)
    finally:
      _write_missing(directory, urls, missing)
    log(f'{len(set(urls) - set(missing))} of {len(urls)} web images are there; '
        f'{os.path.join(directory, MISSING_FILE)} lists the others')


def _fetch_all(urls, wanted, directory, missing, at_once):
  """Downloads the wanted; adds those that fail to `missing`."""
  shown, done = progress.Progress(0, max(1, len(wanted)), 'image'), 0
  sessions = threading.local()
  with contextlib.ExitStack() as stack:
    pool = stack.enter_context(
        concurrent.futures.ThreadPoolExecutor(at_once))
    futures = {pool.submit(_fetch_one, sessions, urls[name], os.path.join(
        directory, f'{name}.jpg')): name for name in wanted}
    # Also Ctrl-C: those that have not begun are not waited for.
    stack.callback(lambda: [future.cancel() for future in futures])
    for future in concurrent.futures.as_completed(futures):
      reason = future.result()
      done += 1
      if reason:
        missing[futures[future]] = reason
      if shown.is_due():
        shown.show(done, missing=str(len(missing)))
      if done % 1000 == 0:  # For a run that is killed.
        _write_missing(directory, urls, missing)
  shown.close()


def _fetch_one(sessions, url, path):
  """Downloads an image; returns why it is missing, or None."""
  import requests  # Slow to load.
  if not url:
    return f'{_GONE}the annotations have no URL'
  if not hasattr(sessions, 'session'):
    sessions.session = requests.Session()
  try:
    with sessions.session.get(
        url, timeout=(_CONNECT_SECS, _READ_SECS), stream=True,
        headers=_BROWSER) as response:
      if not response.ok:
        is_final = response.status_code in (400, 401, 403, 404, 410, 451)
        return (f'{_GONE if is_final else ""}HTTP {response.status_code} '
                f'{response.reason}')
      data, until = bytearray(), time.time() + _WHOLE_SECS
      for chunk in response.iter_content(1 << 16):
        data += chunk
        if len(data) > _MOST_BYTES:
          return f'{_GONE}more than {_MOST_BYTES >> 20} MiB'
        if time.time() > until:
          return f'it takes more than {_WHOLE_SECS} s'
      length = response.headers.get('Content-Length', '')
      if (length.isdecimal() and 'Content-Encoding' not in response.headers
          and len(data) < int(length)):
        return 'the connection ended early'
  except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL,
          requests.exceptions.MissingSchema,
          requests.exceptions.TooManyRedirects) as error:
    return f'{_GONE}{type(error).__name__}'
  except (requests.RequestException, ValueError) as error:
    return type(error).__name__
  try:
    pictures.convert(bytes(data))
  except ValueError as error:
    return f'{_GONE}no image: {error}'
  with files.replaced(path, 'wb') as f:
    f.write(data)
  return None


def _remove_placeholders(urls, directory, missing):
  """Removes pictures that many ids have: they stand for removed ones."""
  same = collections.defaultdict(list)  # (size, checksum) -> names.
  for name in urls:
    path = os.path.join(directory, f'{name}.jpg')
    if os.path.isfile(path):
      same[os.path.getsize(path)].append(name)
  for names in same.values():
    if len(names) < PLACEHOLDER:
      continue
    contents = collections.defaultdict(list)
    for name in names:
      with open(os.path.join(directory, f'{name}.jpg'), 'rb') as f:
        contents[hashlib.md5(f.read()).digest()].append(name)
    for alike in contents.values():
      if len(alike) >= PLACEHOLDER:
        for name in alike:
          os.remove(os.path.join(directory, f'{name}.jpg'))
          missing[name] = (f'{_GONE}{len(alike)} URLs give this picture; it '
                           'stands for a removed one')


def _read_missing(directory):
  """Id -> reason, from missing.csv; {} if there is none."""
  try:
    with open(os.path.join(directory, MISSING_FILE), newline='',
              encoding='utf-8') as f:
      return {row['id']: row['reason'] or '' for row in csv.DictReader(f)}
  except FileNotFoundError:
    return {}
  except (ValueError, KeyError, csv.Error) as error:
    raise UserError(f'{os.path.join(directory, MISSING_FILE)} cannot be read '
                    f'({error}); remove it to ask for all images again')


def _write_missing(directory, urls, missing):
  with files.replaced(os.path.join(directory, MISSING_FILE)) as f:
    table = csv.writer(f, lineterminator='\n')
    table.writerow(['id', 'url', 'reason'])
    table.writerows((name, urls.get(name, ''), reason)
                    for name, reason in sorted(missing.items()))
