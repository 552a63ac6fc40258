"""Tests of label files: what is read, and what each slip is called."""
import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from mentormix import label_files
from mentormix.command import UserError

N = 2000
RANDOM = np.random.RandomState(0)
CLEAN = RANDOM.randint(0, 10, N)
WORSE = np.where(RANDOM.rand(N) < 0.6, CLEAN, RANDOM.randint(0, 10, N))
INDEX = RANDOM.permutation(N)
ENTRIES = {'clean_label': CLEAN, 'worse_label': WORSE,
           'random_label1': WORSE[::-1].copy()}


@pytest.fixture(name='put')
def fixture_put(tmp_path):
  """Writes a file and returns its path."""
  def put(data, name='file'):
    path = tmp_path / name
    path.write_bytes(data.encode('utf-8') if isinstance(data, str) else data)
    return str(path)
  return put


def saved(value, save=np.save, **kwargs):
  stream = io.BytesIO()
  save(stream, *([] if value is None else [value]), **kwargs)
  return stream.getvalue()


def csv_text(order, header='index,label\n', extra=''):
  return header + ''.join('%d,%d%s\n' % (i, WORSE[i], extra) for i in order)


def torch_zip(pickled, storages=()):
  """What torch.save writes since 1.6, around a pickle."""
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w') as archive:
    archive.writestr('name/data.pkl', pickled)
    archive.writestr('name/byteorder', 'little')
    for key, content in storages:
      archive.writestr('name/data/' + key, content)
    archive.writestr('name/version', '3\n')
  return stream.getvalue()


def torch_legacy(value):
  """What torch.save wrote before 1.6, for a value without tensors."""
  return b''.join(pickle.dumps(part, protocol=2) for part in (
      0x1950a86a20f9469cfc6c, 1001,
      {'protocol_version': 1001, 'little_endian': True,
       'type_sizes': {'short': 2, 'int': 4, 'long': 4}}, value, []))


def tensor_pickle(sizes):
  """A dictionary of torch tensors; their storages are called 0, 1, ..."""
  text = lambda x: b'X' + struct.pack('<I', len(x)) + x.encode('ascii')
  pickled = b'\x80\x02}('
  for key, (name, size) in enumerate(sorted(sizes.items())):
    pickled += (
        text(name) + b'ctorch._utils\n_rebuild_tensor_v2\n((' + text('storage')
        + b'ctorch\nLongStorage\n' + text(str(key)) + text('cpu')
        + b'J' + struct.pack('<i', size) + b'tQK\x00J' + struct.pack('<i', size)
        + b'\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR')
  return pickled + b'u.'


def tensor_file(entries):
  names = sorted(entries)
  return torch_zip(
      tensor_pickle({name: len(entries[name]) for name in names}),
      [(str(key), entries[name].astype('<i8').tobytes())
       for key, name in enumerate(names)])


# Written and read.


@pytest.mark.parametrize('known', [True, False])
def test_written_files_read_back(tmp_path, known):
  ids = ['train/a,b/%d.png' % i for i in range(N)]
  label_files.write(str(tmp_path), WORSE, CLEAN if known else None, ids)
  assert json.loads((tmp_path / 'labels.json').read_text()) == WORSE.tolist()
  lines = (tmp_path / 'labels.csv').read_bytes().decode('ascii').split('\n')
  assert lines[0] == 'index,label,clean_label,source_id'
  assert lines[2] == '1,%d,%s,"train/a,b/1.png"' % (
      WORSE[1], CLEAN[1] if known else '')
  assert len(lines) == N + 2
  for name in ('labels.json', 'labels.csv'):
    found = label_files.read(str(tmp_path / name))
    np.testing.assert_array_equal(found.labels, WORSE)
    assert found.key is found.clean is found.index is None
    np.testing.assert_array_equal(label_files.fit(found, CLEAN, 10), WORSE)


@pytest.mark.parametrize('data', [
    json.dumps(WORSE.tolist()), '\ufeff \n' + json.dumps(WORSE.tolist()),
    csv_text(INDEX), csv_text(INDEX, header=''), csv_text(range(N), extra=',x'),
    csv_text(INDEX, header='index,label,note\r\n', extra=',"a\nb"'),
    csv_text(INDEX).replace('\n', '\r\n'), '\n' + csv_text(INDEX) + '\n\n',
    saved(WORSE), saved(WORSE.astype(np.uint8)), saved(WORSE.astype('>i4')),
    pickle.dumps(WORSE.tolist(), protocol=2)])
