"""The exported step against TensorFlow's own, and what the commands refuse.

JAX and TensorFlow never share a process: what one of them computes, the other
reads from a file.
"""
import functools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from mentormix.accelerator import stablehlo
from mentormix import config as config_lib
from mentormix.data import datasets
from mentormix.mentornet import loading as mentornet_loading
from mentormix import runtime
from mentormix.runtime import tf
from mentormix.students import resnet
from mentormix import testing

CODE = os.path.dirname(os.path.abspath(__file__))
SCRIPT = os.path.join(CODE, 'export_step.py')
MENTORNET = os.path.join(CODE, os.pardir, 'mentornet_models', 'mentornet_pd')
NUM_EXAMPLES = 40
STEPS = 50

needs_2_x = pytest.mark.skipif(
    runtime.IS_1_15, reason='TensorFlow 1.15 cannot write StableHLO')


def _find_jax():
  """A Python that has JAX, or None."""
  for python in (os.environ.get('MENTORMIX_JAX_PYTHON'), sys.executable):
    if python and subprocess.run(
        [python, '-c', 'import jax, absl'], stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL).returncode == 0:
      return python
  return None


JAX_PYTHON = None if runtime.IS_1_15 else _find_jax()
needs_jax = pytest.mark.skipif(
    not JAX_PYTHON, reason='no Python with JAX: neither this one nor '
    'MENTORMIX_JAX_PYTHON')

# Takes steps with the inputs and draws of a file; prints the precisions.
_TAKE_STEPS = '''
import json, os, re, sys
import numpy as np
import run_exported
exported, module, feeds, out, precision = sys.argv[1:]
jax = run_exported.import_jax()
description = run_exported.read_description(exported)
values = run_exported.read_state(os.path.join(exported, 'state.npz'),
                                 description)
state = list(values)
with np.load(feeds) as arrays:
  feeds = dict(arrays)
function = jax.jit(run_exported.load_module(
    os.path.join(exported, module + '.stablehlo'), description[module],
    precision))
description = description[module]
outputs = []
for k in range(len(feeds['images'])):
  values.update((name, array[k]) for name, array in feeds.items())
  arguments = [values[row['name']] for row in description['arguments']]
  for row, result in zip(description['results'], function(*arguments)):
    values[row['name']] = result
  outputs.append([values[row['name']] for row in description['results']
                  if row['kind'] == 'output'])
np.savez(out, outputs=np.array(outputs), **{name: values[name]
                                            for name in state})
text = function.lower(*arguments).as_text()
print(json.dumps(re.findall(r'precision *= *\\[(\\w+)', text) +
                 re.findall(r'#stablehlo<precision (\\w+)>', text)))
'''


def write_data(directory, count=NUM_EXAMPLES):
  """Writes a data set of as many images; its classes differ in brightness."""
  random = np.random.RandomState(0)
  for split in ('train', 'test'):
    classes = np.arange(count) % 10
    testing.write_records(
        os.path.join(directory, 'cifar10_%s-0' % split),
        random.randint(0, 56, size=[count, 32, 32, 3])
        + 20 * classes.reshape(-1, 1, 1, 1), classes, classes)


def train_config(data_dir, **settings):
  return config_lib.TrainConfig(**dict(dict(
      data_dir=data_dir, train_log_dir='exported', dataset_name='cifar10',
      studentnet='resnet8_thin', batch_size=8, max_number_of_steps=100,
      trained_mentornet_dir=MENTORNET, learning_rate=0.01), **settings))


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  directory = str(tmp_path_factory.mktemp('data'))
  write_data(directory)
  return directory


def _feeds(module, steps, random):
  """Inputs and draws of some steps, name -> array [steps, ...]."""
  patterns = random.uniform(-0.5, 0.5, [10, 32, 32, 3])  # One for each class.
  labels = random.randint(0, 10, [steps, 8])
  make = {
      'labels': lambda row, shape: labels,
      'images': lambda row, shape: (
          patterns[labels] + random.uniform(-0.5, 0.5, shape)
          if row['dtype'] == 'float32' else random.randint(0, 256, shape)),
      'gumbel': lambda row, shape: random.gumbel(size=shape),
      'beta': lambda row, shape: random.beta(row['alpha'], row['alpha'], shape),
      'integers': lambda row, shape: random.randint(
          row['low'], row['high'] + 1, shape),
      'uniform': lambda row, shape: random.uniform(row['low'], row['high'],
                                                   shape)}
  return {row['name']: make[row.get('distribution', row['name'])](
      row, [steps] + row['shape']).astype(row['dtype'])
          for row in module['arguments'] if row['kind'] != 'state'}


