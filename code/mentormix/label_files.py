"""The labels of a training set as a file of their own, in and out.

Written beside every training set, in the order of its source, which is not that
of the records:

    labels.json   [6, 9, 9, 4, ...]: the labels given, as DivideMix writes them
    labels.csv    index,label,clean_label,source_id: one line for each image

Read, told apart by what is in them:

    JSON          such a list, or lists by key
    CSV           the columns index and label, in any order; without a header,
                  just these two
    .npz, .npy    numpy arrays: by key, just one, or one dictionary (CIFAR-N)
    .pt           a dictionary of arrays or tensors, from torch.save (CIFAR-N)

Nothing is unpickled: see pickles.py.
"""
import collections
import csv
import hashlib
import io
import itertools
import json
import os
import re
import zipfile

import numpy as np

from mentormix import arrays
from mentormix import noise
from mentormix import pickles
from mentormix.command import UserError

JSON_FILE = 'labels.json'
CSV_FILE = 'labels.csv'
COLUMNS = ('index', 'label', 'clean_label', 'source_id')

_MAX_BYTES = 32 << 20  # Of a file, and of what it unpacks to.
_MAX_MEMBERS = 1000  # Of a .npz or .pt.
_MAX_DIGITS = 9
_TORCH_MAGIC = 0x1950a86a20f9469cfc6c  # Opens what torch saved before 1.6.

# Labels whose order is wrong are independent of the images: their chi-square is
# within a few standard deviations of that of chance. With fewer images, really
# noisy labels can be so, too, and the order is taken on trust.
_INDEPENDENT = 6
_ENOUGH = 1000


class LabelFile(collections.namedtuple(
    'LabelFile', 'path md5 key labels clean index')):
  """What a label file holds.

  Attributes:
    path: of the file.
    md5: its checksum.
    key: what the labels are called, as the user has it; None without keys.
    labels: int64 [N].
    clean: int64 [N], the true labels, in the same order; None if not there.
    index: int64 [N], how this order goes with that of the source; None if they
      are the same.
  """
  __slots__ = ()


def write(directory, given, clean, ids):
  """Writes labels.json and labels.csv.

  Args:
    directory: where they go.
    given: the labels given, int64 [N].
    clean: the true labels, int64 [N]; None where they are not known.
    ids: N strings, which image each is.
  """
  with open(os.path.join(directory, JSON_FILE), 'w') as stream:
    json.dump(given.tolist(), stream)
    stream.write('\n')
  with open(os.path.join(directory, CSV_FILE), 'w', encoding='utf-8',
            newline='') as stream:
    rows = csv.writer(stream, lineterminator='\n')
    rows.writerow(COLUMNS)
    rows.writerows(zip(itertools.count(), given,
                       itertools.repeat('') if clean is None else clean, ids))


def read(path, key=None, index_path=None):
  """Reads a label file.

  Args:
    path: of the file.
    key: which of its labels; None for a file without keys. `worse` also finds
      `worse_label`, and `random1` finds `random_label1`.
    index_path: of the file with `LabelFile.index`, if any.

  Returns:
    A `LabelFile`. How it fits the images is for `fit` to say.

  Raises:
    UserError: a file or the key is not there, or does not hold labels.
  """
  flag = '--noise_file=' + path
  data = _contents(path, flag)
  entries = _parse(data, flag)
  clean = None
  if isinstance(entries, dict):
    name = _find(entries, key, flag)
    for clean_name in ('clean', 'clean_label'):
      if clean_name in entries:
        clean = _integers(entries[clean_name], '%s, %s' % (flag, clean_name))
    labels = _integers(entries[name], '%s, %s' % (flag, name))
  elif key is not None:
    raise UserError('%s has no keys; leave out --noise_key=%s' % (flag, key))
  else:
    labels = _integers(entries, flag)
  index = None
  if index_path is not None:
    flag = '--noise_index=' + index_path
    index = _integers(_parse(_contents(index_path, flag), flag), flag)
  return LabelFile(path, hashlib.md5(data).hexdigest(), key, labels, clean,
                   index)


