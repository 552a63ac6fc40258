"""Both forms of checkpoints: found, read, refused."""
import os

import numpy as np
import pytest

from mentormix import checkpoints
from mentormix.command import RunError
from mentormix.command import UserError
from mentormix.runtime import tf

SHAPES = {'net/w': [2, 3], 'net/b': [3]}
VALUES = {'net/w': np.arange(6, dtype=np.float32).reshape(2, 3) / 8,
          'net/b': np.float32([1.5, -2, 0])}


def _save_arrays(directory, step=7, **values):
  path = str(directory / ('model.ckpt-%d.npz' % step))
  with open(path, 'wb') as f:
    np.savez(f, **dict(VALUES, **values))
  return path


def _save_tensorflow(directory, step=7):
  with tf.Graph().as_default(), tf.Session() as session:
    for name, value in VALUES.items():
      tf.get_variable(name, initializer=value)
    session.run(tf.global_variables_initializer())
    return tf.train.Saver().save(
        session, str(directory / checkpoints.BASENAME), step)


@pytest.mark.parametrize('save', [_save_arrays, _save_tensorflow])
def test_found_and_read(save, tmp_path):
  path = save(tmp_path)
  (tmp_path / 'model.ckpt-8.npz.tmp').write_bytes(b'half of one')
  (tmp_path / 'model.ckpt-best.npz').write_bytes(b'of no step')
  assert checkpoints.find(str(tmp_path)) == {7: path}
  assert checkpoints.exists(path)
  read = checkpoints.read(path, SHAPES, 'it')
  assert set(read) == set(SHAPES)
  for name, value in VALUES.items():
    np.testing.assert_array_equal(read[name], value)


def test_16_bits_become_32(tmp_path):
  path = _save_arrays(tmp_path, **{
      name: value.astype(np.float16) for name, value in VALUES.items()})
  for name, value in checkpoints.read(path, SHAPES, 'it').items():
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, VALUES[name])


@pytest.mark.parametrize('save', [_save_arrays, _save_tensorflow])
def test_of_another_student(save, tmp_path):
  path = save(tmp_path)
  with pytest.raises(UserError, match=r'is not of it: net/c is missing there, '
                                      r'\[1\] here'):
    checkpoints.read(path, dict(SHAPES, **{'net/c': [1]}), 'it')
  with pytest.raises(UserError,
                     match=r'net/w is \[2, 3\] there, \[2, 4\] here'):
    checkpoints.read(path, dict(SHAPES, **{'net/w': [2, 4]}), 'it')


@pytest.mark.parametrize('save,ending', [
    (_save_arrays, ''), (_save_tensorflow, '.index'),
    (_save_tensorflow, '.data-00000-of-00001')])
@pytest.mark.parametrize('damage', ['cut', 'other', 'gone'])
def test_damaged(save, ending, damage, tmp_path):
  path = save(tmp_path)
  size = os.path.getsize(path + ending)
  if damage == 'gone':
    os.remove(path + ending)
  else:
    with open(path + ending, 'r+b') as f:
      if damage == 'cut':
        f.truncate(size // 2)
      else:
        f.write(b'\xff' * size)
  with pytest.raises(RunError, match='model.ckpt-7.* cannot be evaluated: .+'):
    checkpoints.read(path, SHAPES, 'it')


def test_nothing_is_unpickled(tmp_path):
  path = _save_arrays(tmp_path, **{'net/w': np.array([{}], object)})
  with pytest.raises(RunError, match='cannot be evaluated'):
    checkpoints.read(path, SHAPES, 'it')


def test_training_does_not_go_on_from_arrays(tmp_path):
  assert checkpoints.last_step(str(tmp_path)) == 0
  _save_arrays(tmp_path)
  with pytest.raises(UserError, match='model.ckpt-7.npz.*name another'):
    checkpoints.last_step(str(tmp_path))
