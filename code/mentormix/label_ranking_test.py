"""Scores of labels against hand-made numbers, weights and planted mistakes."""
import io
import warnings

from matplotlib import font_manager
import numpy as np
import pytest

from mentormix import figures
from mentormix import label_ranking
from mentormix import students
from mentormix.data import datasets
from mentormix.data import png as png_lib
from mentormix.data import splits
from mentormix.mentornet import loading as mentornet_loading
from mentormix.mentornet import network
from mentormix.messages import RunError, UserError
from mentormix.runtime import tf

DIGITS = datasets.get('digits')
COUNT = 30  # Image n is of class n % 10; its red level is 20 * class.
PLANTED = {17: 4, 25: 0}  # n -> label: off by 3 and by 5 classes.


def _flags(*values):
  return np.array(values, bool)


def test_equal_losses_keep_the_order_of_the_files():
  loss = np.array([1, 3, 2, 3, 1, 3], np.float32)
  assert label_ranking.by_suspicion(loss).tolist() == [1, 3, 5, 2, 0, 4]


def _scores(given, predicted, clean, loss):
  return label_ranking.Scores(
      source_ids=None, given=np.array(given), predicted=np.array(predicted),
      probability=None, loss=np.array(loss, np.float32), clean=np.array(clean))


def test_summary():
  scores = _scores([0, 1, 2, 3, 4], [0] * 5, [0, 9, 2, 9, -1],
                   [1, 4, 3, 2, 0])  # Wrong: 1 and 3; 4 is not known.
  assert dict(label_ranking.summarize(scores, _flags(0, 1, 1, 0, 1))) == dict(
      count=5, num_suspected=3, noise_rate=0.5, auc=0.75,
      average_precision=pytest.approx((1 + 2 / 3.) / 2), precision=0.5,
      recall=0.5)
  nothing = label_ranking.summarize(scores, _flags(0, 0, 0, 0, 0))
  assert nothing['precision'] is None and nothing['recall'] == 0


def test_summary_without_clean_labels():
  scores = _scores([0, 1], [0, 0], [-1, -1], [1, 2])
  assert dict(label_ranking.summarize(scores, _flags(0, 1))) == dict(
      count=2, num_suspected=1, noise_rate=None, auc=None,
      average_precision=None, precision=None, recall=None)


@pytest.mark.parametrize('step,percent', [(0, 0), (37, 37), (100, 99)])
def test_what_the_mentornet_is_fed(step, percent):
  loss = np.array([5, 1, 4, 2, 3], np.float32)
  columns = [label_ranking.weigh(lambda x, k=k: x[:, k], loss, 0.5, step, 100)
             for k in range(network.NUM_FEATURES)]
  np.testing.assert_array_equal(columns, [
      loss, loss - 3, np.zeros(5), np.full(5, percent)])


def test_threshold_cuts_the_whole_set():
  loss = np.random.RandomState(0).permutation(1000).astype(np.float32)
  network = mentornet_loading.load(mentornet_loading.THRESHOLD, 0.6)
  v = label_ranking.weigh(network, loss, 0.6, 1, 2)
  np.testing.assert_array_equal(v, loss < 599)


def _nearest(images, num_classes, is_training, update_statistics=True):
  """Logits peak at the class whose red level is nearest."""
  assert not is_training
  del update_statistics
  scale = tf.get_variable('scale', [], initializer=tf.zeros_initializer())
  level = (images[:, 0, 0, 0] * 127.5 + 127.5) / 20.0  # [B]
  classes = tf.range(num_classes, dtype=tf.float32)
  return -scale * tf.abs(level[:, tf.newaxis] - classes)  # [B, K]


@pytest.fixture
def save(tmp_path, monkeypatch):
  """Saves a checkpoint of the student, with an averaged weight; its prefix."""
  monkeypatch.setitem(students.STUDENTS, 'nearest',
                      students.Student(_nearest))

  def write(average=1.0):
    with tf.Graph().as_default(), tf.Session() as session:
      for name, value in (('scale', -1.0),
                          ('scale/ExponentialMovingAverage', average)):
        tf.get_variable(name, [], initializer=tf.constant_initializer(value))
      session.run(tf.global_variables_initializer())
      return tf.train.Saver().save(session, str(tmp_path / 'model.ckpt'), 5)
  return write


@pytest.fixture
def files(tmp_path):
  """Two files of 15 images; the labels PLANTED are wrong."""
  paths = [str(tmp_path / f'digits_train-{shard}') for shard in range(2)]
  for path, numbers in zip(paths, np.split(np.arange(COUNT), 2)):
    with tf.python_io.TFRecordWriter(path) as writer:
      for n in numbers:
        pixels = np.full([32, 32, 3], n, np.uint8)
        pixels[..., 0] = 20 * (n % 10)
        writer.write(datasets.encode_example(
            png_lib.encode_png(pixels), PLANTED.get(n, n % 10),
            n % 10 if n != 3 else None,
            source_id=f'image {n}' if n % 2 else None))
  return paths


