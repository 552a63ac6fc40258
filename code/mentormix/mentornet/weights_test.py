"""Tests of the weights of a MentorNet and of their checkpoints."""
import os

import hypothesis
import numpy as np
import pytest

from mentormix import runtime
from mentormix import testing
from mentormix.mentornet import frozen_graph
from mentormix.mentornet import network
from mentormix.mentornet import weights as weights_lib
from mentormix.messages import RunError, UserError
from mentormix.runtime import tf

FW = 'mentornet/bidirectional_rnn/fw/basic_lstm_cell/'


def test_shapes():
  assert weights_lib.shapes((10, 3), (50, 4), 2, 7) == (
      ('mentornet/label_embedding', (10, 3)),
      ('mentornet/epoch_embedding', (50, 4)),
      (FW + 'kernel', (4, 8)),
      (FW + 'bias', (8,)),
      ('mentornet/bidirectional_rnn/bw/basic_lstm_cell/kernel', (4, 8)),
      ('mentornet/bidirectional_rnn/bw/basic_lstm_cell/bias', (8,)),
      ('mentornet/Variable', (11, 7)),
      ('mentornet/Variable_1', (7,)),
      ('mentornet/Variable_2', (7, 1)),
      ('mentornet/Variable_3', (1,)))


def test_valid_weights_are_kept(random_weights):
  weights = random_weights(lstm=3)
  arrays = dict(weights, other=np.zeros([3]))
  arrays['mentornet/Variable'] = np.float64(weights['mentornet/Variable'])
  found = weights_lib.check(arrays, 'here')
  assert list(found) == [name for name, _ in weights_lib.SHAPES]
  for name, value in weights.items():
    assert found[name].dtype == np.float32
    np.testing.assert_array_equal(found[name], value)


def test_everything_missing_is_named(random_weights):
  weights = random_weights()
  del weights['mentornet/epoch_embedding'], weights[FW + 'bias']
  with pytest.raises(UserError) as error:
    weights_lib.check(weights, 'here')
  assert str(error.value) == (
      'here is not a MentorNet: it does not hold '
      f'mentornet/epoch_embedding, {FW}bias')


@pytest.mark.parametrize('name,edit,faults', [
    ('mentornet/Variable', lambda x: x[1:],
     ['mentornet/Variable has the shape [8, 20] where [9, 20] would fit']),
    (FW + 'bias', lambda x: x[:3],
     [FW + 'bias has the shape [3] where [4] would fit']),
    # Which one is wrong cannot be known: all that disagree are named.
    ('mentornet/Variable', lambda x: x[:, 1:],
     ['mentornet/Variable_1 has the shape [20] where [19] would fit',
      'mentornet/Variable_2 has the shape [20, 1] where [19, 1] would fit']),
    ('mentornet/label_embedding', lambda x: x[0],
     ['mentornet/label_embedding has the shape [2] where [2, 2] would fit']),
    ('mentornet/epoch_embedding', lambda x: x[:0],
     ['mentornet/epoch_embedding has the shape [0, 5] where [1, 5] would fit']),
    ('mentornet/Variable_3', lambda x: x[0],
     ['mentornet/Variable_3 has the shape [] where [1] would fit']),
    ('mentornet/Variable', lambda x: x[0, 0],
     ['mentornet/Variable has the shape [] where [9, 1] would fit',
      'mentornet/Variable_1 has the shape [20] where [1] would fit',
      'mentornet/Variable_2 has the shape [20, 1] where [1, 1] would fit']),
    ('mentornet/Variable_1', np.int64,
     ['mentornet/Variable_1 does not hold finite float32 numbers']),
    ('mentornet/Variable_1', lambda x: np.where(np.arange(20) == 7, np.nan, x),
     ['mentornet/Variable_1 does not hold finite float32 numbers']),
    ('mentornet/Variable_1', lambda x: np.float64(x) * 1e300,
     ['mentornet/Variable_1 does not hold finite float32 numbers']),
])
def test_everything_that_does_not_fit_is_named(name, edit, faults,
                                               random_weights):
  weights = random_weights()
  weights[name] = edit(weights[name])
  with pytest.raises(UserError) as error:
    weights_lib.check(weights, 'here')
  assert str(error.value) == 'here is not a MentorNet: ' + '; '.join(faults)


@pytest.mark.parametrize('sizes', [
    {}, dict(label=(10, 3), epoch=(50, 2), lstm=5, hidden=7)], ids=str)
