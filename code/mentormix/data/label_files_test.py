"""Tests of label files: what is read, and what each slip is called."""
import io
import json
import os
import pickle
import zipfile

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from mentormix.data import label_files
from mentormix.messages import UserError

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
  return header + ''.join(f'{i},{WORSE[i]}{extra}\n' for i in order)


def torch_zip(pickled):
  """What torch.save writes since 1.6, around a pickle."""
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w') as archive:
    archive.writestr('name/data.pkl', pickled)
    archive.writestr('name/byteorder', 'little')
    archive.writestr('name/version', '3\n')
  return stream.getvalue()


def torch_legacy(value):
  """What torch.save wrote before 1.6, for a value without tensors."""
  return b''.join(pickle.dumps(part, protocol=2) for part in (
      0x1950a86a20f9469cfc6c, 1001,
      {'protocol_version': 1001, 'little_endian': True,
       'type_sizes': {'short': 2, 'int': 4, 'long': 4}}, value, []))


# Written and read.


@pytest.mark.parametrize('known', [True, False])
def test_written_files_read_back(tmp_path, known):
  ids = [f'train/a,b/{i}.png' for i in range(N)]
  label_files.write(str(tmp_path), WORSE, CLEAN if known else None, ids)
  assert json.loads((tmp_path / 'labels.json').read_text()) == WORSE.tolist()
  lines = (tmp_path / 'labels.csv').read_bytes().decode('ascii').split('\n')
  assert lines[0] == 'index,label,clean_label,source_id'
  assert lines[2] == (
      f'1,{WORSE[1]},{CLEAN[1] if known else ""},"train/a,b/1.png"')
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
    saved(WORSE), saved(WORSE.astype(np.uint8)), saved(WORSE.astype('>i4'))])
def test_labels_without_keys(put, data):
  found = label_files.read(put(data))
  np.testing.assert_array_equal(found.labels, WORSE)
  assert found.labels.dtype == np.int64 and found.clean is None
  with pytest.raises(UserError, match='has no keys.*--noise_key=worse'):
    label_files.read(put(data), 'worse')


def keyed(entries):
  """Kind of file -> its bytes, for each kind that has keys."""
  lists = {name: x.tolist() for name, x in entries.items()}
  return {'json': json.dumps(lists).encode('ascii'),
          'npz': saved(None, np.savez, **entries),
          'npz compressed': saved(None, np.savez_compressed, **entries),
          'npy': saved(entries),
          'torch': torch_zip(pickle.dumps(entries, protocol=2)),
          'torch legacy': torch_legacy(entries)}


KEYED = keyed(ENTRIES)


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
    with pytest.raises(UserError, match='--noise_key.*its keys are '
                       'clean_label, random_label1, worse_label'):
      label_files.read(path, key)


def test_an_exact_key_goes_first(put):
  path = put('{"worse": [1], "worse_label": [2]}')
  assert label_files.read(path, 'worse').labels.tolist() == [1]
  assert label_files.read(path, 'worse_label').labels.tolist() == [2]


# What does not hold labels.


@pytest.mark.parametrize('data, words', [
    ('[1, 2.5]', 'not one row of integers: float64'),
    ('[1, "2"]', 'not one row'), ('[1, null]', 'not one row'),
    ('[1, true]', 'not one row of integers: it holds true or false'),
    ('[[1]]', r'not one row of integers: int64 \[1, 1\]'),
    ('[NaN]', 'float64'), ('[' + '9' * 4000 + ']', 'not one row'),
    ('[1, 2', 'as labels'), ('[' * 100000, 'as labels'),
    ('{"a": [1], "b": [1]}', 'needs --noise_key; its keys are a, b'),
    ('{"x": [0, 1.5]}', ', x is not one row'), ('{"x": {}}', ', x is not'),
    ('{"x": "abc"}', ', x is not'), ('{"x": null}', ', x is not'),
    ('index,label\n0,1\n1,x\n', 'line 3 has no whole numbers as index and'),
    ('index,label\n0,1\n1,1.0\n', 'line 3 has no whole numbers'),
    ('index,label\n0,1\n1\n', 'line 3 has no whole numbers'),
    ('index,label\n0,1\n1,1\n0,1\n', 'line 4 has index 0 again'),
    ('index,label\n0,1\n2,1\n', 'the indices are 0 to 1, not up to 2'),
    ('0,1\n-1,2\n', 'the indices are 0 to 1'),
    ('id,label\n0,1\n', "'index' is not in list"),
    ('hello\n', 'line 1 has no whole numbers'),
    (b'\xff\xfe', 'as labels'), (b'\x89PNG', 'as labels'),
    (saved(np.zeros(3)), 'float64'), (saved(np.zeros(3, bool)), 'bool'),
    (saved(np.zeros([3, 1], int)), r'int64 \[3, 1\]'),
    (saved(np.array([1, 2], object)), 'not one row of integers'),
    (saved(np.arange(9))[:-1], 'as labels'), (b'PK\x03\x04', 'as labels'),
    (torch_zip(pickle.dumps(WORSE, protocol=2)[:-9]), 'as labels'),
    (torch_zip(pickle.dumps(1.5, protocol=2)), 'not one row'),
    (b'\x93NUMPY\x01\x00`\xea' + b'-' * 60000, 'as labels'),
    (saved(np.zeros(9, int)).replace(b'(9,), }' + b' ' * 12,
                                     b'(%d,), }' % 10**12), 'as labels')])
