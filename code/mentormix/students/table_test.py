"""The table of students: what its rows say."""
import functools

import numpy as np
import pytest

from mentormix import students
from mentormix.messages import UserError
from mentormix.runtime import tf
from mentormix.students import blocks
from mentormix.students import resnet


def test_a_row_is_called_like_its_network():
  student = students.get('resnet8_thin')
  assert isinstance(student, students.Student)
  assert student.keywords == dict(depth=8, widths=(16, 16, 32, 64))
  graphs = []
  for network in (student, functools.partial(resnet.resnet,
                                             **student.keywords)):
    with tf.Graph().as_default() as graph:
      network(tf.zeros([2, 8, 8, 3]), 5, True, update_statistics=False)
      graphs.append(graph.as_graph_def())
  assert graphs[0] == graphs[1]


def test_unknown_students_are_named():
  with pytest.raises(UserError, match='--studentnet=alexnet is unknown; known '
                     'are .*resnet32_thin'):
    students.get('alexnet')


@pytest.mark.parametrize('name,size,words', [
    ('resnet32', 30, 'must be a multiple of 4, at least 4'),
    ('resnet32', 0, 'at least 4')])
def test_sizes_that_do_not_fit(name, size, words):
  with pytest.raises(UserError, match=f'--studentnet={name} .*{words}'):
    students.check_size(name, size)


@pytest.mark.parametrize('name', sorted(students.STUDENTS))
def test_every_default_size_fits(name):
  students.check_size(name, students.get(name).image_size)


@pytest.mark.parametrize('name,num_classes,variables,count,activations', [
    ('efficientnet_lite0', 1000, 49 + 4 * 49 + 2, 4652008, 33),
    # As torchvision's resnet18.
    ('resnet18', 1000, 20 + 4 * 20 + 2, 11689512, 17),
    ('preact_resnet18', 10, 20 + 4 * 17 + 2, 11171274, 17)])
def test_other_students(name, num_classes, variables, count, activations):
  """Number of variables, of trainable numbers, and both passes."""
  student = students.get(name)
  with tf.Graph().as_default() as graph, \
      tf.variable_scope('', reuse=tf.AUTO_REUSE):
    x = tf.zeros([2, student.image_size, student.image_size, 3])
    student(x, num_classes, True, update_statistics=False)
    assert not tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    norms = [op for op in graph.get_operations()
             if op.type.startswith('FusedBatchNorm')]
    assert norms and all(op.get_attr('is_training') for op in norms)
    assert activations == len([op for op in graph.get_operations()
                               if op.type in ('Relu', 'Relu6')])
    logits = student(x, num_classes, True)
    assert logits.shape.as_list() == [2, num_classes]
    found = tf.global_variables()
    assert len(found) == len(tf.model_variables()) == variables
    assert count == sum(v.shape.num_elements()
                        for v in tf.trainable_variables())
    assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 2 * len(norms)
    # What is excluded from loading is what depends on the number of classes.
    heads = [v for v in found if v.op.name.startswith(student.excluded_scopes)]
    assert {v.shape[-1].value for v in heads} == {num_classes}
    assert len(heads) == 2
    low = student(x, num_classes, True, dtype=tf.bfloat16)
    assert low.dtype == tf.float32 and len(tf.global_variables()) == variables
    assert {op.outputs[0].dtype for op in graph.get_operations()
            if op.type in ('Conv2D', 'DepthwiseConv2dNative')} == {
                tf.float32, tf.bfloat16}


@pytest.mark.parametrize('name', ['efficientnet_lite0', 'resnet18',
                                  'preact_resnet18'])
def test_other_students_learn(name):
  """A step of gradient descent lowers the loss, weight decay included."""
  student = students.get(name)
  if student.dropout_keep:
    student = student._replace(dropout_keep=1)  # Losses can be compared.
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    x = tf.constant(np.random.RandomState(1).uniform(
        -1, 1, [4, 64, 64, 3]).astype(np.float32))
    loss = tf.losses.sparse_softmax_cross_entropy(
        [0, 1, 2, 3], student(x, 4, True))
    loss += student.decay_loss()
    step = tf.train.GradientDescentOptimizer(1e-4).minimize(loss)
    session.run(tf.global_variables_initializer())
    before = session.run(loss)
    session.run(step)
    assert session.run(loss) < before


