"""The architecture of the published MentorNet."""
from mentormix.mentornet.weights import lstm_name, SHAPES
from mentormix.runtime import tf

NUM_FEATURES = 4  # loss, loss - average, label, epoch percentage.


def network(features, weights):
  """Builds the published architecture, without its final sigmoid.

  Args:
    features: [B, 4] float32: loss, loss minus its moving average, label, epoch
      percentage. Label and epoch are truncated to integers, and the epoch is
      clipped to the rows of its embedding (as published: 0 to 99).
    weights: name -> tensor, with the names of `SHAPES`, of any size.

  Returns:
    Logits [B] float32; the weight is their sigmoid.
  """
  w = lambda name: weights['mentornet/' + name]
  label = tf.gather(w('label_embedding'), tf.cast(features[:, 2], tf.int32))
  last = w('epoch_embedding').shape[0].value - 1
  epoch = tf.gather(w('epoch_embedding'), tf.clip_by_value(
      tf.cast(features[:, 3], tf.int32), 0, last))
  losses = features[:, :2]
  cells = [_lstm_cell_state(losses, weights[lstm_name(direction, 'kernel')],
                            weights[lstm_name(direction, 'bias')])
           for direction in ('fw', 'bw')]
  x = tf.concat([label, epoch] + cells, axis=1)  # Published: [B, 9],
  hidden = tf.tanh(tf.matmul(x, w('Variable')) + w('Variable_1'))  # [B, 20].
  # The published network adds the bias to the weights, before the product.
  return tf.squeeze(tf.matmul(hidden, w('Variable_2') + w('Variable_3')), 1)


def _lstm_cell_state(x, kernel, bias):
  """Cell state after one step of an LSTM from zero state, forget bias 0.

  With a zero state, the recurrent rows of `kernel` and the forget gate have no
  effect.
  """
  gates = tf.matmul(x, kernel[:x.shape[1].value]) + bias
  i, j, _, _ = tf.split(gates, 4, axis=1)
  return tf.sigmoid(i) * tf.tanh(j)


def from_weights(weights):
  """Makes a network from its weights.

  Args:
    weights: name -> array, with the names of `SHAPES`.

  Returns:
    A function: features [B, 4] -> v [B], both float32.
  """
  return lambda features: tf.sigmoid(network(features, constants(weights)))


def constants(weights):
  return {name: tf.constant(weights[name], tf.float32, name=name)
          for name, _ in SHAPES}
