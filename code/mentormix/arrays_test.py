"""What NumPy writes is read back; what it would choke on is refused."""
import io
import zipfile

import numpy as np
import pytest

from mentormix import arrays

VALUES = {
    'net/w': np.arange(24, dtype=np.float32).reshape(2, 3, 1, 4),
    'columns': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    'half': np.float16([1.5]), 'one': np.float64(7), 'swapped': np.arange(
        3, dtype='>i8'), 'text': np.array(['ab', 'c'])}


def _npy(value):
  stream = io.BytesIO()
  np.save(stream, value)
  return stream.getvalue()


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_what_numpy_has_saved(save, tmp_path):
  save(str(tmp_path / 'x.npz'), **VALUES)
  with zipfile.ZipFile(str(tmp_path / 'x.npz')) as archive:
    heads = arrays.headers(archive, list(VALUES) + ['other'])
    assert sorted(heads) == sorted(VALUES)
    for name, value in VALUES.items():
      found = arrays.read(archive, name, heads[name])
      assert (found.shape, found.dtype) == (value.shape, value.dtype)
      np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize('data', [
    b'', b'\x93NUMPY', _npy(np.arange(3))[:40],
    _npy(np.zeros(2, [('a', 'i4')])), _npy(np.zeros([1] * 5)),
    _npy(np.arange(3)).replace(b'\x01\x00', b'\x02\x00', 1),
    _npy(np.arange(3)).replace(b'(3,)', b'(-3,)'),
    _npy(np.arange(3)).replace(b'(3,)', b'(' * 50 + b')' * 50)])
def test_headers_that_are_refused(data):
  with pytest.raises(ValueError):
    arrays.header(data)


@pytest.mark.parametrize('data', [
    _npy(np.array([{}], object)), _npy(np.arange(3))[:-1],
    _npy(np.arange(3)) + b'x' * 8,
    _npy(np.arange(3)).replace(b'(3,)', b'(%d,)' % 10**17)])
@pytest.mark.parametrize('in_archive', [False, True])
def test_elements_that_are_refused(data, in_archive):
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w') as archive:
    archive.writestr('x.npy', data)
    head = arrays.header(data)
    with pytest.raises(ValueError):
      if in_archive:
        arrays.read(archive, 'x', head)
      else:
        arrays.elements(data[head.start:], head)


def test_unusual_compression():
  with zipfile.ZipFile(io.BytesIO(), 'w', zipfile.ZIP_BZIP2) as archive:
    archive.writestr('x.npy', _npy(np.arange(3)))
    with pytest.raises(ValueError):
      arrays.read(archive, 'x', arrays.headers(archive, ['x'])['x'])
