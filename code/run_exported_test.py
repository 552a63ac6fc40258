"""An exported step trained, stopped, resumed and evaluated."""
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import export_step_test
from mentormix.accelerator import stablehlo
from mentormix import config as config_lib
from mentormix.evaluation import loop as evaluation_loop
from mentormix import files
from mentormix import runtime

CODE = export_step_test.CODE
SCRIPT = os.path.join(CODE, 'run_exported.py')
PYTHON = export_step_test.JAX_PYTHON

pytestmark = [
    pytest.mark.skipif(runtime.IS_1_15,
                       reason='TensorFlow 1.15 cannot write StableHLO'),
    export_step_test.needs_jax]


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  directory = str(tmp_path_factory.mktemp('data'))
  export_step_test.write_data(directory)
  return directory


def _export(data_dir, directory, **settings):
  directory.mkdir()
  stablehlo.export(
      export_step_test.train_config(data_dir, max_number_of_steps=100000,
                                    **settings), str(directory))
  return str(directory)


@pytest.fixture(scope='module')
def exported(data_dir, tmp_path_factory):
  return _export(data_dir, tmp_path_factory.mktemp('step') / 'exported',
                 method='cross_entropy')


def _start(exported, output_dir, *args):
  return subprocess.Popen(
      [PYTHON, SCRIPT, '--exported_dir=' + exported,
       '--output_dir=%s' % output_dir] + list(args),
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)


def _run(*args):
  process = _start(*args)
  out, err = process.communicate()
  return process.returncode, out, err


def _arrays(directory, step):
  with np.load(str(directory / ('model.ckpt-%d.npz' % step))) as arrays:
    return dict(arrays)


@pytest.fixture(scope='module')
def straight(exported, tmp_path_factory):
  """The directory of a run of six steps, each of which is saved."""
  directory = tmp_path_factory.mktemp('straight')
  code, _, err = _run(exported, directory, '--steps=6',
                      '--save_interval_steps=1')
  assert code == 0, err
  return directory


def test_trained_resumed_and_evaluated(exported, data_dir, straight, tmp_path):
  """With breaks, and several steps at a time, as in one go."""
  for args in (['--steps=3'], ['--steps=6', '--steps_per_call=2']):
    code, out, err = _run(exported, tmp_path / 'run', *args)
    assert code == 0, err
  assert 'from step 3 to 6' in out and 'trained to step 6' in out
  resumed, expected = _arrays(tmp_path / 'run', 6), _arrays(straight, 6)
  assert sorted(resumed) == sorted(expected)
  assert resumed['global_step'] == expected['global_step'] == 6
  for name, value in expected.items():
    np.testing.assert_allclose(resumed[name], value, rtol=1e-4, atol=1e-5)
  results = [evaluation_loop.evaluate(config_lib.EvalConfig(
      data_dir=data_dir, checkpoint_dir=str(directory), eval_dir=str(tmp_path),
      once=True, output_csv_file=str(tmp_path / ('%d.csv' % k))))
             for k, directory in enumerate([tmp_path / 'run', straight])]
  assert [r.step for r in results[0]] == [3, 6]
  # The oldest checkpoint of six is gone.
  assert [r.step for r in results[1]] == [2, 3, 4, 5, 6]
  assert np.isfinite(results[0][-1].loss)
  np.testing.assert_allclose(results[0][-1].loss, results[1][-1].loss,
                             rtol=1e-4)


def test_a_checkpoint_of_something_else(exported, straight, tmp_path):
  """It is refused, whether an array is missing or has another shape."""
  run = tmp_path / 'run'
  shutil.copytree(str(straight), str(run))
  arrays = _arrays(run, 6)
  name = min(arrays)
  for changed, found in ((None, 'is missing there'), (np.zeros([1, 2, 3]),
                                                      'float64 [1, 2, 3]')):
    arrays.pop(name, None)
    if changed is not None:
      arrays[name] = changed
    np.savez(str(run / 'model.ckpt-6.npz'), **arrays)
    code, _, err = _run(exported, run, '--steps=7')
    assert code == 2 and len(err.splitlines()) == 1
    assert 'model.ckpt-6.npz belongs to another run' in err
    assert name in err and found in err