def test_labels_without_keys(put, data):
  found = label_files.read(put(data))
  np.testing.assert_array_equal(found.labels, WORSE)
  assert found.labels.dtype == np.int64 and found.clean is None
  with pytest.raises(UserError, match='has no keys.*--noise_key=worse'):
    label_files.read(put(data), 'worse')


KEYED = {
    'json': json.dumps({name: x.tolist() for name, x in ENTRIES.items()}),
    'npz': saved(None, np.savez, **ENTRIES),
    'npz compressed': saved(None, np.savez_compressed, **ENTRIES),
    'npy': saved(ENTRIES),
    'torch': torch_zip(pickle.dumps(ENTRIES, protocol=2)),
    'torch tensors': tensor_file(ENTRIES),
    'torch legacy': torch_legacy(ENTRIES),
    'pickle': pickle.dumps(ENTRIES, protocol=4)}


@pytest.mark.parametrize('kind', sorted(KEYED))
def test_labels_by_key(put, kind):
  path = put(KEYED[kind])
  for key, name in (('worse', 'worse_label'), ('worse_label', 'worse_label'),
                    ('random1', 'random_label1'), ('clean', 'clean_label')):
    found = label_files.read(path, key)
    np.testing.assert_array_equal(found.labels, ENTRIES[name])
    np.testing.assert_array_equal(found.clean, CLEAN)
    assert found.key == key
  for key in (None, 'best'):
    with pytest.raises(UserError, match='clean_label, random_label1, '
                       'worse_label; name one with --noise_key'):
      label_files.read(path, key)


def test_an_exact_key_goes_first(put):
  path = put(json.dumps({'worse': [1], 'worse_label': [2]}))
  assert label_files.read(path, 'worse').labels.tolist() == [1]
  assert label_files.read(path, 'worse_label').labels.tolist() == [2]


# What does not hold labels.


@pytest.mark.parametrize('data, words', [
    ('[1, 2.5]', 'entry 1, counted from 0, is 2.5'),
    ('[1, true]', 'entry 1, counted from 0, is True'),
    ('[1, "2"]', "entry 1, counted from 0, is '2'"),
    ('[1, null]', 'entry 1.*None'), ('[[1]]', 'entry 0'), ('[NaN]', 'nan'),
    ('[' + '9' * 100000 + ']', 'entry 0.*999'), ('[1, 2', 'as labels'),
    ('[' * 100000, 'as labels'), ('{"a": 1}', 'a: not a row of integers'),
    ('{"a": [1], "b": [1]}', 'holds more than one set'),
    (b'\x80\x02]K\x00\x85' + b'q\x00h\x00\x86' * 60 + b'a.',
     'entry 0, counted from 0, is .tuple., not a label'),
    ('index,label\n0,1\n1,x\n', "line 3 has label 'x'"),
    ('index,label\n0,1\n1,True\n', "line 3 has label 'True'"),
    ('index,label\n0,1\n1,-1\n', "line 3 has label '-1'"),
    ('index,label\n0,1\n1,1.0\n', "line 3 has label '1.0'"),
    ('index,label\n0,1\n1\n', "line 3 has label ''"),
    ('index,label\n0,1\n1,1\n0,1\n', 'line 4 has index 0, as line 2 does'),
    ('index,label\n0,1\n2,1\n', 'line 3 has index 2; with 2 labels'),
    ('0,1\n0,2\n', 'line 2 has index 0, as line 1 does'),
    ('id,label\n0,1\n', 'names a column label, but none index'),
    ('hello\n', "line 1 has index 'hello'"), ('0,%s\n' % ('9' * 10), '999'),
    (b'\xff\xfe', 'as labels'), (b'\x89PNG', 'as labels'),
    (saved(np.zeros(3)), 'float64'), (saved(np.zeros(3, bool)), 'bool'),
    (saved(np.zeros([3, 1], int)), r'int64 \[3, 1\]'),
    (saved(np.array([1, 2], object)), 'not a row of integers'),
    (saved(np.arange(9))[:-1], 'as labels'), (b'PK\x03\x04', 'as labels'),
    (pickle.dumps(WORSE, protocol=2)[:-9], 'ends too early'),
    (pickle.dumps(1.5, protocol=2), 'instruction')])
