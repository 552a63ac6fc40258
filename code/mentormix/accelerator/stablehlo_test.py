"""The exported modules in JAX against the graph in TensorFlow."""
import os
import re

import numpy as np
import pytest

from mentormix import config as config_lib
from mentormix import testing
from mentormix.accelerator import stablehlo
from mentormix.data import datasets
from mentormix.mentornet import loading as mentornet_loading
from mentormix.runtime import tf
from mentormix.students import resnet

jax = pytest.importorskip('jax')  # There is none for TensorFlow 1.15.
from mentormix.accelerator import jax_runner

STEPS = 50


def _export(digits, directory, **settings):
  """Returns (config, directory, description, initial state)."""
  config = config_lib.TrainConfig(**testing.train_settings(
      digits, batch_size=8, max_number_of_steps=100, train_log_dir='unused',
      **settings))
  description = stablehlo.export(config, str(directory))
  with np.load(os.path.join(str(directory), stablehlo.STATE)) as arrays:
    return config, str(directory), description, dict(arrays)


@pytest.fixture(scope='module')
def exported(digits, tmp_path_factory):
  return _export(digits, tmp_path_factory.mktemp('exported'),
                 example_dropout_rates='0.5,100', burn_in_epoch=20,
                 learning_rate=0.001)


def _feeds(module, steps):
  """Inputs and draws of some steps, name -> array [steps, ...]."""
  random = np.random.RandomState(0)
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


def _graph(config, description):
  network = mentornet_loading.load(config.trained_mentornet_dir,
                                   config.loss_p_percentile)
  return stablehlo.build_step(config, datasets.get('digits'),
                              description['num_examples'], network)


def _in_tensorflow(step, state, feeds):
  """(outputs, state) of a session from the same graph, state and feeds."""
  with tf.Session(graph=step.graph) as session:
    session.run([v.initializer for v in step.variables],
                {v.initial_value: state[v.op.name] for v in step.variables})
    outputs = [session.run(
        list(step.outputs.values()),
        {step.placeholders[name]: array[k] for name, array in feeds.items()})
               for k in range(len(feeds['images']))]
    return np.array(outputs), session.run({v.op.name: v
                                           for v in step.variables})


def _in_jax(directory, description, module, state, feeds, precision='highest'):
  """(outputs, state, precisions of the products) of the module in JAX."""
  rows = description[module]
  function = jax.jit(jax_runner.load_module(
      os.path.join(directory, f'{module}.stablehlo'), rows, precision))
  values, outputs = dict(state), []
  for k in range(len(feeds['images'])):
    values.update((name, array[k]) for name, array in feeds.items())
    arguments = [values[row['name']] for row in rows['arguments']]
    for row, result in zip(rows['results'], function(*arguments)):
      values[row['name']] = result
    outputs.append([values[row['name']] for row in rows['results']
                    if row['kind'] == 'output'])
  text = function.lower(*arguments).as_text()
  precisions = (re.findall(r'precision *= *\[(\w+)', text)
                + re.findall(r'#stablehlo<precision (\w+)>', text))
  return (np.array(outputs), {name: values[name] for name in state},
          set(precisions))


def _assert_same_losses(actual, expected):
  np.testing.assert_allclose(actual[:, 0], expected[:, 0], rtol=1e-5, atol=1e-7)
  np.testing.assert_array_equal(actual[:, 1], expected[:, 1])