_ORDER = '''
import sys
import numpy as np
import run_exported
jax = run_exported.import_jax()
description = run_exported.read_description(sys.argv[1])
images, labels = run_exported.read_data(sys.argv[1])
trainer = run_exported.Trainer(sys.argv[1], description, images, np.arange(40),
                               0, 'highest')
trainer._augment = lambda images, *_: [images / 255.0]
seen = []
trainer._step = lambda images, labels, step: [0.0, 1.0, step + 1, labels]
description['step'] = dict(
    arguments=[dict(name=n, kind='input') for n in ('images', 'labels')]
    + [dict(name='global_step', kind='state')],
    results=[dict(name=n) for n in ('loss', 'selected', 'global_step', 'x')])
state = {'global_step': jax.numpy.zeros([], 'int64'),
         'x': jax.numpy.zeros([8], 'int64')}
for step in range(10):
  state, _, _ = trainer.run(state, step, 1)
  seen += state['x'].tolist()
assert sorted(seen[:40]) == sorted(seen[40:]) == list(range(40)), seen
assert seen[:40] != seen[40:] and seen[:40] != list(range(40))
'''


def test_every_image_once_an_epoch(exported):
  subprocess.run([PYTHON, '-c', _ORDER, exported], check=True,
                 env=dict(os.environ, PYTHONPATH=CODE))


def test_a_signal_ends_it_with_a_checkpoint(exported, tmp_path):
  process = _start(exported, tmp_path / 'run')
  for line in process.stdout:
    if ' step 1/' in line:
      break
  process.send_signal(signal.SIGTERM)
  out, err = process.communicate()
  assert process.returncode == 128 + signal.SIGTERM, err
  assert 'stopped by SIGTERM' in out
  path, = (tmp_path / 'run').glob('*.npz')
  step = int(path.name.split('-')[1].split('.')[0])
  assert 'at step %d,' % step in out
  assert _arrays(tmp_path / 'run', step)['global_step'] == step


def test_a_loss_that_is_no_number(data_dir, tmp_path):
  exported = _export(data_dir, tmp_path / 'exported', method='cross_entropy',
                     learning_rate=1e30)
  code, _, err = _run(exported, tmp_path / 'run', '--steps=20')
  assert code == 1 and len(err.splitlines()) == 1
  assert 'not a number' in err and '--learning_rate' in err
  assert not list((tmp_path / 'run').glob('*.npz'))


def test_benchmark(exported, tmp_path):
  path = tmp_path / 'figures.json'
  code, out, err = _run(exported, tmp_path / 'run', '--steps=0',
                        '--benchmark=5', '--benchmark_json=%s' % path)
  assert code == 0, err
  figures = json.loads(path.read_text())
  assert figures['ms_per_step'] > 0 and figures['matmul_tflops'] > 0
  assert figures['steps'] == 5
  assert 'ms per step' in out and 'is already at step 0 of 0' in out
  assert not list((tmp_path / 'run').glob('*.npz'))


@pytest.mark.parametrize('slip,named', [
    (['--steps=100001'], ['--steps=100001', '100000']),
    (['--benchmark_json=x.json'], ['--benchmark']),
    (['--exported_dir=nowhere'], ['nowhere', 'export_step.py']),
    (['--output_dir=/dev/null/x'], ['--output_dir=/dev/null/x']),
])
def test_slips_are_one_line(slip, named, exported, tmp_path):
  code, _, err = _run(exported, tmp_path / 'run', *slip)
  assert code == 2 and len(err.splitlines()) == 1
  for text in named:
    assert text in err


@pytest.mark.parametrize('name', ['step.json', 'step.stablehlo', 'state.npz',
                                  'data.npz'])
def test_damaged_files_are_one_line(name, exported, tmp_path):
  copy = tmp_path / 'copy'
  shutil.copytree(exported, str(copy))
  data = (copy / name).read_bytes()
  (copy / name).write_bytes(data[:len(data) // 2])
  code, _, err = _run(str(copy), tmp_path / 'run', '--steps=1')
  assert code == 2 and len(err.splitlines()) == 1
  assert name in err


def test_another_run_is_not_touched(exported, tmp_path):
  run = tmp_path / 'run'
  run.mkdir()
  with open(os.path.join(exported, 'step.json')) as f:
    settings = json.load(f)['settings']
  config_lib.save(config_lib.TrainConfig(**settings)._replace(
      learning_rate=0.5), str(run))
  (run / 'model.ckpt-1.npz').write_bytes(b'')
  code, _, err = _run(exported, run, '--steps=1')
  assert code == 2 and len(err.splitlines()) == 1
  assert '--learning_rate is 0.5 there, 0.01 here' in err
  with files.only_writer(str(run), 'output_dir'):
    code, _, err = _run(exported, run, '--steps=1')
  assert code == 2 and len(err.splitlines()) == 1
  assert 'is in use by process %d on' % os.getpid() in err


def test_it_needs_no_tensorflow():
  subprocess.run(
      [sys.executable, '-c', 'import sys; sys.modules["tensorflow"] = None\n'
       'import run_exported'], check=True,
      env=dict(os.environ, PYTHONPATH=CODE))