def test_odd_files(put, data, words):
  with pytest.raises(UserError, match=words) as caught:
    label_files.read(put(data))
  assert '--noise_file=' in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize('value, words', [
    ([0, 1.5], 'entry 1'), (np.zeros(3), 'float64'), ({}, 'row of integers'),
    ('abc', 'not a row'), (None, 'not a row'), (3, 'not a row')])
def test_odd_entries(put, value, words):
  path = put(saved(None, np.savez, x=value) if isinstance(value, np.ndarray)
             else json.dumps({'x': value}))
  with pytest.raises(UserError, match=', x: .*' + words):
    label_files.read(path, 'x')


def test_missing_files(put, tmp_path):
  for path in (str(tmp_path / 'none'), str(tmp_path)):
    with pytest.raises(UserError, match='--noise_file=.* is not a file'):
      label_files.read(path)
    with pytest.raises(UserError, match='--noise_index=.* is not a file'):
      label_files.read(put('[1]'), None, path)


class Call(object):
  """Pickles to a call of os.system."""

  def __init__(self, command):
    self._command = command

  def __reduce__(self):
    return os.system, (self._command,)


@pytest.mark.parametrize('wrap', [
    lambda x: x, torch_zip, lambda x: torch_legacy(0)[:-11] + x,
    lambda x: saved(np.array({}))[:128] + x])
def test_malicious_files_do_not_run(put, tmp_path, wrap):
  trace = str(tmp_path / 'ran')
  attack = pickle.dumps({'worse': Call('touch ' + trace)}, protocol=2)
  for key in (None, 'worse'):
    with pytest.raises(UserError, match='system, which is refused|as labels'):
      label_files.read(put(wrap(attack)), key)
  with pytest.raises(UserError):
    label_files.read(put('[1]'), None, put(wrap(attack), 'index'))
  assert not os.path.exists(trace)
  pickle.loads(attack)  # It would run elsewhere.
  assert os.path.exists(trace)


def test_sizes_are_bounded(put, monkeypatch):
  bomb = io.BytesIO()
  with zipfile.ZipFile(bomb, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('x.npy', b'0' * 200000)
  monkeypatch.setattr(label_files, '_MAX_BYTES', 100000)
  with pytest.raises(UserError, match='holds more than'):
    label_files.read(put(bomb.getvalue()), 'x')
  with pytest.raises(UserError, match='that is no label file'):
    label_files.read(put(b' ' * 100001))


def test_a_member_unpacks_to_no_more_than_it_says(put):
  bomb = io.BytesIO()
  with zipfile.ZipFile(bomb, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('x.npy', b'0' * (30 << 20))
  size = struct.pack('<I', 30 << 20)
  path = put(bomb.getvalue().replace(size, struct.pack('<I', 100)))
  tracemalloc.start()
  with pytest.raises(UserError, match='as labels'):
    label_files.read(path, 'x')
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 3 << 20


def test_a_long_table_of_contents(put):
  with pytest.raises(UserError, match='more than 1000 members'):
    label_files.read(put(b'PK\x01\x02' * 1001))


def test_a_header_that_nests(put):
  header = b'-' * 60000 + b'1\n'
  with pytest.raises(UserError, match='header is not that of a plain array'):
    label_files.read(put(b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header))
                         + header))