def fit(label_file, source_labels, num_classes):
  """The labels of a file in the order of the images, once they are seen to fit.

  Args:
    label_file: a `LabelFile`.
    source_labels: the labels that came with the images, int64 [N].
    num_classes: K.

  Returns:
    int64 [N].

  Raises:
    UserError: there are more or fewer labels than images, one is out of range,
      or their order is another.
  """
  flag = '--noise_file=' + label_file.path
  count = len(source_labels)
  for labels in (label_file.labels, label_file.clean):
    if labels is None:
      continue
    if len(labels) != count:
      raise UserError('%s holds %d labels; there are %d training images, and '
                      'each needs one' % (flag, len(labels), count))
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if bad.size:
      raise UserError('%s: entry %d, counted from 0, is %d; the %d classes are '
                      '0 to %d' % (flag, bad[0], labels[bad[0]], num_classes,
                                   num_classes - 1))
  if label_file.index is not None:
    return _reorder(label_file, source_labels)
  if label_file.clean is not None:
    wrong = int(np.sum(label_file.clean != source_labels))
    if wrong:
      raise UserError(
          '%s: %d of its %d clean labels are not those of the images: its '
          'order is not that of the archive or folder; is it in TFDS order? '
          'Then pass --noise_index' % (flag, wrong, count))
  elif (count >= _ENOUGH and noise.association(
      source_labels, label_file.labels) < _INDEPENDENT):
    agree = 1 - noise.realised_rate(source_labels, label_file.labels)
    raise UserError(
        '%s: the labels have nothing to do with the images (%.1f%% agree, as '
        'by chance): the order is not that of the archive or folder'
        % (flag, 100 * agree))
  return label_file.labels


def _reorder(label_file, source_labels):
  """The labels in the order of the source; the clean ones say which way."""
  flag = '--noise_file=' + label_file.path
  index, count = label_file.index, len(source_labels)
  if label_file.clean is None:
    raise UserError('%s has no clean labels, which would say how '
                    '--noise_index is meant; put the labels in order and leave '
                    'it out' % flag)
  if len(index) != count:
    raise UserError('--noise_index holds %d numbers; there are %d training '
                    'images' % (len(index), count))
  if not np.array_equal(np.sort(index), np.arange(count)):
    raise UserError('--noise_index does not hold each number from 0 to %d once'
                    % (count - 1))
  ways = (np.argsort(index), index)  # ordered[i] = source[index[i]]; or back.
  wrong = [int(np.sum(label_file.clean[way] != source_labels)) for way in ways]
  if min(wrong):
    raise UserError(
        '%s: with --noise_index, %d of its %d clean labels are not those of '
        'the images; is it the index of this file?'
        % (flag, min(wrong), count))
  found, other = (label_file.labels[ways[i]] for i in np.argsort(wrong))
  if not max(wrong) and not np.array_equal(found, other):
    raise UserError('%s: the clean labels fit --noise_index both ways, so '
                    'which one is meant is unknown; put the labels in order '
                    'and leave it out' % flag)
  return found


# What is in a file.


def _contents(path, flag):
  try:
    if not os.path.isfile(path):
      raise UserError('%s is not a file' % flag)
    if os.path.getsize(path) > _MAX_BYTES:
      raise UserError('%s has more than %d MiB; that is no label file'
                      % (flag, _MAX_BYTES >> 20))
    with open(path, 'rb') as stream:
      return stream.read()
  except OSError as error:
    raise UserError('%s cannot be read (%s)' % (flag, error.strerror))


def _parse(data, flag):
  """What a file holds: a list or array, or a dictionary of them by key."""
  try:
    if data.startswith(b'PK'):
      return _from_zip(data)
    if data.startswith(np.lib.format.MAGIC_PREFIX):
      return _from_npy(data)
    if data.startswith(b'\x80'):
      return _from_pickle(data)
    text = data.decode('utf-8-sig')
    return (_from_json(text) if text.lstrip()[:1] in ('[', '{')
            else _from_csv(text))
  except Exception as error:  # The bytes are a stranger's: anything may fail.
    raise UserError('%s cannot be read as labels: %.200s'
                    % (flag, str(error) or type(error).__name__))


def _from_json(text):
  # A number of a million digits would take hours; as a string it is refused.
  return json.loads(text, parse_int=lambda digits: (
      int(digits) if len(digits) <= _MAX_DIGITS else digits))


