"""Finding and reading runs, on directories written by hand."""
import glob
import os

import numpy as np
import pytest

from mentormix.messages import UserError
from mentormix.reports import runs
from mentormix.reports.testing import read_groups
from mentormix.reports.testing import SCORES
from mentormix.reports.testing import write_events
from mentormix.reports.testing import write_results
from mentormix.reports.testing import write_run


def read_one(path):
  run, = runs.read([str(path)])
  return run


def test_a_run_and_its_figures(tmp_path):
  write_run(tmp_path / 'a', (0.1, 0.5, 0.9, 0.7, 0.8), seed=3, scores=SCORES)
  run = read_one(tmp_path)
  assert run.path == str(tmp_path / 'a')
  assert run.config.seed == 3
  assert run.task == ('cifar10', ('symmetric_others', 0.4,
                                  '40% symmetric_others'), 'resnet32', 100, '')
  assert [r.step for r in run.eval_results] == [0, 25, 50, 75, 100]
  assert (run.state, run.step, run.message) == (runs.FINISHED, 100, '')
  assert (run.last, run.peak) == (80, 90)
  assert run.median(1) == 80
  assert run.median(4) == pytest.approx(75)  # Of 50, 90, 70 and 80.
  assert run.median(9) == 70  # Of all five.
  assert run.scores == SCORES and not run.series


@pytest.mark.parametrize('where', ['.', 'a', 'a/train'])
def test_a_run_is_found_from_everywhere_and_once(tmp_path, where):
  write_run(tmp_path / 'a')
  found = runs.read([str(tmp_path / where), str(tmp_path)])
  assert [run.state for run in found] == [runs.FINISHED]
  assert os.path.samefile(found[0].path, str(tmp_path / 'a'))


def test_relative_paths(tmp_path, monkeypatch):
  write_run(tmp_path / 'a')
  monkeypatch.chdir(tmp_path)
  assert read_one('a').path == 'a'
  assert read_one('a/train').path == 'a'
  monkeypatch.chdir(tmp_path / 'a' / 'train')
  assert read_one('.').path == '..'