def test_a_plain_graph_restores_it(sizes, random_weights, tmp_path):
  weights = random_weights(**sizes)
  made = tmp_path / 'made'
  made.mkdir()
  weights_lib.write_checkpoint(weights, str(made / 'model.ckpt'))
  assert {p.name for p in made.iterdir()} == {
      'checkpoint', 'model.ckpt.index', 'model.ckpt.data-00000-of-00001'}
  made.rename(tmp_path / 'moved')
  prefix = tf.train.latest_checkpoint(str(tmp_path / 'moved'))
  assert prefix == str(tmp_path / 'moved' / 'model.ckpt')
  found = weights_lib.read_checkpoint(prefix)
  with tf.Graph().as_default(), tf.Session() as session:
    with tf.variable_scope('mentornet'):
      variables = {
          name: tf.get_variable(name[len('mentornet/'):], value.shape)
          for name, value in weights.items()}
    tf.train.Saver().restore(session, prefix)  # All of them, no other.
    restored = session.run(variables)
  assert len(tf.train.list_variables(prefix)) == len(weights)
  for name, value in weights.items():
    np.testing.assert_array_equal(restored[name], value, name)
    np.testing.assert_array_equal(found[name], value, name)


@pytest.mark.skipif(runtime.VERSION.startswith('2'),
                    reason='TensorFlow 2 has no LSTM cell without Keras')
@pytest.mark.parametrize('lstm', [1, 2, 5])
def test_the_cell_of_tensorflow_restores_it(lstm, random_weights, tmp_path):
  """As the published code builds it: same names, same order of the gates."""
  weights = random_weights(lstm=lstm)
  prefix = str(tmp_path / 'model.ckpt')
  weights_lib.write_checkpoint(weights, prefix)
  points = frozen_graph.probe_points()
  with tf.Graph().as_default(), tf.Session() as session:
    ours = tf.sigmoid(network.network(
        tf.constant(points),
        {name: tf.constant(value) for name, value in weights.items()}))
    with tf.variable_scope('mentornet'):
      embedded = [
          tf.nn.embedding_lookup(
              tf.get_variable(name, weights['mentornet/' + name].shape),
              points[:, column].astype(np.int32))
          for name, column in (('label_embedding', 2), ('epoch_embedding', 3))]
      cells = [tf.nn.rnn_cell.BasicLSTMCell(lstm, forget_bias=0.0)
               for _ in range(2)]
      _, forward, backward = tf.nn.static_bidirectional_rnn(
          cells[0], cells[1], [tf.constant(points[:, :2])], dtype=tf.float32)
      dense = [tf.get_variable(name, weights['mentornet/' + name].shape)
               for name in ('Variable', 'Variable_1', 'Variable_2',
                            'Variable_3')]
    x = tf.concat(embedded + [forward.c, backward.c], 1)
    hidden = tf.tanh(tf.nn.xw_plus_b(x, dense[0], dense[1]))
    published = tf.sigmoid(tf.matmul(hidden, dense[2] + dense[3]))[:, 0]
    tf.train.Saver().restore(session, prefix)
    ours, published = session.run([ours, published])
  np.testing.assert_allclose(ours, published, rtol=1e-5, atol=1e-6)


DATA, INDEX = 'model.ckpt.data-00000-of-00001', 'model.ckpt.index'


@pytest.mark.parametrize('name,damage', [
    (DATA, lambda data: data[:100]), (DATA, lambda data: b''),
    (DATA, lambda data: b'\0' * len(data)), (DATA, None),
    (INDEX, lambda data: data[:100]), (INDEX, lambda data: b''),
    (INDEX, lambda data: b'junk'), (INDEX, None)])
def test_damaged_checkpoints(name, damage, random_weights, tmp_path):
  prefix = str(tmp_path / 'model.ckpt')
  weights_lib.write_checkpoint(random_weights(), prefix)
  path = tmp_path / name
  if damage:
    path.write_bytes(damage(path.read_bytes()))
  else:
    path.unlink()
  with pytest.raises(UserError) as error:
    weights_lib.read_checkpoint(prefix)
  assert str(error.value).startswith(prefix + ' is a damaged checkpoint')
  assert '\n' not in str(error.value)


def test_a_place_that_cannot_be_written(random_weights, tmp_path):
  os.makedirs(str(tmp_path / 'model.ckpt.index'))  # In the file's place.
  with pytest.raises(RunError, match='model.ckpt cannot be written'):
    weights_lib.write_checkpoint(random_weights(),
                                 str(tmp_path / 'model.ckpt'))


@pytest.mark.parametrize('name', [DATA, INDEX])
def test_random_damage(name, random_weights, tmp_path):
  """Gives the weights that were written, or a clean error."""
  weights = random_weights()
  prefix = str(tmp_path / 'model.ckpt')
  weights_lib.write_checkpoint(weights, prefix)
  path = tmp_path / name

  @hypothesis.settings(max_examples=25, deadline=None, database=None)
  @hypothesis.given(testing.damaged(path.read_bytes()))
  def check(data):
    path.write_bytes(data)
    try:
      found = weights_lib.read_checkpoint(prefix)
    except UserError as error:
      assert '\n' not in str(error)
    else:
      for key, value in weights.items():
        np.testing.assert_array_equal(found[key], value, key)

  check()
