"""The command as users run it, and the model that comes with the project."""
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from mentormix import curriculum
from mentormix import files
from mentormix import mentornet
from mentormix import mentornet_training
from mentormix.command import UserError
import train_mentornet

SCRIPT = os.path.abspath(train_mentornet.__file__)
COMMITTED = os.path.join(os.path.dirname(os.path.dirname(SCRIPT)),
                         'mentornet_models', 'mentornet_pd')
FILES = {mentornet.FROZEN_GRAPH, 'metrics.json', 'curriculum.png', 'README.md'}


def _start(cwd, *args):
  return subprocess.Popen(
      [sys.executable, SCRIPT] + list(args), cwd=str(cwd),
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)


def _run(cwd, *args):
  process = _start(cwd, *args)
  out, err = process.communicate()
  return process.returncode, out, err


@pytest.fixture(scope='module')
def learned(tmp_path_factory):
  """A run with the default directory and few steps, and what it printed."""
  cwd = tmp_path_factory.mktemp('run')
  code, out, err = _run(cwd, '--curriculum=self_paced', '--seed=3',
                        '--max_number_of_steps=300')
  assert code == 0, err
  return cwd / 'mentornet_models' / 'self_paced', out, err


def test_it_writes_a_whole_model(learned):
  path, out, err = learned
  assert {p.name for p in path.iterdir()} == FILES
  assert [p.name for p in path.parent.iterdir()] == ['self_paced']
  assert 'step 60 of 300' in out and 'mean absolute error' in out
  assert 'Traceback' not in err and '\r' not in err  # No bar in a file.
  assert (path / 'curriculum.png').read_bytes().startswith(b'\x89PNG')


def test_metrics_are_complete(learned):
  path, _, _ = learned
  metrics = json.loads((path / 'metrics.json').read_text())
  assert metrics['curriculum'] == 'self_paced'
  assert metrics['settings'] == dict(
      mentornet_training.PUBLISHED._asdict(), seed=3, max_number_of_steps=300)
  assert metrics['tensorflow'] and metrics['seconds'] >= 0
  assert metrics['loss'] == 'sigmoid cross-entropy'
  held_out = metrics['held_out']
  assert held_out['rows'] == 20000
  assert 0 < held_out['mean_absolute_error'] < 0.1
  assert held_out['mean_absolute_error'] < held_out['worst_1_percent'] < 1
  assert [p['epoch_percent'] for p in held_out['phases']] == [[0, 99]]


def test_the_model_loads(learned):
  path, _, _ = learned
  v = mentornet_training.apply_network(
      mentornet.load(str(path)), [[1, -1, 0, 50], [3, 1, 0, 50]])
  assert v[0] > 0.9 and v[1] < 0.1


def test_the_card_says_how_to_make_it_again(learned):
  card = (learned[0] / 'README.md').read_text()
  assert '--curriculum=self_paced' in card
  assert '--max_number_of_steps=300' in card and '--seed=3' in card
  assert 'max_number_of_steps is 300 instead of 30000' in card
  assert '--trained_mentornet_dir=mentornet_models/self_paced' in card
  assert '--output_dir' not in card  # It is the default.


def test_nothing_is_overwritten_silently(learned):
  path, _, _ = learned
  before = {p.name: p.read_bytes() for p in path.iterdir()}
  code, _, err = _run(path.parent.parent, '--curriculum=self_paced')
  assert code == 2 and '--overwrite' in err and len(err.splitlines()) == 1
  assert before == {p.name: p.read_bytes() for p in path.iterdir()}


