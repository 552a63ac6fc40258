"""An exported step trained, stopped, resumed and evaluated."""
import json
import os
import shutil
import signal
import subprocess
import sys

import cifar_eval
import export_step
import numpy as np
import pytest
import run_exported

from mentormix import config as config_lib
from mentormix import files
from mentormix import testing
from mentormix.accelerator import jax_files

jax = pytest.importorskip('jax')  # There is none for TensorFlow 1.15.
from mentormix.accelerator import jax_runner


@pytest.fixture(scope='module')
def exported(digits, tmp_path_factory):
  """The directory of an exported step. Only read it."""
  directory = tmp_path_factory.mktemp('step') / 'exported'
  code, _, err = testing.run_command(
      export_step, *testing.to_flags(**testing.train_settings(
          digits, batch_size=8, max_number_of_steps=100000, learning_rate=0.01,
          method='cross_entropy', output_dir=directory)))
  assert code == 0, err
  return directory


def _run(exported, output_dir, **settings):
  settings = dict(dict(exported_dir=exported, output_dir=output_dir),
                  **settings)
  return testing.run_command(run_exported, *testing.to_flags(**settings))


def _arrays(directory, step):
  with np.load(str(directory / f'model.ckpt-{step}.npz')) as arrays:
    return dict(arrays)


@pytest.fixture(scope='module')
def run(exported, tmp_path_factory):
  """The directory of a run of six steps, all of them saved. Only read it."""
  directory = tmp_path_factory.mktemp('run')
  code, out, err = _run(exported, directory, steps=6, save_interval_steps=1)
  assert code == 0, err
  assert 'from step 0 to 6' in out and 'trained to step 6' in out
  return directory


@pytest.mark.parametrize('settings', [
    dict(method='s_model', noise_rate=0.4), dict(method='bootstrap_hard'),
    dict(method='co_teaching', forget_rate=0.5, dropout=0.5)],
                         ids=lambda settings: settings['method'])
def test_baselines_train_from_an_export(digits, tmp_path, settings):
  path = tmp_path / 'exported'
  code, _, err = testing.run_command(
      export_step, *testing.to_flags(**testing.train_settings(
          digits, batch_size=8, output_dir=path, **settings)))
  assert code == 0, err
  code, out, err = _run(path, tmp_path / 'run', steps=2)
  assert code == 0, err
  assert 'trained to step 2' in out


@pytest.mark.slow
def test_a_resumed_run_is_an_uninterrupted_one(exported, run, digits, tmp_path):
  """Also if it takes several steps per call; then it is evaluated."""
  # The oldest of six was removed.
  assert len(list(run.glob('*.npz'))) == jax_files.MAX_CHECKPOINTS == 5
  for name in ('config.json', 'model.ckpt-3.npz'):
    shutil.copy(str(run / name), str(tmp_path))
  code, out, err = _run(exported, tmp_path, steps=6, steps_per_call=3)
  assert code == 0, err
  assert 'from step 3 to 6' in out and 'trained to step 6' in out
  actual, expected = _arrays(tmp_path, 6), _arrays(run, 6)
  assert sorted(actual) == sorted(expected)
  assert actual['global_step'] == expected['global_step'] == 6
  for name, value in expected.items():
    np.testing.assert_allclose(actual[name], value, rtol=1e-4, atol=1e-5)
  code, _, err = testing.run_command(cifar_eval, '--once', *testing.to_flags(
      data_dir=os.path.join(digits, 'val'), checkpoint_dir=tmp_path,
      eval_dir=tmp_path / 'eval', batch_size=180,
      output_csv_file=tmp_path / 'eval.csv'))
  assert code == 0, err
  rows = np.genfromtxt(str(tmp_path / 'eval.csv'), delimiter=',', names=True)
  assert rows['step'].tolist() == [3, 6]
  assert np.isfinite(rows['loss']).all()


def test_a_checkpoint_of_another_run_is_refused(exported, run, tmp_path):
  arrays = _arrays(run, 6)
  name = min(arrays)
  shutil.copy(str(run / 'config.json'), str(tmp_path))
  for changed in ({}, {name: np.zeros([1, 2, 3])}):
    arrays.pop(name, None)
    np.savez(str(tmp_path / 'model.ckpt-6.npz'), **arrays, **changed)
    testing.assert_one_line(
        _run(exported, tmp_path, steps=7), 2,
        'model.ckpt-6.npz belongs to another run', name)