@pytest.mark.parametrize('method', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unbounded_compression_is_refused(put, method):
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w', method) as archive:
    archive.writestr('x.npy', saved(WORSE))
  with pytest.raises(UserError, match='unusual'):
    label_files.read(put(stream.getvalue()), 'x')


@pytest.mark.parametrize('kind', sorted(KEYED))
def test_damage_is_found_or_harmless(put, kind):
  small = {name: x[:20] for name, x in ENTRIES.items()}
  data = {'json': lambda: json.dumps({n: x.tolist() for n, x in small.items()}
                                    ).encode('ascii'),
          'npz': lambda: saved(None, np.savez, **small),
          'npz compressed': lambda: saved(None, np.savez_compressed, **small),
          'npy': lambda: saved(small),
          'torch': lambda: torch_zip(pickle.dumps(small, protocol=2)),
          'torch tensors': lambda: tensor_file(small),
          'torch legacy': lambda: torch_legacy(small),
          'pickle': lambda: pickle.dumps(small, protocol=4)}[kind]()
  random = np.random.RandomState(0)
  for position in random.randint(0, len(data), 60):
    for damaged in (data[:position],
                    data[:position] + random.bytes(1) + data[position + 1:]):
      try:
        label_files.read(put(damaged), 'worse')
      except UserError:
        pass


# Whether they fit.


def label_file(labels, clean=None, index=None):
  return label_files.LabelFile('f', '', None, np.asarray(labels), clean, index)


def test_clean_labels_vouch_for_the_order():
  assert label_files.fit(label_file(WORSE, CLEAN), CLEAN, 10) is not None
  with pytest.raises(UserError, match='%d of its 2000.*TFDS.*--noise_index'
                     % np.sum(CLEAN[INDEX] != CLEAN)):
    label_files.fit(label_file(WORSE[INDEX], CLEAN[INDEX]), CLEAN, 10)


@pytest.mark.parametrize('order', [INDEX, np.argsort(INDEX)])
def test_the_index_is_taken_the_way_that_fits(order):
  found = label_files.fit(
      label_file(WORSE[order], CLEAN[order], INDEX), CLEAN, 10)
  np.testing.assert_array_equal(found, WORSE)


def test_index_and_file_are_read_together(put):
  found = label_files.read(
      put(saved({name: x[INDEX] for name, x in ENTRIES.items()}), 'a'), 'worse',
      put(saved(INDEX), 'b'))
  np.testing.assert_array_equal(label_files.fit(found, CLEAN, 10), WORSE)


@pytest.mark.parametrize('clean, index, words', [
    (CLEAN[::-1], INDEX, 'is it the index of this file'),
    (CLEAN[INDEX], INDEX[1:], '1999 numbers'),
    (CLEAN[INDEX], np.zeros(N, int), 'each number from 0 to 1999 once'),
    (CLEAN[INDEX], INDEX + 1, 'each number from 0 to 1999 once'),
    (None, INDEX, 'no clean labels')])
def test_odd_indices(clean, index, words):
  with pytest.raises(UserError, match=words):
    label_files.fit(label_file(WORSE, clean, index), CLEAN, 10)


def test_an_index_that_fits_both_ways():
  clean, index = np.zeros(3, int), np.array([1, 2, 0])
  with pytest.raises(UserError, match='both ways'):
    label_files.fit(label_file([0, 1, 2], clean, index), clean, 3)
  found = label_files.fit(label_file([1, 1, 1], clean, index), clean, 3)
  assert found.tolist() == [1, 1, 1]


def test_without_clean_labels_chance_is_found_out():
  for labels in (WORSE[INDEX], np.zeros(N, int), RANDOM.randint(0, 10, N)):
    with pytest.raises(UserError, match=r'nothing to do with the images '
                       r'\(\d+.\d% agree'):
      label_files.fit(label_file(labels), CLEAN, 10)
  very_noisy = np.where(RANDOM.rand(N) < 0.3, CLEAN, RANDOM.randint(0, 10, N))
  for labels in (WORSE, very_noisy, (CLEAN + 1) % 10, CLEAN):
    assert label_files.fit(label_file(labels), CLEAN, 10) is labels


def test_few_labels_are_taken_on_trust():
  assert len(label_files.fit(label_file([0, 1, 1, 0]), np.array([0, 1, 0, 1]),
                             2)) == 4


@pytest.mark.parametrize('change, words', [
    (lambda x: x[:-1], '1999 labels; there are 2000'),
    (lambda x: np.append(x, 0), '2001 labels; there are 2000'),
    (lambda x: np.where(np.arange(N) == 7, 10, x), 'entry 7.* is 10; .*0 to 9'),
    (lambda x: np.where(np.arange(N) == 8, -1, x), 'entry 8.* is -1')])
def test_labels_that_do_not_fit(change, words):
  for labels, clean in ((change(WORSE), None), (change(WORSE), CLEAN),
                        (WORSE, change(CLEAN))):
    with pytest.raises(UserError, match=words):
      label_files.fit(label_file(labels, clean), CLEAN, 10)