def test_signal_leaves_nothing(tmp_path):
  process = _start(tmp_path, '--output_dir=out',
                   '--max_number_of_steps=1000000000')
  assert process.stdout.readline().startswith('Learning')
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate()
  assert process.returncode == 128 + signal.SIGTERM
  assert 'Stopped by signal 15' in err and 'Traceback' not in err
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('args,named', [
    (['--curriculum=mentornet_dd'], ['curriculum', 'mentornet_dd']),
    (['--max_number_of_steps=0'], ['max_number_of_steps', '0']),
    (['--batch_size=-1'], ['batch_size', '-1']),
    (['--learning_rate=-0.1'], ['learning_rate', '-0.1']),
    (['--learning_rate=nan'], ['learning_rate', 'nan']),
    (['--seed=-1'], ['seed', '-1']),
    (['--output_dir=/dev/null/model'], ['--output_dir=/dev/null']),
    (['--output_dir=/dev/null'], ['--output_dir=/dev/null']),
    (['--sed=1'], ['sed']),
    (['mentornet_pd'], ['mentornet_pd']),
])
def test_bad_flags_are_one_line(args, named, tmp_path):
  code, out, err = _run(tmp_path, *args)
  assert code == 2 and not out
  assert len(err.splitlines()) == 1
  for text in named:
    assert text in err
  assert not list(tmp_path.iterdir())


def test_other_peoples_files_are_safe(tmp_path):
  (tmp_path / 'thesis.tex').write_text(u'years of work')
  with pytest.raises(UserError, match='thesis.tex'):
    train_mentornet.check_output(str(tmp_path), overwrite=True)


def _write_model(path, content):
  with files.new_directory(str(path)) as directory:
    with open(os.path.join(directory, mentornet.FROZEN_GRAPH), 'w') as f:
      f.write(content)


def test_overwriting_replaces_the_whole_directory(tmp_path):
  path = tmp_path / 'model'
  _write_model(path, 'old')
  (path / 'metrics.json').write_text(u'old')
  with pytest.raises(UserError, match='--overwrite'):
    train_mentornet.check_output(str(path), overwrite=False)
  train_mentornet.check_output(str(path), overwrite=True)
  _write_model(path, 'new')
  assert (path / mentornet.FROZEN_GRAPH).read_text() == 'new'
  assert [p.name for p in path.iterdir()] == [mentornet.FROZEN_GRAPH]
  assert [p.name for p in tmp_path.iterdir()] == ['model']


@pytest.fixture(scope='module')
def committed():
  with open(os.path.join(COMMITTED, 'metrics.json')) as f:
    return mentornet.load(COMMITTED), json.load(f)


def test_committed_model_has_the_errors_that_it_claims(committed):
  network, metrics = committed
  assert set(os.listdir(COMMITTED)) == FILES
  chosen = curriculum.CURRICULA[metrics['curriculum']]
  _, held_out = curriculum.training_set(
      chosen, metrics['rows'], metrics['held_out_share'],
      metrics['settings']['seed'])
  errors = mentornet_training.held_out_errors(
      network, held_out[0], held_out[1], chosen.phases)
  claimed = metrics['held_out']
  assert errors['mean_absolute_error'] < 0.001
  for found, said in zip([errors] + errors['phases'],
                         [claimed] + claimed['phases']):
    assert found['rows'] == said['rows']
    for name in ('mean_absolute_error', 'worst_1_percent'):
      assert abs(found[name] - said[name]) < 1e-4


def test_committed_model_where_it_is_used(committed):
  """On points that occur: the moving average is never negative."""
  network, _ = committed
  average, d, e = (x.ravel() for x in np.meshgrid(
      np.linspace(0, 5, 21), np.linspace(-4, 4, 81), np.arange(100)))
  occurs = average + d >= 0
  average, d, e = average[occurs], d[occurs], e[occurs]
  v = mentornet_training.apply_network(
      network, np.stack([average + d, d, 0 * d, e], axis=1))
  assert (v[e <= 18] > 0.99).all()
  middle = (e > 18) & (e < 90)
  assert (v[middle & (d < -0.05)] > 0.99).all()
  assert (v[middle & (d > 0.15)] < 0.01).all()
  late = e >= 90
  assert np.abs(v - np.clip(1 - d, 0, 1))[late].max() < 0.1
