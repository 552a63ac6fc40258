"""Tests of finding, reading and recovering checkpoints of both forms."""
import os
import shutil

import hypothesis
import numpy as np
import pytest

from mentormix import checkpoints
from mentormix import testing
from mentormix.messages import RunError, UserError
from mentormix.runtime import tf

_DATA, _INDEX = '.data-00000-of-00001', '.index'
SHAPES = {'net/w': [2, 3], 'net/b': [3]}
VALUES = {'net/w': np.arange(6, dtype=np.float32).reshape(2, 3) / 8,
          'net/b': np.float32([1.5, -2, 0])}


def _save_arrays(directory, step=7, **values):
  path = str(directory / f'model.ckpt-{step}.npz')
  with open(path, 'wb') as f:
    np.savez(f, **dict(VALUES, **values))
  return path


def _save_tensorflow(directory, step=7, **values):
  with tf.Graph().as_default(), tf.Session() as session:
    for name, value in dict(VALUES, **values).items():
      tf.get_variable(name, initializer=value)
    session.run(tf.global_variables_initializer())
    return tf.train.Saver().save(
        session, str(directory / checkpoints.BASENAME), step)


FILES = pytest.mark.parametrize('save,ending', [
    (_save_arrays, ''), (_save_tensorflow, _INDEX), (_save_tensorflow, _DATA)])


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


def _spoil(path):
  with open(path, 'wb') as f:
    f.write(b'\xff' * 1000)


@FILES
def test_damaged_or_missing(save, ending, tmp_path):
  path = save(tmp_path)
  for damage in _spoil, os.remove:
    damage(path + ending)
    with pytest.raises(RunError, match='model.ckpt-7.* cannot be read: .+'):
      checkpoints.read(path, SHAPES, 'it')


def test_nothing_is_unpickled(tmp_path):
  path = _save_arrays(tmp_path, **{'net/w': np.array([{}], object)})
  with pytest.raises(RunError, match='cannot be read: .*allow_pickle=False'):
    checkpoints.read(path, SHAPES, 'it')


def test_a_checksum_that_does_not_match(tmp_path):
  """With the smaller type NumPy stops before it compares the checksum."""
  path = _save_arrays(tmp_path)
  with open(path, 'r+b') as f:
    data = f.read()
    f.seek(0)
    f.write(data.replace(b"'<f4'", b"'<f2'"))
  with pytest.raises(RunError, match='a checksum does not match'):
    checkpoints.read(path, SHAPES, 'it')


@pytest.mark.parametrize('content', [
    {'net/w': np.zeros([2, 3], np.int32)}, {'net/w': np.array(7 * ['x'])}])
@pytest.mark.parametrize('save', [_save_arrays, _save_tensorflow])
def test_something_other_than_floating_point_numbers(save, content, tmp_path):
  with pytest.raises(RunError, match='cannot be read: net/w does not hold '
                                     'floating-point numbers'):
    checkpoints.read(save(tmp_path, **content), SHAPES, 'it')


@FILES
def test_random_damage(save, ending, tmp_path):
  """Gives the values that were written, or a clean error."""
  path = save(tmp_path)
  with open(path + ending, 'rb') as f:
    whole = f.read()

  @hypothesis.settings(max_examples=25, deadline=None, database=None)
  @hypothesis.given(testing.damaged(whole))
  def check(data):
    with open(path + ending, 'wb') as f:
      f.write(data)
    try:
      found = checkpoints.read(path, SHAPES, 'it')
    except (UserError, checkpoints.Damaged) as error:
      assert '\n' not in str(error)
    else:
      for name, value in VALUES.items():
        np.testing.assert_array_equal(found[name], value)

  check()


def test_training_does_not_resume_from_arrays(tmp_path):
  assert checkpoints.recover(str(tmp_path)) == (None, [])
  _save_arrays(tmp_path)
  with pytest.raises(UserError, match='model.ckpt-7.npz.*name another'):
    checkpoints.recover(str(tmp_path))


def _save_run(directory, steps=(0, 10, 20), bad=None):
  """Saves checkpoints as a run does; `bad` is step -> another value."""
  with tf.Graph().as_default(), tf.Session() as session:
    w = tf.get_variable('w', initializer=np.zeros(1000, np.float32))
    session.run(tf.global_variables_initializer())
    saver = tf.train.Saver(save_relative_paths=True)
    for step in steps:
      w.load(np.full(1000, (bad or {}).get(step, step), np.float32), session)
      saver.save(session, os.path.join(directory, checkpoints.BASENAME), step,
                 write_meta_graph=False)


