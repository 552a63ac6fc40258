"""The command on the digits and a run of 20 steps."""
import csv
import json
import os
import shutil

import matplotlib.image
import numpy as np
import pytest
import score_labels

from mentormix import config as config_lib
from mentormix import label_ranking
from mentormix import testing
from mentormix.data import datasets
from mentormix.runtime import tf

OUTPUTS = ['pred_probs.npy', 'scores.csv', 'summary.json', 'suspicious.html',
           'suspicious.png']


@pytest.fixture(scope='module')
def trained(train, tmp_path_factory):
  """Method -> the --train_log_dir of a short run, made when asked for."""
  made = {}

  def get(method):
    if method not in made:
      made[method] = str(tmp_path_factory.mktemp(method) / 'train')
      code, _, err = train(method=method, train_log_dir=made[method],
                           batch_size=32, max_number_of_steps=20)
      assert code == 0, err
    return made[method]
  return get


def _score(data_dir, checkpoint_dir, output_dir, **kwargs):
  return testing.run_command(score_labels, *testing.to_flags(**dict(
      dict(data_dir=data_dir, output_dir=output_dir, num_images=5,
           checkpoint_dir=checkpoint_dir, device_id=''), **kwargs)))


def _read(directory):
  """(rows, summary) of an output directory."""
  with open(str(directory / 'scores.csv'), newline='') as f:
    rows = csv.DictReader(f)
    assert tuple(rows.fieldnames) == label_ranking.COLUMNS
    rows = list(rows)
  with open(str(directory / 'summary.json')) as f:
    return rows, json.load(f)


@pytest.fixture(scope='module')
def scored(digits, trained, tmp_path_factory):
  """The output directory of a run with a MentorNet, and what was printed."""
  directory = tmp_path_factory.mktemp('scored') / 'new' / 'scores'
  code, out, err = _score(digits + '/0.4', trained('mentormix'), directory,
                          num_images=100)
  assert code == 0, err
  assert not err  # Quiet, and no bar in a file.
  return directory, out


def test_scores_of_a_run_with_a_mentornet(digits, scored):
  out_dir, out = scored
  rows, summary = _read(out_dir)
  assert sorted(os.listdir(str(out_dir))) == OUTPUTS
  assert len({row['id'] for row in rows}) == len(rows) == 1397
  losses = [float(row['loss']) for row in rows]
  assert losses == sorted(losses, reverse=True)
  for row in rows:
    assert 0 <= float(row['weight']) <= 1
    assert row['suspected'] == ('1' if float(row['weight']) < 0.5 else '0')
    assert 0 <= int(row['predicted_label']) <= 9
    assert float(row['given_probability']) <= float(row['probability']) + 3e-6
    assert float(row['given_probability']) == pytest.approx(
        np.exp(-float(row['loss'])), abs=2e-6)
  is_wrong = [row['given_label'] != row['clean_label'] for row in rows]
  suspected = [row['suspected'] == '1' for row in rows]
  both = np.logical_and(is_wrong, suspected).sum()
  assert summary['step'] == 20 and summary['count'] == 1397
  assert summary['data_dir'] == digits + '/0.4'
  assert summary['checkpoint'].endswith('model.ckpt-20')
  assert summary['noise_rate'] == pytest.approx(559 / 1397.)
  assert summary['num_suspected'] == sum(suspected) > 0
  assert summary['precision'] == pytest.approx(both / float(sum(suspected)))
  assert summary['recall'] == pytest.approx(both / 559.)
  assert 0 <= summary['auc'] <= 1 and 0 <= summary['average_precision'] <= 1
  assert f'{sum(suspected)} of 1397 labels are suspected' in out
  assert f'auc {summary["auc"]:.4f}' in out and str(out_dir) in out
  probabilities = np.load(str(out_dir / 'pred_probs.npy'))
  assert probabilities.dtype == np.float32
  assert probabilities.shape == (1397, 10)
  np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
  for row, rows_probabilities in zip(rows, probabilities):
    for name, probability in (('predicted', 'probability'),
                              ('given', 'given_probability')):
      assert rows_probabilities[int(row[f'{name}_label'])] == pytest.approx(
          float(row[probability]), abs=2e-6)
  page = (out_dir / 'suspicious.html').read_text(encoding='utf-8')
  assert page.count('<img') == page.count('proposed <b>') == 100
  assert rows[0]['id'] in page and 'right: ' in page
  picture = matplotlib.image.imread(str(out_dir / 'suspicious.png'))
  assert min(picture.shape[:2]) > 1000


def test_scores_with_recomputed_statistics(digits, trained, scored, tmp_path):
  code, _, err = _score(digits + '/0.4', trained('mentormix'), tmp_path,
                        statistics='recomputed')
  assert code == 0, err
  rows, _ = _read(tmp_path)
  published, _ = _read(scored[0])
  assert ({row['id'] for row in rows} == {row['id'] for row in published}
          and [row['loss'] for row in rows] != [row['loss']
                                                for row in published])


def test_cleanlab_takes_the_probabilities(scored):
  cleanlab_filter = pytest.importorskip('cleanlab.filter')  # Needs Python 3.8.
  directory, _ = scored
  rows, _ = _read(directory)
  issues = cleanlab_filter.find_label_issues(
      np.array([int(row['given_label']) for row in rows]),
      np.load(str(directory / 'pred_probs.npy'), mmap_mode='r'), n_jobs=1)
  assert issues.shape == (1397,) and issues.dtype == bool
  assert 0 < issues.sum() < 1397