def test_every_image_is_used_once_per_epoch(exported):
  description, _ = jax_files.read_description(str(exported))
  images = jax_files.read_arrays(str(exported / 'data.npz'))['images']
  trainer = jax_runner.Trainer(str(exported), description, images[:40],
                               np.arange(40), 0, 'highest')
  # A step that only keeps its labels.
  trainer._augment = lambda images, flip: [flip]
  trainer._step = lambda flip, labels, step: [0.0, 1.0, step + 1,
                                              2 * labels + flip]
  description['augment']['arguments'] = [
      dict(name=n, kind='input') for n in ('images', 'flip')]
  description['step'] = dict(
      arguments=[dict(name=n, kind='input') for n in ('images', 'labels')]
      + [dict(name='global_step', kind='state')],
      results=[dict(name=n) for n in ('loss', 'selected', 'global_step', 'x')])
  state = {'global_step': jax.numpy.zeros([], 'int64'),
           'x': jax.numpy.zeros([8], 'int64')}
  seen = []
  for step in range(10):
    state, _, _ = trainer.run(state, step, 1)
    seen += state['x'].tolist()
  flips = [dict(divmod(x, 2) for x in part) for part in (seen[:40], seen[40:])]
  seen = [x // 2 for x in seen]
  assert sorted(seen[:40]) == sorted(seen[40:]) == list(range(40))
  assert seen[:40] != seen[40:] and seen[:40] != list(range(40))
  # For the light augmentation: mirrored every other time.
  assert all(flips[0][n] + flips[1][n] == 1 for n in range(40))
  assert 10 < sum(flips[0].values()) < 30


def test_a_signal_saves_and_stops_a_run_without_tensorflow(exported, tmp_path):
  program = ('import sys; sys.modules["tensorflow"] = None; '
             'import run_exported; run_exported.cli()')
  process = subprocess.Popen(
      [sys.executable, '-c', program] + testing.to_flags(
          exported_dir=exported, output_dir=tmp_path / 'run'),
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
      env=dict(os.environ, PYTHONPATH=testing.CODE))
  for line in process.stdout:
    if ' step 1/' in line:
      break
  process.send_signal(signal.SIGTERM)
  out, err = process.communicate()
  assert process.returncode == 128 + signal.SIGTERM, err
  assert 'stopped by SIGTERM' in out
  path, = (tmp_path / 'run').glob('*.npz')
  step = int(path.name.split('-')[1].split('.')[0])
  assert f'at step {step},' in out
  assert _arrays(tmp_path / 'run', step)['global_step'] == step


@pytest.fixture
def copy(exported, tmp_path):
  return shutil.copytree(str(exported), str(tmp_path / 'copy'))


def test_a_loss_that_is_not_finite(copy, tmp_path):
  path = os.path.join(copy, 'state.npz')
  with np.load(path) as arrays:
    arrays = dict(arrays)
  for name in arrays:
    if name.endswith('DW'):
      arrays[name] = np.full_like(arrays[name], np.nan)
  np.savez(path, **arrays)
  testing.assert_one_line(_run(copy, tmp_path / 'run', steps=20), 1,
                          'not a finite number', '--learning_rate')
  assert not list((tmp_path / 'run').glob('*.npz'))


@pytest.mark.parametrize('name', ['step.json', 'step.stablehlo', 'state.npz',
                                  'data.npz'])
def test_damaged_files_are_one_line(name, copy, tmp_path):
  path = os.path.join(copy, name)
  os.truncate(path, os.path.getsize(path) // 2)
  testing.assert_one_line(_run(copy, tmp_path / 'run', steps=1), 2, name)


def test_benchmark(exported, tmp_path):
  code, out, err = _run(exported, tmp_path / 'run', steps=0, benchmark=5)
  assert code == 0, err
  figures = json.loads(out[out.index('{'):out.index('}') + 1])
  assert figures['ms_per_step'] > 0 and figures['matmul_tflops'] > 0
  assert figures['steps'] == 5
  assert 'is already at step 0 of 0' in out
  assert not list((tmp_path / 'run').glob('*.npz'))


@pytest.mark.parametrize('settings,named', [
    (dict(steps=100001), ['--steps=100001', '100000']),
    (dict(exported_dir='nowhere'), ['nowhere', 'export_step.py']),
    (dict(output_dir='/dev/null/x'), ['--output_dir=/dev/null/x']),
])
def test_errors_are_one_line(settings, named, exported, tmp_path):
  testing.assert_one_line(
      _run(exported, **dict(dict(output_dir=tmp_path / 'run'), **settings)), 2,
      *named)


def test_a_missing_jax_is_one_line(exported, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'jax', None)
  monkeypatch.delitem(sys.modules, 'mentormix.accelerator.jax_runner')
  testing.assert_one_line(_run(exported, tmp_path / 'run'), 2,
                          'JAX is missing or too old', 'pip install')


def test_another_run_is_not_touched(exported, tmp_path):
  _, config = jax_files.read_description(str(exported))
  config_lib.save(config._replace(learning_rate=0.5), str(tmp_path))
  (tmp_path / 'model.ckpt-1.npz').write_bytes(b'')
  testing.assert_one_line(_run(exported, tmp_path, steps=1), 2,
                          '--learning_rate is 0.5 there, 0.01 here')
  with files.only_writer(str(tmp_path), 'output_dir'):
    testing.assert_one_line(_run(exported, tmp_path, steps=1), 2,
                            f'is in use by process {os.getpid()} on')
  (tmp_path / 'model.ckpt-1.index').write_bytes(b'')
  testing.assert_one_line(_run(exported, tmp_path, steps=1), 2,
                          'holds checkpoints of TensorFlow')
