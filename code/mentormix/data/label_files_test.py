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
from mentormix.data import label_formats
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
  label_files.write_json(str(tmp_path), WORSE)
  label_files.write_csv(str(tmp_path), WORSE, CLEAN if known else None, ids,
                        range(N))
  assert json.loads((tmp_path / 'labels.json').read_text()) == WORSE.tolist()
  lines = (tmp_path / 'labels.csv').read_bytes().decode('ascii').split('\n')
  assert lines[0] == 'index,label,clean_label,source_id'
  assert lines[2] == (
      f'1,{WORSE[1]},{CLEAN[1] if known else ""},"train/a,b/1.png"')
  assert len(lines) == N + 2
  for name in ('labels.json', 'labels.csv'):
    found = label_files.read(str(tmp_path / name))
    np.testing.assert_array_equal(found.labels, WORSE)
    assert found.key is found.tfds_index is None
    has_columns = name == 'labels.csv'
    assert found.has_index == has_columns
    assert found.ids == (ids if has_columns else None)
    if known and has_columns:
      np.testing.assert_array_equal(found.clean, CLEAN)
    else:
      assert found.clean is None


@pytest.mark.parametrize('data', [
    json.dumps(WORSE.tolist()), '\ufeff \n' + json.dumps(WORSE.tolist()),
    '\n'.join(map(str, WORSE)), 'label\n' + '\n'.join(map(str, WORSE)),
    ' '.join(map(str, WORSE)), '# NumPy\n' + '\n'.join(map(str, WORSE)),
    saved(WORSE), saved(WORSE.astype(np.uint8)), saved(WORSE.astype('>i4')),
    saved(WORSE.astype(float)), saved(WORSE[:, np.newaxis]),
    saved(WORSE.astype(object)), pickle.dumps(WORSE, protocol=2),
    pickle.dumps([np.int64(label) for label in WORSE], protocol=4)])
def test_labels_without_keys(put, data):
  found = label_files.read(put(data))
  np.testing.assert_array_equal(found.labels, WORSE)
  assert found.labels.dtype == np.int64 and found.clean is None
  assert not found.has_index
  with pytest.raises(UserError, match='has no keys.*--noise_key=worse'):
    label_files.read(put(data), 'worse')


BY_INDEX = {str(k): int(WORSE[k]) for k in INDEX}


@pytest.mark.parametrize('data', [
    csv_text(INDEX), csv_text(INDEX, header=''),
    csv_text(INDEX, header='index,label,note\r\n', extra=',"a\nb"'),
    csv_text(INDEX).replace('\n', '\r\n'), '\n' + csv_text(INDEX) + '\n\n',
    csv_text(INDEX, header=' Index , Label\n'), csv_text(INDEX, ',label\n'),
    csv_text(INDEX, 'id,class\n'), csv_text(INDEX).replace(',', ';'),
    csv_text(INDEX).replace(',', '\t'), csv_text(INDEX).replace(',', '  '),
    csv_text(INDEX).encode('utf-16'),
    b'\xfe\xff' + csv_text(INDEX).encode('utf-16-be'),
    csv_text(INDEX).replace('\n', '.0\n').replace('label.0', 'label'),
    json.dumps(BY_INDEX), json.dumps({'label': BY_INDEX}),
    json.dumps([dict(index=int(k), label=int(WORSE[k])) for k in INDEX]),
    ''.join(json.dumps(dict(index=int(k), label=int(WORSE[k]))) + '\n'
            for k in INDEX)])
def test_labels_by_index(put, data):
  found = label_files.read(put(data))
  np.testing.assert_array_equal(found.labels, WORSE)
  assert found.has_index and found.clean is None and found.ids is None


@pytest.mark.parametrize('data', [
    ''.join(f'train/a b/{k}.png,{WORSE[k]}\n' for k in INDEX),
    'path\tlabel\n' + ''.join(f'train/a b/{k}.png\t{WORSE[k]}\n'
                              for k in INDEX),
    json.dumps({f'train/a b/{k}.png': int(WORSE[k]) for k in INDEX})])
def test_labels_by_path(put, data):
  found = label_files.read(put(data))
  np.testing.assert_array_equal(found.labels, WORSE[INDEX])
  assert found.ids == [f'train/a b/{k}.png' for k in INDEX]
  assert not found.has_index


