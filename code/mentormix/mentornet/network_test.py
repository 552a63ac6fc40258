"""The network against the published numbers and a NumPy reference."""
import numpy as np
import pytest

from mentormix.mentornet import network as network_lib
from mentormix.mentornet import weights as weights_lib
from mentormix.runtime import tf


def _outputs(weights, features):
  with tf.Session() as session:
    return session.run(network_lib.from_weights(weights)(tf.constant(features)))


def test_shapes_and_order_are_the_published_ones(golden):
  assert [n for n, _ in weights_lib.SHAPES] == list(golden['mn/var_order'])
  for name, shape in weights_lib.SHAPES:
    assert golden['mn/random/' + name].shape == shape


def test_network_and_reference_give_the_published_numbers(golden, weights):
  logits = network_lib.network(tf.constant(golden['mn/grid']),
                               network_lib.constants(weights))
  with tf.Session() as session:
    logits, v = session.run([logits, tf.sigmoid(logits)])
  np.testing.assert_allclose(logits, golden['mn/random/out_linear'][:, 0],
                             rtol=1e-5, atol=1e-5)
  for found in (v, _published(golden['mn/grid'], weights)):
    np.testing.assert_allclose(found, golden['mn/random/out_sigmoid'][:, 0],
                               rtol=1e-5, atol=1e-6)


def _published(features, weights):
  """The published network in NumPy, recurrent part and all: v [B]."""
  w = lambda name: np.float64(weights['mentornet/' + name])
  sigmoid = lambda x: 1 / (1 + np.exp(-x))
  x = np.float64(features)
  parts = [w('label_embedding')[x[:, 2].astype(int)],
           w('epoch_embedding')[np.clip(x[:, 3].astype(int), 0, 99)]]
  for direction in ('fw', 'bw'):
    cell = f'bidirectional_rnn/{direction}/basic_lstm_cell/'
    bias = w(cell + 'bias')
    h = c = np.zeros([len(x), len(bias) // 4])
    gates = np.concatenate([x[:, :2], h], axis=1) @ w(cell + 'kernel') + bias
    i, j, f, _ = np.split(gates, 4, axis=1)
    parts.append(c * sigmoid(f + 0.0) + sigmoid(i) * np.tanh(j))
  hidden = np.tanh(np.concatenate(parts, axis=1) @ w('Variable')
                   + w('Variable_1'))
  return sigmoid(hidden @ (w('Variable_2') + w('Variable_3')))[:, 0]


def _random_features(labels, epochs, size=500):
  random = np.random.RandomState(2)
  return np.stack([
      random.exponential(2, size), random.normal(size=size),
      random.randint(labels, size=size), random.randint(epochs, size=size)],
                  axis=1).astype(np.float32)


@pytest.mark.parametrize('sizes', [
    dict(), dict(lstm=2), dict(lstm=5), dict(label=(10, 3)),
    dict(epoch=(100, 2)), dict(epoch=(10, 5)), dict(hidden=7),
    dict(label=(10, 3), epoch=(50, 2), lstm=5, hidden=7)], ids=str)
def test_networks_of_any_size(sizes, random_weights):
  weights = random_weights(**sizes)
  features = _random_features(sizes.get('label', (2,))[0],
                              sizes.get('epoch', (100,))[0])
  np.testing.assert_allclose(_outputs(weights, features),
                             _published(features, weights), rtol=1e-4,
                             atol=1e-6)


@pytest.mark.parametrize('rows', [1, 10, 99, 100])
def test_epochs_are_clipped_to_their_embedding(rows, random_weights):
  weights = random_weights(epoch=(rows, 5))
  features = np.zeros([5, 4], np.float32)
  features[:, 3] = [-7, 0, 9.9, 99, 120]
  inside = np.copy(features)
  inside[:, 3] = np.minimum([0, 0, 9, 99, 99], rows - 1)
  np.testing.assert_allclose(_outputs(weights, features),
                             _published(inside, weights), rtol=1e-4, atol=1e-6)


def test_output_bias_is_added_to_the_weights(weights):
  features = np.array([[1.0, 0.5, 0, 3]], np.float32)
  moved = dict(weights)
  moved['mentornet/Variable_3'] = weights['mentornet/Variable_3'] + 0.25
  shifted = dict(weights)
  shifted['mentornet/Variable_2'] = weights['mentornet/Variable_2'] + 0.25
  logits = [network_lib.network(tf.constant(features), network_lib.constants(w))
            for w in (moved, shifted, weights)]
  with tf.Session() as session:
    moved, shifted, original = session.run(logits)
  np.testing.assert_allclose(moved, shifted, rtol=1e-5)
  assert abs(moved - original) > 1e-3