def test_step_with_a_smooth_activation(digits, tmp_path, monkeypatch):
  """50 steps: the same losses and weights.

  Measured: 2e-7 in the loss; 4e-7 at a learning rate of 0.1.
  """
  monkeypatch.setattr(resnet, '_activate', tf.nn.softplus)
  config, directory, description, state = _export(
      digits, tmp_path, second_reweight=False, learning_rate=0.01)
  feeds = _feeds(description['step'], STEPS)
  expected, expected_state = _in_tensorflow(_graph(config, description), state,
                                            feeds)
  outputs, state, precisions = _in_jax(directory, description, 'step', state,
                                       feeds)
  _assert_same_losses(outputs, expected)
  assert state['global_step'] == expected_state['global_step'] == STEPS
  assert precisions == {'HIGHEST'}
  for name, value in expected_state.items():
    size = np.abs(value).max()
    # These are added to values of unit variance and may be close to 0.
    if any(part in name for part in ('/beta', '/moving_mean')):
      size = max(size, 1.0)
    assert np.abs(state[name] - value).max() <= 3e-5 * size, name


def test_step_with_leaky_relu(exported):
  """50 steps: the same losses at a low learning rate.

  Where a value is close to the kink at 0, a rounding difference becomes a
  difference of the gradient, which the learning rate multiplies. With weight
  decay, the losses differed by 4e-4 after 50 steps at a learning rate of 0.01,
  and by 5e-2 at 0.1.

  In one of these steps, a loss is where the second MentorNet is steep: changing
  the initial weights by 1e-7 changes the loss of that step by up to 5e-4 in
  TensorFlow, too.
  """
  config, directory, description, state = exported
  feeds = _feeds(description['step'], STEPS)
  expected, _ = _in_tensorflow(_graph(config, description), state, feeds)
  outputs, _, _ = _in_jax(directory, description, 'step', state, feeds)
  steep = np.abs(outputs - expected)[:, 0].argmax()
  np.testing.assert_allclose(outputs[steep], expected[steep], rtol=2e-3)
  _assert_same_losses(np.delete(outputs, steep, axis=0),
                      np.delete(expected, steep, axis=0))


def test_augmentation(exported):
  _, directory, description, _ = exported
  feeds = _feeds(description['augment'], 2)
  graph = stablehlo.build_augmentation(8, 32)
  expected, _ = _in_tensorflow(graph, {}, feeds)
  outputs, _, _ = _in_jax(directory, description, 'augment', {}, feeds)
  assert expected.shape == (2, 1, 8, 32, 32, 3) and expected.std() > 0.1
  np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-5)


def test_light_augmentation(tmp_path):
  """Its flips are an input."""
  with tf.Graph().as_default():
    graph = stablehlo.build_augmentation(8, 32, 'light')
  assert sorted(graph.draws) == ['integers_0', 'integers_1']
  random = np.random.RandomState(0)
  feeds = {'images': random.randint(0, 256, [1, 8, 32, 32, 3]),
           'flip': random.rand(1, 8) < .5,
           'integers_0': random.randint(-2, 3, [1, 8]),
           'integers_1': random.randint(-2, 3, [1, 8])}
  expected, _ = _in_tensorflow(graph, {}, feeds)
  module, description = stablehlo._lower(graph, {})
  (tmp_path / 'augment.stablehlo').write_bytes(module)
  feeds = {row['name']: feeds[row['name']].astype(row['dtype'])
           for row in description['arguments']}
  outputs, _, _ = _in_jax(str(tmp_path), {'augment': description}, 'augment',
                          {}, feeds)
  assert expected.shape == (1, 1, 8, 32, 32, 3) and expected.std() > 0.1
  np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_bfloat16(digits, tmp_path):
  config, directory, description, state = _export(
      digits, tmp_path, precision='mixed', learning_rate=0.01)
  feeds = _feeds(description['step'], 3)
  outputs, new_state, precisions = _in_jax(directory, description, 'step',
                                           state, feeds, 'default')
  assert 'HIGHEST' not in precisions
  expected, _ = _in_tensorflow(
      _graph(config._replace(precision='float32'), description), state, feeds)
  np.testing.assert_allclose(outputs[:, 0], expected[:, 0], rtol=0.05)
  assert (outputs[:, 0] != expected[:, 0]).any()  # Another arithmetic.
  assert all(value.dtype == state[name].dtype
             for name, value in new_state.items())