def _from_csv(text):
  rows = csv.reader(io.StringIO(text, newline=''), strict=True)
  columns = [0, 1]
  labels, lines = {}, {}
  for row in rows:
    if not row:
      continue
    here = 'line %d' % rows.line_num
    if not lines and 'label' in row:
      if 'index' not in row:
        raise ValueError('%s names a column label, but none index' % here)
      columns = [row.index('index'), row.index('label')]
      continue
    fields = [row[c].strip() if c < len(row) else '' for c in columns]
    for name, field in zip(COLUMNS, fields):
      if not re.match(r'[0-9]{1,%d}$' % _MAX_DIGITS, field):
        raise ValueError('%s has %s %.40r, not a whole number' % (
            here, name, field))
    index = int(fields[0])
    if index in lines:
      raise ValueError('%s has index %d, as line %d does'
                       % (here, index, lines[index]))
    lines[index] = rows.line_num
    labels[index] = int(fields[1])
  for index in sorted(lines)[-1:]:
    if index >= len(lines):
      raise ValueError('line %d has index %d; with %d labels the indices are 0 '
                       'to %d' % (lines[index], index, len(lines),
                                  len(lines) - 1))
  return [labels[index] for index in range(len(labels))]


def _from_npy(data):
  """An array, or the dictionary inside an array of objects."""
  head = arrays.header(data)
  data = data[head.start:]
  if head.dtype.hasobject:
    return _vectors(pickles.array(pickles.Reader(data).read()))
  return arrays.elements(data, head)


def _from_zip(data):
  """The arrays of an .npz by key, or what torch saved."""
  if data.count(b'PK\x01\x02') > _MAX_MEMBERS:
    raise ValueError('it has more than %d members' % _MAX_MEMBERS)
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    infos = archive.infolist()
    if sum(info.file_size for info in infos) > _MAX_BYTES:
      raise ValueError('it holds more than %d MiB' % (_MAX_BYTES >> 20))
    if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
           for info in infos):
      raise ValueError('it is compressed in an unusual way')
    members = {info.filename: _unpack(archive, info) for info in infos}
  for name in members:
    if os.path.basename(name) == 'data.pkl':
      folder = os.path.join(os.path.dirname(name), 'data', '')
      storages = {other[len(folder):]: content
                  for other, content in members.items()
                  if other.startswith(folder)}
      return _vectors(pickles.Reader(members[name]).read(), storages)
  return {name[:-len(arrays.ENDING)]: _from_npy(content)
          for name, content in members.items() if name.endswith(arrays.ENDING)}


def _unpack(archive, info):
  """The content of a member; without its size, zipfile would unpack more."""
  with archive.open(info) as stream:
    return stream.read(info.file_size)


def _from_pickle(data):
  """What a plain pickle holds, or what torch saved before 1.6."""
  reader = pickles.Reader(data)
  content = reader.read()
  if content == _TORCH_MAGIC:
    reader.read()  # Of which version,
    reader.read()  # and on what machine it was saved.
    content = reader.read()
  return _vectors(content)


def _vectors(content, storages=None):
  """What a pickle holds, with its arrays and tensors in place of requests."""
  if isinstance(content, dict):
    return {key.decode('latin1') if isinstance(key, bytes) else key:
            _vectors(value, storages) for key, value in content.items()
            if not isinstance(value, dict)}
  if isinstance(content, pickles.Request):
    found = pickles.array(content)
    return pickles.tensor(content, storages or {}) if found is None else found
  return content


def _integers(values, what):
  """Labels as int64 [N]."""
  if isinstance(values, np.ndarray):
    if values.dtype.kind not in 'iu' or values.ndim != 1:
      raise UserError('%s: %s %s instead of one row of integers'
                      % (what, values.dtype, list(values.shape)))
    return values.astype(np.int64)
  if not isinstance(values, list):
    raise UserError('%s: not a row of integers' % what)
  for position, value in enumerate(values):
    # A bool is an int, but not a label.
    if type(value) is not int or abs(value) >= 10 ** _MAX_DIGITS:  # pylint: disable=unidiomatic-typecheck
      # Of a nested value even the text may be without bounds.
      simple = isinstance(value, (int, float, str, type(None)))
      raise UserError('%s: entry %d, counted from 0, is %.40r, not a label' % (
          what, position, value if simple else type(value).__name__))
  return np.array(values, np.int64)


def _find(entries, key, flag):
  """The name among `entries` that the user means by `key`."""
  names = sorted(entries)
  if key is None and len(names) == 1:
    return names[0]
  for same in (lambda name: name == key,
               lambda name: key is not None and _short(name) == _short(key)):
    for name in names:
      if same(name):
        return name
  raise UserError('%s %s; it has the keys %s; name one with --noise_key' % (
      flag, 'holds more than one set of labels' if key is None
      else 'has no --noise_key=' + key,
      ', '.join(('%.40r' % name)[1:-1] for name in names[:20]) or 'none'))


def _short(name):
  return name.replace('_label', '')
