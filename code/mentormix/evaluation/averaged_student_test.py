"""The statistics of batch norm that evaluation uses."""
import numpy as np
import pytest

from mentormix import students
from mentormix.data import datasets
from mentormix.evaluation import averaged_student
from mentormix.runtime import slim, tf
from mentormix.students import resnet

TRAINING = np.random.RandomState(1).uniform(-1, 1, [23, 4, 4, 3]).astype('f')
STALE = [5.0, 6.0, 7.0]  # The moving means in the checkpoint.


def _student(images, num_classes, is_training, update_statistics=True):
  """Batch norm alone; K is 3."""
  assert num_classes == 3
  with slim.arg_scope([resnet.batch_norm], is_training=is_training,
                      update_statistics=update_statistics):
    return tf.reduce_mean(resnet.batch_norm(images, scope='norm'), [1, 2])


def _once(images, batch_size):
  """One pass in batches, of which the last is smaller."""
  image, = tf.train.slice_input_producer([images], num_epochs=1, shuffle=False)
  return tf.train.batch([image], batch_size, allow_smaller_final_batch=True)


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
  monkeypatch.setitem(students.STUDENTS, 'norm', students.Student(_student))
  with tf.Graph().as_default(), tf.Session() as session:
    _student(tf.zeros([1, 4, 4, 3]), 3, False)
    for name, value in (('beta', 0.0), ('gamma', 1.0)):
      tf.get_variable(f'norm/{name}/ExponentialMovingAverage', [3],
                      initializer=tf.constant_initializer(value))
    session.run(tf.global_variables_initializer())
    tf.model_variables()[2].load(STALE, session)
    return tf.train.Saver().save(session, str(tmp_path / 'model.ckpt'))


@pytest.mark.parametrize('batch_size,most,count', [
    (5, 10000, 20), (5, 9, 10), (40, 10000, 23)])
def test_recomputed_from_whole_batches(checkpoint, monkeypatch, batch_size,
                                       most, count):
  monkeypatch.setattr(averaged_student, 'NUM_IMAGES', most)
  with tf.Graph().as_default():
    student = averaged_student.AveragedStudent(
        'norm', datasets.Dataset('own', 3, 4, ''),
        _once(np.zeros([3, 4, 4, 3], 'f'), 2),
        training=_once(TRAINING, batch_size))
    moments = [v for v in tf.model_variables() if 'moving' in v.op.name]
    assert [v.op.name for v in moments] == ['norm/moving_mean',
                                            'norm/moving_variance']
    (as_saved, *_), recomputed = [
        list(student.one_pass(checkpoint, moments + [student.logits],
                              recomputed=flag)) for flag in (False, True)]
  np.testing.assert_array_equal(as_saved[:2], [STALE, np.ones(3)])
  assert len(recomputed) == 2  # Every batch of the test.
  seen = TRAINING[:count]
  for mean, variance, _ in recomputed:
    np.testing.assert_allclose(mean, seen.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(variance, seen.var((0, 1, 2)), rtol=1e-5)


def test_flipped_logits_are_the_mean_over_the_image_and_its_mirror_image(
    checkpoint, monkeypatch):
  def left(images, *arguments, **options):
    """As `_student`, of the left half of the images."""
    return _student(images[:, :, :2], *arguments, **options)

  monkeypatch.setitem(students.STUDENTS, 'norm', students.Student(left))
  with tf.Graph().as_default():
    student = averaged_student.AveragedStudent(
        'norm', datasets.Dataset('own', 3, 4, ''), _once(TRAINING, 23),
        flipped=True)
    (logits, flipped), = student.one_pass(
        checkpoint, [student.logits, student.flipped_logits])
  scaled = (TRAINING - STALE) / np.sqrt(1 + resnet.BATCH_NORM_EPSILON)
  np.testing.assert_allclose(logits, scaled[:, :, :2].mean((1, 2)), rtol=1e-4)
  np.testing.assert_allclose(flipped, scaled.mean((1, 2)), rtol=1e-4)