@pytest.mark.parametrize('names,text,field,expected', [
    (label_files.INDEX_NAMES, '{k}', 'has_index', True),
    (label_files.CLEAN_NAMES, '{clean}', 'clean', CLEAN.tolist()),
    (label_files.ID_NAMES, 'a/{k}.png', 'ids', [f'a/{k}.png' for k in range(N)])])
def test_what_columns_mean(put, names, text, field, expected):
  for name in names:
    found = label_files.read(put(f'{name},label\n' + ''.join(
        text.format(k=k, clean=CLEAN[k]) + f',{WORSE[k]}\n'
        for k in range(N))))
    np.testing.assert_array_equal(found.labels, WORSE)
    actual = getattr(found, field)
    assert (actual.tolist() if field == 'clean' else actual) == expected


# In the form of published instance-dependent noise.
TWO = ''.join(f'{CLEAN[k]},{WORSE[k]}\n' for k in range(N))
TWO_BY_INDEX = ''.join(f'{k},{CLEAN[k]},{WORSE[k]}\n' for k in INDEX)


@pytest.mark.parametrize('data', ['label,label_noisy\n' + TWO,
                                  'index,label,label_noisy\n' + TWO_BY_INDEX])
def test_of_several_columns_none_is_guessed(put, data):
  with pytest.raises(UserError, match='needs --noise_key; its keys are .*label, '
                                      'label_noisy'):
    label_files.read(put(data))
  for key in ('label_noisy', 'Label_Noisy', 'noisy'):
    found = label_files.read(put(data), key)
    np.testing.assert_array_equal(found.labels, WORSE)
  np.testing.assert_array_equal(label_files.read(put(data), 'label').labels,
                                CLEAN)


def keyed(entries):
  """Kind of file -> its bytes, for each kind that has keys."""
  lists = {name: x.tolist() for name, x in entries.items()}
  return {'json': json.dumps(lists).encode('ascii'),
          'npz': saved(None, np.savez, **entries),
          'npz compressed': saved(None, np.savez_compressed, **entries),
          'npy': saved(entries),
          'csv': '\n'.join([','.join(entries)] + [
              ','.join(map(str, row)) for row in zip(*entries.values())]
                           ).encode('ascii'),
          'torch': torch_zip(pickle.dumps(entries, protocol=2)),
          'torch legacy': torch_legacy(entries)}


KEYED = keyed(ENTRIES)
# {'worse': np.arange(5, dtype=np.int16), 'list': [np.int64(3)]} of Python 3.13
# and NumPy 2; Python 3.7 cannot write protocol 5.
PROTOCOL_5 = (
    b'\x80\x05\x95\xec\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x05worse\x94\x8c'
    b'\x13numpy._core.numeric\x94\x8c\x0b_frombuffer\x94\x93\x94(\x96\n'
    + bytes(7) + b'\x00\x00\x01\x00\x02\x00\x03\x00\x04\x00\x94\x8c\x05numpy\x94'
    b'\x8c\x05dtype\x94\x93\x94\x8c\x02i2\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<'
    b'\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x05\x85\x94\x8c\x01C'
    b'\x94t\x94R\x94\x8c\x04list\x94]\x94\x8c\x16numpy._core.multiarray\x94\x8c'
    b'\x06scalar\x94\x93\x94h\x08\x8c\x02i8\x94\x89\x88\x87\x94R\x94(K\x03h\x0cNNNJ'
    b'\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bC\x08\x03' + bytes(7)
    + b'\x94\x86\x94R\x94au.')


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


@pytest.mark.parametrize('wrap', [lambda x: x, torch_zip])
def test_protocol_5(put, wrap):
  path = put(wrap(PROTOCOL_5))
  assert label_files.read(path, 'worse').labels.tolist() == [0, 1, 2, 3, 4]
  assert label_files.read(path, 'list').labels.tolist() == [3]


def test_other_keys_may_be_anything(put):
  path = put(saved({'worse': WORSE, 'name': 'CIFAR-10N', 'id': 3, 'path': None}))
  found = label_files.read(path, 'worse')
  assert found.ids is None and not found.has_index
  path = put(saved({'worse': WORSE, 'clean_label': CLEAN + 0.5}))
  with pytest.raises(UserError, match='clean_label is not one row of integers'):
    label_files.read(path, 'worse')