def _resumes_from(directory):
  """The step of the checkpoint that TensorFlow selects, by its content."""
  latest = tf.train.latest_checkpoint(directory)
  return int(tf.train.load_checkpoint(latest).get_tensor('w')[0])


def test_readable_checkpoints_stay_unchanged(tmp_path):
  directory = str(tmp_path)
  _save_run(directory)
  (tmp_path / 'model.ckpt-3.bak').write_bytes(b'somebody keeps this')
  before = {name: (tmp_path / name).stat().st_mtime_ns
            for name in os.listdir(directory)}
  assert checkpoints.recover(directory) == (20, [])
  assert before == {name: (tmp_path / name).stat().st_mtime_ns
                    for name in os.listdir(directory)}



def _cut(path):
  os.truncate(path, os.path.getsize(path) // 2)


def _flip(path):
  with open(path, 'r+b') as f:
    f.seek(os.path.getsize(path) // 2)
    byte = f.read(1)[0]
    f.seek(-1, os.SEEK_CUR)
    f.write(bytes([byte ^ 1]))


@pytest.mark.parametrize('ending', [_DATA, _INDEX])
@pytest.mark.parametrize('damage', [_cut, _flip, os.remove])
@pytest.mark.parametrize('count', [1, 2])
def test_an_older_one_replaces_damaged_ones(tmp_path, ending, damage, count):
  directory = str(tmp_path)
  _save_run(directory)
  damaged = [20, 10][:count]
  for step in damaged:
    damage(str(tmp_path / f'model.ckpt-{step}{ending}'))
  step, lines = checkpoints.recover(directory)
  assert step == {1: 10, 2: 0}[count]
  assert len(lines) == count
  for line, bad in zip(lines, damaged):
    assert line.startswith(str(tmp_path / f'model.ckpt-{bad} cannot'))
    assert line.endswith(f'; it is now damaged.model.ckpt-{bad}')
  assert _resumes_from(directory) == step
  assert sorted(checkpoints.find(directory)) == [0, 10][:3 - count]
  kept = {name for name in os.listdir(directory) if name.startswith('damaged.')}
  assert kept == {
      f'damaged.model.ckpt-{bad}{e}' for bad in damaged
      for e in (_DATA, _INDEX) if not (damage is os.remove and e == ending)}
  assert checkpoints.recover(directory) == (step, [])


@pytest.mark.parametrize('text', [
    None, '', 'junk', 'model_checkpoint_path: "model.ckpt-30"\n',
    'model_checkpoint_path: "/etc/passwd"\n',
    f'model_checkpoint_path: "model.ckpt-{7 * 10**299}"\n',
    'model_checkpoint_path: "/elsewhere/model.ckpt-20"\n',
    'model_checkpoint_path: "model.ckpt-20"\n'
    'all_model_checkpoint_paths: "../model.ckpt-10"\n'])
def test_the_list_is_missing_or_wrong(tmp_path, text):
  """On its own, TensorFlow would start from scratch, or fail."""
  directory = str(tmp_path)
  _save_run(directory)
  os.remove(str(tmp_path / 'checkpoint'))
  if text is not None:
    (tmp_path / 'checkpoint').write_text(text)
  assert sorted(checkpoints.find(directory)) == [0, 10, 20]
  step, lines = checkpoints.recover(directory)
  assert step == 20
  assert lines[-1] == (f'{directory}/checkpoint was missing or damaged; it '
                       'has been rewritten')
  assert _resumes_from(directory) == 20
  assert checkpoints.recover(directory) == (20, [])


def test_a_checkpoint_that_was_not_listed_yet_counts(tmp_path):
  """The process may be killed between the two writes."""
  directory = str(tmp_path)
  _save_run(directory, [0, 10])
  listed = (tmp_path / 'checkpoint').read_text()
  _save_run(directory, [0, 10, 20])
  (tmp_path / 'checkpoint').write_text(listed)
  assert sorted(checkpoints.find(directory)) == [0, 10]
  assert checkpoints.recover(directory) == (20, [])
  assert _resumes_from(directory) == 20


def test_values_that_are_not_finite_are_damage(tmp_path):
  directory = str(tmp_path)
  _save_run(directory, bad={20: np.nan})
  step, (line,) = checkpoints.recover(directory)
  assert step == 10
  assert 'model.ckpt-20 cannot be read (w is not finite)' in line


def test_nothing_is_changed_if_none_can_be_read(tmp_path):
  directory = str(tmp_path)
  _save_run(directory, [10, 20])
  for step in (10, 20):
    _cut(str(tmp_path / f'model.ckpt-{step}{_DATA}'))
  before = sorted(os.listdir(directory))
  with pytest.raises(UserError, match='no readable checkpoint '
                                      r'.model.ckpt-20: .*restore one'):
    checkpoints.recover(directory)
  assert sorted(os.listdir(directory)) == before


def test_remains_of_interrupted_writes_are_deleted(tmp_path):
  directory = str(tmp_path)
  _save_run(directory, [10])
  whole = sorted(os.listdir(directory))
  for name in ('model.ckpt-20.data-00000-of-00001.tempstate1234',
               'model.ckpt-20.index.tempstate77', 'checkpoint.tmp0a1b2c',
               'model.ckpt-15.data-00000-of-00001'):
    (tmp_path / name).write_bytes(b'some')
  (tmp_path / 'model.ckpt-20_temp_0123').mkdir()
  (tmp_path / 'model.ckpt-20_temp_0123' / 'part-00000-of-00001').touch()
  assert checkpoints.recover(directory) == (10, [])
  assert sorted(os.listdir(directory)) == whole


def test_other_files_stay(tmp_path):
  """Copies under other names, and old ones that are not listed."""
  directory = str(tmp_path)
  _save_run(directory, [5])
  _save_run(directory, [10, 20])  # Lists these only.
  for ending in (_DATA, _INDEX):
    shutil.copy(str(tmp_path / ('model.ckpt-20' + ending)),
                str(tmp_path / ('model.ckpt-best-30' + ending)))
  (tmp_path / 'model.ckpt-3.meta').write_bytes(b'')
  _cut(str(tmp_path / ('model.ckpt-20' + _INDEX)))
  before = set(os.listdir(directory))
  assert checkpoints.recover(directory)[0] == 10
  assert {name for name in before if 'ckpt-20' not in name} <= set(
      os.listdir(directory))
  state = tf.train.get_checkpoint_state(directory)
  assert [os.path.basename(path) for path in state.all_model_checkpoint_paths
          ] == ['model.ckpt-10']


def test_an_interrupted_first_save_is_a_new_run(tmp_path):
  directory = str(tmp_path)
  _save_run(directory, [0])
  (tmp_path / 'model.ckpt-0.index').write_bytes(b'')
  step, lines = checkpoints.recover(directory)
  assert step is None and len(lines) == 1
  assert tf.train.latest_checkpoint(directory) is None
  assert not checkpoints.are_there(directory)


def test_an_error_of_the_system_is_not_damage(tmp_path):
  directory = str(tmp_path)
  _save_run(directory)
  os.remove(str(tmp_path / f'model.ckpt-20{_DATA}'))
  os.symlink('/proc/self/mem', str(tmp_path / f'model.ckpt-20{_DATA}'))
  before = sorted(os.listdir(directory))
  with pytest.raises(UserError, match='model.ckpt-20 cannot be read now .*Input'
                                      '/output error.*nothing was changed'):
    checkpoints.recover(directory)
  assert sorted(os.listdir(directory)) == before


@pytest.mark.parametrize('ending', [_DATA, _INDEX])
def test_recovery_after_random_damage(tmp_path, ending):
  """Training resumes from values that were written, of one step or another."""
  whole, run = tmp_path / 'whole', str(tmp_path / 'run')
  _save_run(str(whole))
  path = os.path.join(run, f'model.ckpt-20{ending}')

  @hypothesis.settings(max_examples=25, deadline=None, database=None)
  @hypothesis.given(testing.damaged(
      (whole / os.path.basename(path)).read_bytes()))
  def check(data):
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(str(whole), run)
    with open(path, 'wb') as f:
      f.write(data)
    step, lines = checkpoints.recover(run)
    assert step == (10 if lines else 20)
    assert _resumes_from(run) == step

  check()


def test_the_newest_of_any_name(tmp_path):
  assert checkpoints.newest(str(tmp_path)) is None
  _save_run(str(tmp_path), [9])
  os.remove(str(tmp_path / 'checkpoint'))
  assert checkpoints.newest(str(tmp_path)) == str(tmp_path / 'model.ckpt-9')
  for ending in (_DATA, _INDEX):
    shutil.copy(str(tmp_path / f'model.ckpt-9{ending}'),
                str(tmp_path / f'other{ending}'))
  assert checkpoints.newest(str(tmp_path)) is None
  (tmp_path / 'checkpoint').write_text('model_checkpoint_path: "/from/other"')
  assert checkpoints.newest(str(tmp_path)) == str(tmp_path / 'other')