@pytest.mark.parametrize('name,size', [
    ('resnet8_thin', 8)] + [
        pytest.param(*row, marks=pytest.mark.slow) for row in (
            ('efficientnet_lite0', 128), ('inception_resnet_v2', 139),
            ('resnet_v1_50', 128), ('resnet_v2_50', 128),
            ('inception_v3', 139))])
def test_statistics_replaced_by_those_of_a_batch(name, size):
  """Evaluation then sees the batch as training does, but for n / (n - 1)."""
  images = np.random.RandomState(1).uniform(-1, 1, [8, size, size, 3])
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(0)
    student = students.get(name)
    keep = {} if student.dropout_keep is None else dict(dropout_keep=1.0)
    images = tf.constant(images, tf.float32)
    with tf.variable_scope('', reuse=tf.AUTO_REUSE):
      trained = student(images, 5, True, update_statistics=students.REPLACED,
                        **keep)
      evaluated = student(images, 5, False)
    session.run(tf.global_variables_initializer())
    before = session.run(evaluated)
    expected, _ = session.run(
        [trained, tf.get_collection(tf.GraphKeys.UPDATE_OPS)])
    found = session.run(evaluated)
  error = lambda logits: np.std(logits - expected) / np.std(expected)
  assert error(found) < 0.2 and error(before) > 0.6, (error(found),
                                                       error(before))


def test_weight_decay_of_the_named_variables():
  student = students.Student(None, weight_decay=0.1,
                             decayed=('weights', 'biases'))
  with tf.Graph().as_default(), tf.Session() as session:
    for name, value in (('a/weights', 1.0), ('a/biases', 2.0),
                        ('a/gamma', 4.0), ('a/weights_b', 8.0)):
      tf.get_variable(name, initializer=[value])
    session.run(tf.global_variables_initializer())
    assert session.run(student.decay_loss()) == pytest.approx(0.1 * 5 / 2)


def _dropped(session, x, step, calls=1):
  """Values of `x` in each of `calls` calls of dropout, after `step` steps."""
  kept = [blocks.dropout(x, 0.8, True) for _ in range(calls)]
  session.run(tf.train.get_global_step().assign(step))
  return session.run(kept)


def test_dropout_follows_from_seed_step_and_call():
  values = {}
  for name, seed, step in (('one', 3, 7), ('again', 3, 7), ('seed', 4, 7),
                           ('step', 3, 8)):
    with tf.Graph().as_default(), tf.Session() as session:
      tf.set_random_seed(seed)
      tf.train.create_global_step()
      values[name], second = _dropped(session, tf.ones([50, 40]), step, 2)
      assert (values[name] != second).any()
  assert (values['one'] == values['again']).all()
  assert (values['one'] != values['seed']).any()
  assert (values['one'] != values['step']).any()
  assert set(values['one'].ravel()) == {0, 1.25}
  assert abs((values['one'] > 0).mean() - 0.8) < 0.04


def test_dropout_is_off_outside_of_training():
  with tf.Graph().as_default():
    x = tf.ones([2, 3])
    assert blocks.dropout(x, 0.8, False) is x
    assert blocks.dropout(x, 1, True) is x


@pytest.mark.parametrize('name', [
    'resnet8_thin', 'resnet18', 'preact_resnet18', 'resnet_v1_50',
    'resnet_v2_50', 'efficientnet_lite0'])
def test_every_student_can_drop_before_its_last_layer(name):
  """Once a pass, only in training; the variables stay the same."""
  names = []
  for is_training, keep in ((True, 1.0), (True, 0.5), (False, 0.5)):
    with tf.Graph().as_default() as graph:
      students.get(name)(tf.zeros([2, 32, 32, 3]), 10, is_training,
                         dropout_keep=keep)
      assert len(graph.get_collection('dropout_calls')) == (
          is_training and keep < 1)
      names.append({v.op.name for v in tf.trainable_variables()})
  assert names[0] == names[1] == names[2]