def _collect(files, prefix, **settings):
  settings = dict(dict(batch_size=7, num_images=4,
                       probabilities=io.BytesIO()), **settings)
  return label_ranking.collect('nearest', _data(files), prefix, **settings)


def _data(files):
  return splits.Split(DIGITS, 'train', list(map(datasets.Shard, files)), COUNT,
                      '')


def test_planted_mistakes_come_first(files, save):
  probabilities = io.BytesIO()
  scores, images = _collect(files, save(), probabilities=probabilities)
  order = label_ranking.by_suspicion(scores.loss)
  assert order[:2].tolist() == [25, 17]
  n = np.arange(COUNT)
  np.testing.assert_array_equal(scores.predicted, n % 10)
  np.testing.assert_array_equal(
      scores.given, [PLANTED.get(k, k % 10) for k in n])
  np.testing.assert_array_equal(
      scores.clean, np.where(n == 3, datasets.UNKNOWN_LABEL, n % 10))
  assert scores.source_ids.tolist() == [
      b'image %d' % k if k % 2 else b'' for k in n]
  # -|class - c| for the ten classes c: the log of their sum by hand.
  distance = np.abs(np.arange(10)[:, None] - np.arange(10)[None])
  log_sum = np.log(np.exp(-1.0 * distance).sum(axis=1))[n % 10]
  np.testing.assert_allclose(
      scores.loss, np.abs(n % 10 - scores.given) + log_sum, rtol=1e-4)
  np.testing.assert_allclose(scores.probability, np.exp(-log_sum), rtol=1e-4)
  np.testing.assert_allclose(
      np.frombuffer(probabilities.getvalue(), np.float32),
      np.exp(-distance[n % 10] - log_sum[:, None]).ravel(), rtol=1e-4)
  # The images are those of the order, to the last bit; green holds n.
  assert images.dtype == np.uint8
  np.testing.assert_array_equal(images[:, 0, 0, 1], order[:4])
  np.testing.assert_array_equal(images[:, 9, 9, 0], 20 * (order[:4] % 10))


def test_names_that_no_font_can_draw(files, save, monkeypatch, capsys):
  scores, images = _collect(files, save())
  titles = []
  original = figures.labelled_images
  monkeypatch.setattr(figures, 'labelled_images', lambda *args: (
      titles.append(args[1]), original(*args))[1])
  names = ['\u732b', '\uac1c'] + list('abcdefgh')
  for fonts in ([], [font_manager.findfont(font_manager.FontProperties())]):
    monkeypatch.setattr(figures.font_manager, 'findSystemFonts', lambda: fonts)
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      label_ranking._draw(scores, images, names).savefig(io.BytesIO())
      label_ranking._draw(scores, images, list('abcdefghi\u00e9'))
    line, = capsys.readouterr().out.splitlines()
    assert 'install a font such as Noto Sans CJK' in line
  top = label_ranking.by_suspicion(scores.loss)[0]
  assert titles[0][0] == f'{scores.given[top]} > {scores.predicted[top]}'
  assert titles[1][0][0] in 'abcdefghi\u00e9'


@pytest.mark.parametrize('batch_size,num_images', [(1, 30), (30, 1), (9, 99)])
def test_batches_and_images_change_nothing(files, save, batch_size, num_images):
  prefix = save()
  scores, _ = _collect(files, prefix)
  again, images = _collect(files, prefix, batch_size=batch_size,
                           num_images=num_images)
  for column, expected in zip(again, scores):
    np.testing.assert_array_equal(column, expected)
  np.testing.assert_array_equal(
      images[:, 0, 0, 1], label_ranking.by_suspicion(scores.loss)[:num_images])


def test_a_loss_that_is_not_a_number(files, save):
  with pytest.raises(RunError, match='model.ckpt-5 the loss is not a number'):
    _collect(files, save(average=np.nan))


def test_an_image_that_cannot_be_decoded(files, save):
  png = png_lib.encode_png(np.zeros([32, 32, 3], np.uint8))[:50]
  with tf.python_io.TFRecordWriter(files[1]) as writer:
    writer.write(datasets.encode_example(png, 1, 1))
  with pytest.raises(RunError, match='no pass with the checkpoint .*PNG'):
    _collect(files, save())


def test_a_checkpoint_of_another_student(files, save):
  with pytest.raises(UserError, match='is not of --studentnet=resnet8_thin'):
    label_ranking.collect('resnet8_thin', _data(files), save(), 7, 4,
                          io.BytesIO())