def _in_tensorflow(step, state, feeds):
  """What a session makes of the same graph, state and feeds."""
  placeholders = dict(step.inputs)
  placeholders.update((name, draw) for name, (draw, _) in step.draws.items())
  with tf.Session(graph=step.graph) as session:
    for v in step.variables:
      v.load(state[v.op.name], session)
    outputs = [session.run(
        list(step.outputs.values()),
        {placeholders[name]: array[k] for name, array in feeds.items()})
               for k in range(len(feeds['images']))]
    return np.array(outputs), {v.op.name: session.run(v)
                               for v in step.variables}


def _graph(config):
  network = mentornet_loading.load(config.trained_mentornet_dir,
                           config.loss_p_percentile)
  return stablehlo.build_step(config, datasets.get('cifar10'), NUM_EXAMPLES,
                                network)


def _in_jax(exported, module, feeds, tmp_path, precision='highest'):
  np.savez(str(tmp_path / 'feeds.npz'), **feeds)
  out = str(tmp_path / 'out.npz')
  done = subprocess.run(
      [JAX_PYTHON, '-c', _TAKE_STEPS, exported, module,
       str(tmp_path / 'feeds.npz'), out, precision],
      env=dict(os.environ, PYTHONPATH=CODE), stdout=subprocess.PIPE,
      stderr=subprocess.PIPE)
  assert done.returncode == 0, done.stderr.decode()
  with np.load(out) as arrays:
    state = dict(arrays)
  return state.pop('outputs'), state, json.loads(done.stdout.decode())


def _export(config, tmp_path):
  exported = tmp_path / 'exported'
  exported.mkdir()
  description = stablehlo.export(config, str(exported))
  with np.load(str(exported / stablehlo.STATE)) as arrays:
    return str(exported), description, dict(arrays)


@needs_2_x
@needs_jax
@pytest.mark.parametrize('smooth,settings', [
    (True, dict(second_reweight=False)),
    (False, dict(example_dropout_rates='0.5,100', burn_in_epoch=20,
                 learning_rate=0.001)),
], ids=['smooth', 'leaky'])
def test_the_module_is_the_graph(smooth, settings, data_dir, tmp_path,
                                 monkeypatch):
  """50 steps: the same losses; with a smooth activation the same weights.

  Reached with it: 2e-7 in the loss; 4e-7 at a learning rate of 0.1. An
  activation that has a kink turns a difference of rounding into one of the
  gradient wherever a value lies next to zero, which the learning rate then
  multiplies: with leaky ReLU and weight decay the losses were 4e-4 apart after
  50 steps at a learning rate of 0.01, and 5e-2 at 0.1. Hence the low one.
  """
  if smooth:
    monkeypatch.setattr(resnet, '_activate', tf.nn.softplus)
  config = train_config(data_dir, **settings)
  exported, description, state = _export(config, tmp_path)
  feeds = _feeds(description['step'], STEPS, np.random.RandomState(0))
  expected, expected_state = _in_tensorflow(_graph(config), state, feeds)
  outputs, state, precisions = _in_jax(exported, 'step', feeds, tmp_path)
  np.testing.assert_allclose(outputs[:, 0], expected[:, 0], rtol=1e-5,
                             atol=1e-7)
  np.testing.assert_array_equal(outputs[:, 1], expected[:, 1])
  assert state['global_step'] == expected_state['global_step'] == STEPS
  assert set(precisions) == {'HIGHEST'}
  if not smooth:
    return
  for name, value in expected_state.items():
    size = np.abs(value).max()
    # What is added to values of unit variance is next to nothing by chance.
    if any(part in name for part in ('/beta', '/moving_mean')):
      size = max(size, 1.0)
    assert np.abs(state[name] - value).max() <= 3e-5 * size, name


@needs_2_x
@needs_jax
def test_the_augmentation(data_dir, tmp_path):
  config = train_config(data_dir)
  exported, description, _ = _export(config, tmp_path)
  feeds = _feeds(description['augment'], 2, np.random.RandomState(0))
  graph = stablehlo.build_augmentation(8, 32)
  expected, _ = _in_tensorflow(graph, {}, feeds)
  outputs, _, _ = _in_jax(exported, 'augment', feeds, tmp_path)
  assert expected.shape == (2, 1, 8, 32, 32, 3) and expected.std() > 0.1
  np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-5)


