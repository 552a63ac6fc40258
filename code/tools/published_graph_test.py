"""The published form against ours: the same numbers by other operations."""
import functools

import numpy as np
import published_graph
import pytest

from mentormix import students
from mentormix import testing
from mentormix.data import datasets
from mentormix.data import splits
from mentormix.runtime import tf

OURS = students.get('resnet8_thin')
PUBLISHED = functools.partial(published_graph.resnet, **OURS.keywords)
CIFAR10 = datasets.get('cifar10')


@pytest.fixture(autouse=True)
def fresh_graph():
  tf.reset_default_graph()
  tf.set_random_seed(7)


def _images(batch_size=8):
  values = np.random.RandomState(0).uniform(-1, 1, [batch_size, 16, 16, 3])
  return tf.constant(values.astype(np.float32))


def _close(actual, expected, tolerance):
  np.testing.assert_allclose(
      actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_logits_and_gradients_are_those_of_our_student():
  images = _images()
  labels = tf.one_hot(tf.range(8) % 5, 5)
  results = []
  for student in (OURS, PUBLISHED):
    with tf.variable_scope('', reuse=tf.AUTO_REUSE):
      logits = student(images, 5, True)
    variables = tf.trainable_variables()
    loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(
        labels=labels, logits=logits))
    results.append((logits, tf.gradients(loss, variables)))
    names = [v.op.name for v in tf.global_variables()]
    if student is OURS:
      our_names = names
  assert names == our_names  # The second added none.
  shake = [v.assign_add(0.1 * tf.random.normal(v.shape)) for v in variables]
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    session.run(shake)
    (logits, gradients), (published, published_gradients) = session.run(results)
  assert np.abs(logits).max() > 0.1
  _close(published, logits, 1e-4)
  assert len(gradients) == len(published_gradients) == len(variables)
  for ours, theirs in zip(gradients, published_gradients):
    _close(theirs, ours, 1e-3)


def test_moving_statistics_are_those_of_our_student():
  moved = []
  for student in (OURS, PUBLISHED):
    tf.reset_default_graph()
    tf.set_random_seed(7)
    student(_images(), 5, True)
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    kernels = [v for v in tf.trainable_variables() if v.op.name.endswith('DW')]
    fill = [v.assign(tf.reshape(tf.cos(tf.range(
        v.shape.num_elements(), dtype=tf.float32)), v.shape) / 10)
            for v in kernels]
    statistics = {v.op.name: v for v in tf.global_variables()
                  if 'moving' in v.op.name}
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      session.run(fill)
      session.run(updates)
      session.run(updates)
      moved.append(session.run(statistics))
  ours, published = moved
  assert len(ours) == 28 and set(ours) == set(published)
  for name, value in ours.items():
    assert np.abs(value - name.endswith('variance')).max() > 1e-4
    _close(published[name], value, 1e-4)


def test_a_pass_without_update_moves_no_statistics():
  PUBLISHED(_images(), 5, True, update_statistics=False)
  assert not tf.get_collection(tf.GraphKeys.UPDATE_OPS)


@pytest.mark.parametrize('wrong', [
    dict(is_training=False), dict(is_training=True, dtype=tf.bfloat16)])
def test_only_training_in_float32(wrong):
  with pytest.raises(ValueError, match='float32 only'):
    PUBLISHED(_images(), 5, **wrong)


def test_input_pairs_images_with_their_labels(tmp_path):
  """Image n is of one colour: no crop, flip or colour step hides its level."""
  path = str(tmp_path / 'cifar10_train-0')
  testing.write_records(
      path, [np.full([32, 32, 3], 40 if n % 2 else 210) for n in range(40)],
      [n % 2 for n in range(40)], [1 - n % 2 for n in range(40)])
  batch = published_graph.train_batch(
      splits.Split(CIFAR10, 'train', [datasets.Shard(path)], 40, ''), 8)
  assert batch.images.shape.as_list() == [8, 32, 32, 3]
  seen = set()
  with tf.Session() as session:
    coordinator = tf.train.Coordinator()
    threads = tf.train.start_queue_runners(session, coordinator)
    for _ in range(15):
      images, labels, clean_labels, source_ids, _ = session.run(batch)
      assert images.min() >= -1 and images.max() <= 1
      np.testing.assert_array_equal(
          images[:, 8:24, 8:24].mean(axis=(1, 2, 3)) < 0, labels == 1)
      np.testing.assert_array_equal(clean_labels, 1 - labels)
      np.testing.assert_array_equal(
          [int(source) % 2 for source in source_ids], labels)
      seen.update(source_ids)
    coordinator.request_stop()
    session.close()
    coordinator.join(threads, stop_grace_period_secs=5,
                     ignore_live_threads=True)
  assert len(seen) == 40