def test_an_exact_key_goes_first(put):
  path = put('{"worse": [1], "worse_label": [2]}')
  assert label_files.read(path, 'worse').labels.tolist() == [1]
  assert label_files.read(path, 'worse_label').labels.tolist() == [2]


# What does not hold labels.


@pytest.mark.parametrize('data, words', [
    ('[1, 2.5]', 'not one row of integers: float64'),
    ('[1, "x"]', 'not one row'), ('[1, null]', 'entry 1, .* is missing'),
    ('[1, true]', 'not one row of integers: it holds true or false'),
    ('[[1, 2]]', r'not one row of integers: int64 \[1, 2\]'),
    ('[NaN]', 'float64'), ('[' + '9' * 4000 + ']', 'not one row'),
    ('[1, 2', 'as labels'), ('[' * 100000, 'as labels'),
    ('{"a": [1], "b": [1]}', 'needs --noise_key; its keys are a, b'),
    ('{"x": [0, 1.5]}', ', x is not one row'), ('{"x": {}}', ', x is not'),
    ('{"x": "abc"}', ', x is not'), ('{"x": null}', 'entry 0, .* is missing'),
    ('index,label\n0,1\n1,x\n', ", label is .*entry 1, .* is 'x'"),
    ('index,label\n0,1\n1,1.5\n', "entry 1, .* is '1.5'"),
    ('index,label\n0,1\n1,\n', 'entry 1, .* is missing'),
    ('index,label\n0,1\n1\n', 'line 3 does not have 2 cells, index, label'),
    ('index,label\n0,1,x\n', 'line 2 does not have 2 cells'),
    ('index,label\n0,1\n1,1\n0,1\n', 'are 0 to 1, 2 different ones'),
    ('index,label\n1,1\n2,1\n', 'must be 0 to 1, each once; they are 1 to 2'),
    ('0,1\n-1,2\n', 'must be 0 to 1'),
    ('0,1,2\n1,1,2\n', 'without a header are index and label, or path'),
    ('label,label\n1,1\n', 'the same name'), ('hello\n', 'no row of labels'),
    ('cat\ndog\n', ", cat is not .*entry 0, .* is 'dog'"),
    ('[{"a": 1}, {"b": 1}]', 'do not all have the same keys'),
    ('', 'it is an empty file'), (' \n', 'it is an empty file'),
    ('<!DOCTYPE html>\n<html>', 'it is a web page'),
    ('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n',
     'it is a Git LFS pointer'), (b'\x1f\x8b\x08' + bytes(20), 'a gzip file'),
    (torch_zip(b'').replace(b'data.pkl', b'work.xml'), 'save it as CSV'),
    (b'\xff\xfe', 'as labels'), (b'\x89PNG', 'it is a PNG image'),
    (saved(np.full(3, 0.5)), 'float64'), (saved(np.zeros(3, bool)), 'bool'),
    (saved(np.full(3, np.inf)), 'float64'),
    (saved(np.eye(3, dtype=int)), r'int64 \[3, 3\]'),
    ('index,a\n0,0.5\n1,0.7\n', ", a is .*entry 0, .* is '0.5'; give class ids"),
    ('index,a,b\n0,0.5,0.1\n', 'has no whole numbers as labels; its keys are'),
    (',index,label\n0,1,3\n1,0,4\n', "'' and 'index' contradict each other"),
    ('index,label,x\n0,1,caf\xe9\n'.encode('latin1'), 'neither UTF-8 nor UTF-16'),
    (saved(np.array([1, 2.5], object)), 'not one row of integers'),
    (saved(np.array([[1], [2]], object)), 'not one row of integers'),
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
  monkeypatch.setattr(label_formats, '_MAX_BYTES', 100000)
  zeros = saved(None, np.savez_compressed, x=np.zeros(200000, np.uint8))
  with pytest.raises(UserError, match='holds more than'):
    label_files.read(put(zeros), 'x')
  with pytest.raises(UserError, match='as labels: .*it has more than'):
    label_files.read(put(b' ' * 100001))


SMALL = {name: x[:20] for name, x in ENTRIES.items()}
VALID = keyed(SMALL)


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
    found = label_files.read(path, 'worse')
  except UserError as error:
    assert '\n' not in str(error)
  else:
    assert found.labels.dtype == np.int64 and found.labels.ndim == 1