def test_one_start_however_it_is_written(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for n, path in enumerate(['nets/a', './nets/a/', str(tmp_path / 'nets/a')]):
    write_run(tmp_path / 'runs' / str(n), checkpoint_path=path, seed=n)
  write_run(tmp_path / 'runs' / 'scratch')
  assert [(group.task.start, len(group.runs))
          for group in read_groups('runs')] == [('', 1), ('nets/a', 3)]


def test_of_several_results_that_of_eval_counts(tmp_path):
  write_run(tmp_path / 'a', (0.1, 0.2))
  write_results(tmp_path / 'a' / 'a_first', (0.1, 0.3))
  assert read_one(tmp_path).last == 20
  os.rename(str(tmp_path / 'a' / 'eval'), str(tmp_path / 'a' / 'other'))
  assert read_one(tmp_path).last == 30


def test_runs_without_a_folder_of_their_own(tmp_path):
  """Results beside them are of none, unless they have the name of one."""
  for name in 'abc':
    write_run(tmp_path / name, ())
    os.rename(str(tmp_path / name / 'train'), str(tmp_path / (name + '_train')))
  write_results(tmp_path / 'eval', (0.1, 0.2))
  with pytest.raises(UserError, match='no run has results'):
    runs.read([str(tmp_path)])
  write_results(tmp_path / 'b_train' / 'eval', (0.1, 0.4))
  write_results(tmp_path / 'c_train-eval', (0.1, 0.6))
  found = runs.read([str(tmp_path)])
  assert [(run.path, run.last) for run in found] == [
      (str(tmp_path / 'a_train'), None), (str(tmp_path / 'b_train'), 40),
      (str(tmp_path / 'c_train'), 60)]


@pytest.mark.parametrize('accuracies,log,expected', [
    ((0.1, 0.2), 'cifar_train.py: error: late', (runs.FINISHED, '')),
    ((), '', (runs.NO_RESULTS, '')),
    ((), 'step 3/200', (runs.NO_RESULTS, '')),
    ((), 'step 3/200\nx.py: error: disk full\n\n',
     (runs.FAILED, 'x.py: error: disk full')),
    ((), 'x.py: error: disk full\nstep 3/200', (runs.NO_RESULTS, '')),
    ((), 'step 3\nTraceback (most recent call last):\n  File\nKeyError: 1\n',
     (runs.FAILED, 'KeyError: 1')),
    ((), 'Traceback (most recent call last):\n  File\nKeyError: 1\n'
     '2024-01-01 00:00:00 step 3/200', (runs.NO_RESULTS, '')),
])
def test_states_and_logs(tmp_path, accuracies, log, expected):
  write_run(tmp_path / 'a', accuracies)
  write_run(tmp_path / 'b')
  (tmp_path / 'a' / 'train.txt').write_text(log)
  run = runs.read([str(tmp_path)])[0]
  assert (run.state, run.message) == expected


def test_unfinished_and_how_far(tmp_path):
  write_run(tmp_path / 'a', max_number_of_steps=1000)
  run = read_one(tmp_path)
  assert (run.state, run.step) == (runs.UNFINISHED, 100)  # Evaluated.
  (tmp_path / 'a' / 'train' / 'model.ckpt-486.npz').touch()
  assert read_one(tmp_path).step == 486  # Saved, not evaluated yet.
  (tmp_path / 'a' / 'log.txt').write_text('train.py: error: no memory')
  assert read_one(tmp_path).state == runs.FAILED


@pytest.mark.parametrize('noise,data_dir,expected', [
    (dict(noise_type='symmetric', rate_asked=0.07, rate_realised=0.06), 'd/x',
     ('symmetric', 0.07, '7% symmetric')),
    (dict(noise_type='file', rate_asked=None, rate_realised=0.40208),
     'd/worse/', ('file', 0.40208, 'worse (40.2%)')),
    (dict(noise_type='file', rate_asked=None, rate_realised=None), 'd/web',
     ('file', None, 'web (rate not known)')),
    (dict(noise_type=None, rate_asked=0.0, rate_realised=0.0), 'd/clean',
     ('none', 0.0, 'clean, no noise added')),
    (None, 'd/0.8/', (None, 0.8, '80%, definition not recorded')),
    (None, 'd/2.0', (None, None, '2.0, noise not recorded')),
    (None, 'd/web', (None, None, 'web, noise not recorded')),
])
def test_noise(tmp_path, noise, data_dir, expected):
  write_run(tmp_path / 'a', noise=noise, data_dir=data_dir)
  assert read_one(tmp_path).task.noise == expected


def test_summaries_of_a_resumed_run(tmp_path):
  write_run(tmp_path / 'a', events={
      'loss': {1: 9},
      'v/clean': {10: 0.5, 20: float('nan'), 30: 0.1, 45: 0.2}})
  train = tmp_path / 'a' / 'train'
  write_events(train, {'v/clean': {25: 0.6, 30: 0.7}}, suffix='.later')
  (tag, (steps, values)), = read_one(tmp_path).series.items()
  assert tag == 'v/clean'
  assert steps == (10, 20, 25, 30)
  np.testing.assert_allclose(values, [0.5, np.nan, 0.6, 0.7], rtol=1e-6)


@pytest.mark.parametrize('lost', [1, 10, 30])
def test_truncated_summaries(tmp_path, lost):
  write_run(tmp_path / 'a', events={'v/clean': {10: 0.5, 20: 0.25}})
  path, = glob.glob(str(tmp_path / 'a' / 'train' / 'events*'))
  with open(path, 'r+b') as f:
    f.truncate(os.path.getsize(path) - lost)
  assert read_one(tmp_path).series == {'v/clean': ((10,), (0.5,))}


@pytest.mark.parametrize('name,content,message', [
    ('train/config.json', '{', 'cannot be read'),
    ('train/config.json', '{"method": "x"}', 'the method x is unknown'),
    ('train/noise.json', '[]', 'does not hold the facts'),
    ('eval/results.csv', 'step,top1\n1,2\n', 'is not a results file'),
    ('scores/summary.json', '[]', 'does not hold a summary'),
])
def test_damaged_files(tmp_path, name, content, message):
  write_run(tmp_path / 'a', scores=SCORES)
  (tmp_path / 'a' / name).write_text(content)
  with pytest.raises(UserError) as error:
    runs.read([str(tmp_path)])
  assert message in str(error.value)
  assert str(tmp_path / 'a' / name) in str(error.value)