@needs_2_x
@needs_jax
def test_bfloat16(data_dir, tmp_path):
  config = train_config(data_dir, precision='mixed')
  exported, description, state = _export(config, tmp_path)
  assert description['precision'] == 'mixed'
  feeds = _feeds(description['step'], 3, np.random.RandomState(0))
  outputs, new_state, precisions = _in_jax(
      exported, 'step', feeds, tmp_path, 'default')
  assert 'HIGHEST' not in precisions
  expected, _ = _in_tensorflow(
      _graph(config._replace(precision='float32')), state, feeds)
  np.testing.assert_allclose(outputs[:, 0], expected[:, 0], rtol=0.05)
  assert (outputs[:, 0] != expected[:, 0]).any()  # It is another arithmetic.
  assert all(value.dtype == state[name].dtype
             for name, value in new_state.items())


@needs_2_x
def test_what_step_json_says(data_dir, tmp_path):
  config = train_config(data_dir, example_dropout_rates='0.5,100')
  exported, description, state = _export(config, tmp_path)
  with open(os.path.join(exported, stablehlo.DESCRIPTION)) as f:
    assert json.load(f) == description
  assert config_lib.TrainConfig(**description['settings']) == config
  assert description['steps_per_epoch'] == NUM_EXAMPLES / 8
  step = description['step']
  draws = [{k: v for k, v in row.items() if k not in ('name', 'kind', 'dtype')}
           for row in step['arguments'] if row['kind'] == 'draw']
  uniform = dict(distribution='uniform', low=0.0, high=1.0, shape=[8])
  assert draws == [
      uniform, dict(distribution='gumbel', shape=[8, 8]),
      dict(distribution='beta', alpha=8.0, shape=[8]), uniform]
  assert {row['name'] for row in step['arguments']
          if row['kind'] == 'state'} == set(state)
  # Every variable moves in a step.
  assert [row['name'] for row in step['results']][2:] == [
      row['name'] for row in step['arguments'] if row['kind'] == 'state']
  # Two passes forward and one back, which is two products for each; the input
  # of the first layer needs no gradient. And a little for the MentorNet.
  widths = [(3, 16, 32)] + 2 * [(16, 16, 32)] + [
      (16, 32, 16), (32, 32, 16), (32, 64, 8), (64, 64, 8)]
  products = [9 * i * o * size ** 2 for i, o, size in widths] + [640]
  np.testing.assert_allclose(
      description['flops_per_step'], 2 * 8 * (4 * sum(products) - products[0]),
      rtol=1e-3)


@needs_2_x
def test_the_data(data_dir, tmp_path):
  exported, _, _ = _export(train_config(data_dir), tmp_path)
  with np.load(os.path.join(exported, stablehlo.DATA)) as arrays:
    assert arrays['images'].shape == (NUM_EXAMPLES, 32, 32, 3)
    assert arrays['images'].dtype == np.uint8
    assert arrays['labels'].tolist() == [n % 10 for n in range(NUM_EXAMPLES)]
    assert (arrays['clean_labels'] == arrays['labels']).all()


_run = functools.partial(testing.run, SCRIPT)


@pytest.mark.skipif(not runtime.IS_1_15, reason='this is TensorFlow 2.x')
def test_1_15_cannot(data_dir, tmp_path):
  code, _, err = _run(tmp_path, '--data_dir=' + data_dir, '--output_dir=out',
                      '--trained_mentornet_dir=threshold')
  assert code == 2 and len(err.splitlines()) == 1
  assert 'TensorFlow 2.x' in err
  assert not list(tmp_path.iterdir())


@needs_2_x
@pytest.mark.parametrize('args,named', [
    ([], ['output_dir', 'must be given']),
    (['--output_dir=out', '--trained_mentornet_dir='],
     ['--trained_mentornet_dir']),
    (['--output_dir=out', '--trained_mentornet_dir=v_star:self_paced'],
     ['--trained_mentornet_dir=v_star:self_paced', 'train_mentornet.py']),
    (['--output_dir=out', '--batch_size=41'],
     ['--batch_size=41', '40 examples']),
    (['--output_dir=/dev/null'], ['--output_dir=/dev/null']),
], ids=['no_output', 'no_mentornet', 'formula', 'batch', 'no_directory'])
def test_slips_are_one_line(args, named, data_dir, tmp_path):
  code, _, err = _run(tmp_path, '--data_dir=' + data_dir,
                      '--dataset_name=cifar10',
                      '--trained_mentornet_dir=threshold', *args)
  assert code == 2 and len(err.splitlines()) == 1
  for text in named:
    assert text in err
  assert not list(tmp_path.iterdir())