def test_odd_files(put, data, words):
  with pytest.raises(UserError, match=words) as caught:
    label_files.read(put(data))
  assert '--noise_file=' in str(caught.value) and len(str(caught.value)) < 400
  assert '\n' not in str(caught.value)


def test_missing_files(put, tmp_path):
  for path in (str(tmp_path / 'none'), str(tmp_path)):
    with pytest.raises(UserError, match='--noise_file=.* is not a file'):
      label_files.read(path)
    with pytest.raises(UserError, match='--noise_index=.* is not a file'):
      label_files.read(put('[1]'), None, path)


class Call:
  """Pickles to a call that makes a directory."""

  def __init__(self, path):
    self._path = path

  def __reduce__(self):
    return os.mkdir, (self._path,)


@pytest.mark.parametrize('wrap', [
    lambda x: x, torch_zip, lambda x: torch_legacy(0)[:-11] + x,
    lambda x: saved(np.array({}))[:128] + x])
def test_malicious_files_do_not_run(put, tmp_path, wrap):
  trace = str(tmp_path / 'ran')
  attack = pickle.dumps({'worse': Call(trace)}, protocol=2)
  with pytest.raises(UserError, match='mkdir., which is refused'):
    label_files.read(put(wrap(attack)), 'worse')
  with pytest.raises(UserError):
    label_files.read(put('[1]'), None, put(wrap(attack), 'index'))
  assert not os.path.exists(trace)
  pickle.loads(attack)  # It would run elsewhere.
  assert os.path.exists(trace)


def test_sizes_are_bounded(put, monkeypatch):
  monkeypatch.setattr(label_files, '_MAX_BYTES', 100000)
  zeros = saved(None, np.savez_compressed, x=np.zeros(200000, np.uint8))
  with pytest.raises(UserError, match='holds more than'):
    label_files.read(put(zeros), 'x')
  with pytest.raises(UserError, match='as labels: it has more than'):
    label_files.read(put(b' ' * 100001))


SMALL = {name: x[:20] for name, x in ENTRIES.items()}
VALID = dict(keyed(SMALL), csv=csv_text(range(20)).encode('ascii'))


@hypothesis.settings(
    max_examples=50, deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(st.sampled_from(sorted(VALID)), st.floats(0, 0.999),
                  st.binary(max_size=2), st.booleans())
def test_damage_gives_labels_or_an_error(put, kind, where, change, cut):
  data = VALID[kind]
  position = int(where * len(data))
  rest = b'' if cut else data[position + len(change):]
  path = put(data[:position] + change + rest)
  try:
    found = label_files.read(path, None if kind == 'csv' else 'worse')
  except UserError as error:
    assert '\n' not in str(error)
  else:
    assert found.labels.dtype == np.int64 and found.labels.ndim == 1


# Whether they fit.


def label_file(labels, clean=None, index=None):
  return label_files.LabelFile('f', '', None, np.asarray(labels), clean, index)


def test_clean_labels_vouch_for_the_order():
  assert label_files.fit(label_file(WORSE, CLEAN), CLEAN, 10) is not None
  with pytest.raises(UserError, match='%d of its 2000.*TFDS.*--noise_index'
                     % np.sum(CLEAN[INDEX] != CLEAN)):
    label_files.fit(label_file(WORSE[INDEX], CLEAN[INDEX]), CLEAN, 10)


@pytest.mark.parametrize('order', [INDEX, np.argsort(INDEX)])
def test_the_index_is_used_the_way_that_fits(put, order):
  found = label_files.read(
      put(saved({name: x[order] for name, x in ENTRIES.items()}), 'a'), 'worse',
      put(saved(INDEX), 'b'))
  np.testing.assert_array_equal(label_files.fit(found, CLEAN, 10), WORSE)


@pytest.mark.parametrize('clean, index, words', [
    (CLEAN[::-1], INDEX, 'pass the index of this file'),
    (CLEAN[INDEX], INDEX[1:], '1999 numbers; .*from 0 to 1999 once'),
    (CLEAN[INDEX], np.zeros(N, int), 'each number from 0 to 1999 once'),
    (CLEAN[INDEX], INDEX + 1, 'each number from 0 to 1999 once'),
    (None, INDEX, 'no clean labels')])
def test_odd_indices(clean, index, words):
  with pytest.raises(UserError, match=words):
    label_files.fit(label_file(WORSE, clean, index), CLEAN, 10)


def test_without_clean_labels_chance_is_found_out():
  for labels in (WORSE[INDEX], np.zeros(N, int), RANDOM.randint(0, 10, N)):
    with pytest.raises(UserError, match=r'nothing to do with the images '
                       r'\(\d+.\d% agree'):
      label_files.fit(label_file(labels), CLEAN, 10)
  very_noisy = np.where(RANDOM.rand(N) < 0.3, CLEAN, RANDOM.randint(0, 10, N))
  for labels in (WORSE, very_noisy, CLEAN):
    assert label_files.fit(label_file(labels), CLEAN, 10) is labels
  # The order of a few labels is not checked.
  few = label_file([0, 1, 1, 0])
  assert label_files.fit(few, np.array([0, 1, 0, 1]), 2) is few.labels


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
