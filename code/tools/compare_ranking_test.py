"""Rankings by hand, and the way from the digits to the table."""
import csv
import json
import os
import sys

import compare_ranking
import numpy as np
import out_of_fold
import pytest
import score_labels

from mentormix import testing

TRAINING = ('--studentnet=resnet8_thin --max_number_of_steps=2 '
            '--method=cross_entropy --batch_size=16')


def _read(directory):
  with open(os.path.join(str(directory), 'scores.csv'), newline='') as f:
    return list(csv.DictReader(f))


def test_precision_and_area_by_hand():
  is_wrong = np.zeros(200, bool)
  is_wrong[[0, 1, 5, 150]] = True
  found = compare_ranking.judge(-np.arange(200), is_wrong)
  assert found['precision'] == {'1%': 1.0, '5%': 0.3, '10%': 3 / 20,
                                '40%': 3 / 80}
  # Right labels below each wrong one.
  assert found['auc'] == pytest.approx((196 + 196 + 193 + 49) / (4 * 196))


@pytest.fixture(scope='module')
def folds(digits, tmp_path_factory):
  """The output directory of two folds of the digits."""
  directory = tmp_path_factory.mktemp('folds')
  finished = testing.run(
      out_of_fold.__file__, directory, f'--data_dir={digits}/0.4',
      f'--output_dir={directory}', '--num_folds=2', '--device_id=',
      f'--training={TRAINING}')
  assert finished.code == 0, finished.err
  return directory


@pytest.mark.slow
def test_every_example_is_scored_by_a_student_that_never_saw_it(folds, digits):
  files = [os.path.realpath(str(folds / f'fold{k}' / part / name))
           for k in (0, 1) for part in ('data', 'held')
           for name in sorted(os.listdir(str(folds / f'fold{k}' / part)))
           if name != 'noise.json']
  data0, held0, data1, held1 = np.split(np.array(files), 4)
  assert list(data0) == list(held1) and list(data1) == list(held0)
  assert sorted(np.concatenate([data0, held0])) == [
      os.path.join(os.path.realpath(digits), '0.4', name)
      for name in sorted(os.listdir(digits + '/0.4')) if '_train-' in name]
  rows, probabilities = _read(folds), np.load(str(folds / 'pred_probs.npy'))
  assert len({row['id'] for row in rows}) == len(rows) == 1397
  assert probabilities.shape == (1397, 10)
  for row, row_probabilities in zip(rows, probabilities):
    assert row_probabilities[int(row['given_label'])] == pytest.approx(
        float(row['given_probability']), abs=2e-6)
  counts = []
  for k in (0, 1):
    with open(str(folds / f'fold{k}' / 'held' / 'noise.json')) as f:
      counts.append(json.load(f)['num_examples'])
    assert counts[-1] == len(_read(folds / f'fold{k}' / 'scores'))
  assert sum(counts) == 1397


@pytest.mark.slow
def test_the_table(folds, digits, train, tmp_path):
  pytest.importorskip('cleanlab')  # Needs Python 3.8.
  for method in ('mentormix', 'cross_entropy'):
    run = tmp_path / method
    assert train(method=method, train_log_dir=run / 'train').code == 0
    assert testing.run_command(score_labels, *testing.to_flags(
        data_dir=digits + '/0.4', checkpoint_dir=run / 'train', device_id='',
        output_dir=run)).code == 0
  code, out, err = _compare(
      tmp_path, mentormix=tmp_path / 'mentormix', out_of_fold=folds,
      cross_entropy=tmp_path / 'cross_entropy')
  assert code == 0, err
  assert (tmp_path / 'ranking.md').read_text() in out
  with open(str(tmp_path / 'ranking.json')) as f:
    result = json.load(f)
  assert result['count'] == 1397
  assert result['noise_rate'] == pytest.approx(559 / 1397)
  rankings = {row['ranking']: row for row in result['rankings']}
  assert len(rankings) == 4
  for name, method in (('MentorMix, loss', 'mentormix'),
                       ('cross-entropy, loss', 'cross_entropy')):
    with open(str(tmp_path / method / 'summary.json')) as f:
      assert rankings[name]['auc'] == pytest.approx(json.load(f)['auc'],
                                                    abs=1e-3)
  # The label quality is the probability of the given label.
  wrong = {row['id'] for row in _read(folds)
           if row['given_label'] != row['clean_label']}
  by_confidence = sorted(_read(folds), key=lambda row: float(
      row['given_probability']))
  first = [row['id'] in wrong for row in by_confidence[:559]]
  assert rankings['cleanlab, label quality']['precision'][
      '40%'] == pytest.approx(np.mean(first), abs=0.01)


def _compare(output_dir, **directories):
  return testing.run_command(compare_ranking, *testing.to_flags(
      output_dir=output_dir, **directories))


@pytest.mark.slow
def test_inputs_that_do_not_belong_together(folds, tmp_path):
  pytest.importorskip('cleanlab')
  ways = dict.fromkeys(compare_ranking.INPUTS, folds)
  testing.assert_one_line(
      _compare(tmp_path, **dict(ways, mentormix=tmp_path)), 2,
      f'--mentormix={tmp_path}: FileNotFoundError')
  testing.assert_one_line(
      _compare(tmp_path, **dict(ways, out_of_fold=folds / 'fold0' / 'scores')),
      2, 'is about other examples or labels than --mentormix=')


def test_without_cleanlab(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'cleanlab', None)
  testing.assert_one_line(
      _compare(tmp_path, **dict.fromkeys(compare_ranking.INPUTS, tmp_path)), 2,
      'pip install cleanlab')


def test_data_without_folds(digits, tmp_path):
  testing.assert_one_line(
      testing.run_command(out_of_fold, *testing.to_flags(
          data_dir=digits + '/0.4', output_dir=tmp_path, num_folds=11)), 2,
      '--num_folds=11, but ', 'has 10 files; prepare it with --num_shards')
  testing.assert_one_line(
      testing.run_command(out_of_fold, *testing.to_flags(
          data_dir=tmp_path, output_dir=tmp_path)), 2, 'has no noise.json')