def test_scores_of_a_run_without_one(digits, trained, tmp_path):
  code, _, err = _score(digits + '/0.4', trained('cross_entropy'), tmp_path)
  assert code == 0, err
  rows, summary = _read(tmp_path)
  assert len(rows) == 1397
  for row in rows:
    assert row['weight'] == ''
    assert row['suspected'] == str(
        int(row['given_label'] != row['predicted_label']))
  assert summary['num_suspected'] == sum(r['suspected'] == '1' for r in rows)


def test_another_step_and_mentornet(
    digits, trained, scored, tmp_path):
  args = digits + '/0.4', trained('mentormix'), tmp_path
  (tmp_path / 'mine.txt').write_text('stays')
  code, _, err = _score(*args, num_images=1)
  assert code == 0, err
  assert (tmp_path / 'scores.csv').read_text() == (
      scored[0] / 'scores.csv').read_text()  # The same each time.
  code, _, err = _score(*args, step=0, trained_mentornet_dir='threshold')
  assert code == 0, err
  rows, summary = _read(tmp_path)
  assert summary['step'] == 0
  assert {row['weight'] for row in rows} == {'0.000000', '1.000000'}
  # By default 0.7 of the set is below the threshold.
  assert abs(summary['num_suspected'] - 0.3 * 1397) < 2
  assert sorted(os.listdir(str(tmp_path))) == ['mine.txt'] + OUTPUTS


def test_records_without_clean_labels_or_ids(digits, trained, tmp_path):
  """As in sets prepared elsewhere, without noise.json; ids are positions."""
  (tmp_path / 'data').mkdir()
  labels = []
  for name in sorted(os.listdir(digits + '/0.4')):
    if not name.startswith('digits_train-'):
      continue
    with tf.python_io.TFRecordWriter(str(tmp_path / 'data' / name)) as writer:
      for record in tf.python_io.tf_record_iterator(
          os.path.join(digits, '0.4', name)):
        example = tf.train.Example.FromString(record)
        for key in (datasets.CLEAN_LABEL, datasets.SOURCE_ID):
          example.features.feature.pop(key, None)
        labels.append(example.features.feature[datasets.LABEL].int64_list
                      .value[0])
        writer.write(example.SerializeToString())
  code, out, err = _score(tmp_path / 'data', trained('mentormix'),
                          tmp_path / 'scores')
  assert code == 0, err
  assert 'the clean labels are not known' in out
  rows, summary = _read(tmp_path / 'scores')
  assert {int(r['id']): int(r['given_label']) for r in rows} == dict(
      enumerate(labels))
  assert {row['clean_label'] for row in rows} == {''}
  assert {name for name in summary if summary[name] is None} == {
      'noise_rate', 'auc', 'average_precision', 'precision', 'recall'}


@pytest.mark.parametrize('settings,message', [
    (dict(data_dir=''), '--data_dir=: must be given'),
    (dict(output_dir=''), '--output_dir=: must be given'),
    (dict(num_images=-1), '--num_images=-1'),
    (dict(batch_size=0), '--batch_size=0'),
    (dict(data_dir='/nowhere'), '--data_dir=/nowhere is not a directory'),
    (dict(checkpoint_dir='/nowhere'), '/nowhere/config.json does not exist'),
    (dict(output_dir='/proc/nowhere'), '--output_dir=/proc/nowhere cannot be'),
    (dict(trained_mentornet_dir='/nowhere'), '=/nowhere does not exist'),
    (dict(step=2), 'holds only the checkpoints of steps [0, 20]'),
])
def test_bad_inputs(digits, trained, tmp_path, settings, message):
  settings = dict(dict(
      data_dir=digits + '/0.4', checkpoint_dir=trained('mentormix'),
      output_dir=tmp_path, device_id=''), **settings)
  testing.assert_one_line(_score(**settings), 2, message)
  assert not os.listdir(str(tmp_path))


def test_a_mentornet_for_a_run_without_one(digits, trained, tmp_path):
  testing.assert_one_line(
      _score(digits + '/0.4', trained('cross_entropy'), tmp_path,
             trained_mentornet_dir=testing.MENTOR), 2,
      'was trained with --method=cross_entropy, which has no')


def test_data_of_another_set(digits, trained, tmp_path):
  testing.assert_one_line(
      _score(digits + '/val', trained('mentormix'), tmp_path), 2,
      'has no file digits_train-*: it is a test set; name a training set')
  (tmp_path / 'noise.json').write_text('{"dataset_name": "pets"}')
  testing.assert_one_line(
      _score(tmp_path, trained('mentormix'), tmp_path / 'scores'), 2,
      f'--data_dir={tmp_path} holds pets, but ', 'was trained on digits; name')


def test_damaged_data(digits, trained, tmp_path):
  name = 'digits_train-00000-of-00010'
  data_dir, run = tmp_path / 'data', tmp_path / 'run'
  shutil.copytree(os.path.join(digits, '0.4'), str(data_dir))
  testing.replace_record(data_dir / name, 1, b'bad')
  testing.assert_one_line(
      _score(data_dir, trained('mentormix'), tmp_path / 'scores'), 2,
      name + ': record 1 is not a tf.Example')
  shutil.copytree(trained('mentormix'), str(run))
  config_lib.save(config_lib.restore(str(run))._replace(max_bad_records=1),
                  str(run))
  code, out, _ = _score(data_dir, run, tmp_path / 'scores')
  assert code == 0 and '1 bad records of ' in out
  assert sorted(os.listdir(str(tmp_path / 'scores'))) == OUTPUTS
