"""The command as users run it, and the models that come with the project."""
import functools
import json
import os
import signal
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import train_mentornet

from mentormix import testing
from mentormix.mentornet import card as card_lib
from mentormix.mentornet import curriculum
from mentormix.mentornet import learning
from mentormix.mentornet import lesson as lesson_lib
from mentormix.mentornet import loading
from mentormix.mentornet import pictures

SCRIPT = os.path.abspath(train_mentornet.__file__)
MODELS = os.path.join(os.path.dirname(os.path.dirname(SCRIPT)),
                      'mentornet_models')
DATA_DRIVEN = 'mentornet_dd'
FILES = {'mentornet.pb', 'metrics.json', 'curriculum.png', 'curriculum.gif',
         'README.md'}
FORMULA = """
import numpy as np

def v_star(loss, difference, label, epoch):
  \"\"\"1 for half of training, then 1 / (1 + loss).\"\"\"
  return np.where(epoch < 50, 1, 1 / (1 + loss))
"""


@pytest.fixture(scope='module', autouse=True)
def short_animations():
  """A hundred frames take seconds; pictures_test.py makes them."""
  with mock.patch.object(pictures, 'animate', functools.partial(
      pictures.animate, epochs=[0, 99])):
    yield


def _run(cwd, *args):
  return testing.run_command(train_mentornet, *args, cwd=cwd)


@pytest.fixture(scope='module')
def learned(tmp_path_factory):
  """A run with the default directory and few steps, and what it printed."""
  cwd = tmp_path_factory.mktemp('run')
  code, out, err = _run(cwd, '--curriculum=self_paced', '--seed=3',
                        '--published', '--max_number_of_steps=300')
  assert code == 0, err
  return cwd / 'mentornet_models' / 'self_paced', out, err


def test_it_writes_a_whole_model(learned):
  path, out, err = learned
  assert {p.name for p in path.iterdir()} == FILES
  assert [p.name for p in path.parent.iterdir()] == ['self_paced']
  assert 'step 3/300 (1.0%)  loss ' in out
  assert 'mean absolute error' in out and 'worst 1%' in out
  assert 'Traceback' not in err and '\r' not in err  # No bar in a file.
  assert (path / 'curriculum.png').read_bytes().startswith(b'\x89PNG')


def test_metrics_are_complete(learned):
  path, _, _ = learned
  metrics = json.loads((path / 'metrics.json').read_text())
  assert metrics['curriculum'] == 'self_paced'
  assert metrics['settings'] == dict(
      learning.PUBLISHED._asdict(), seed=3, max_number_of_steps=300)
  assert metrics['tensorflow'] and metrics['seconds'] >= 0
  assert metrics['published'] and metrics['source'] == {}
  held_out = metrics['held_out']
  assert held_out['rows'] == 20000
  assert 0 < held_out['mean_absolute_error'] < 0.1
  assert held_out['mean_absolute_error'] < held_out['worst_1_percent'] < 1
  assert [p['epoch_percent'] for p in held_out['phases']] == [[0, 99]]


def test_the_model_loads(learned):
  path, _, _ = learned
  v = loading.apply_network(
      loading.load(str(path)), [[1, -1, 0, 50], [3, 1, 0, 50]])
  assert v[0] > 0.9 and v[1] < 0.1


def test_the_card_says_how_to_make_it_again(learned):
  card = (learned[0] / 'README.md').read_text()
  assert '--curriculum=self_paced' in card
  assert '--max_number_of_steps=300' in card and '--seed=3' in card
  assert '--published' in card and '--learning_rate' not in card
  assert 'max_number_of_steps is 300 instead of 30000' in card
  assert '--trained_mentornet_dir=mentornet_models/self_paced' in card
  assert '--output_dir' not in card  # It is the default.


def test_nothing_is_overwritten_silently(learned):
  path, _, _ = learned
  before = {p.name: p.read_bytes() for p in path.iterdir()}
  code, _, err = _run(path.parent.parent, '--curriculum=self_paced')
  assert code == 2 and '--overwrite' in err and len(err.splitlines()) == 1
  assert before == {p.name: p.read_bytes() for p in path.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(number, tmp_path):
  process = subprocess.Popen(
      [sys.executable, SCRIPT, '--output_dir=out',
       '--max_number_of_steps=1000000000'], cwd=str(tmp_path),
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
  assert process.stdout.readline().startswith('Learning')
  process.send_signal(number)
  _, err = process.communicate()
  assert process.returncode == -number and 'Traceback' not in err
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('args,named', [
    (['--curriculum=mentornet_dd'], ['--curriculum: mentornet_dd is not a']),
    (['--curriculum=none.py'], ['--curriculum: none.py is not a file']),
    (['--curriculum=none.csv'], ['--curriculum: none.csv cannot be read']),
    (['--loss_p_percentiles=0.5'], ['--loss_p_percentiles is for a CSV file']),
    (['--curriculum=x.csv', '--loss_p_percentiles=0.5,70'],
     ['--loss_p_percentiles=0.5,70 is not a list of numbers from 0 to 1']),
    (['--curriculum=x.csv', '--loss_p_percentiles='],
     ['--loss_p_percentiles= is not a list']),
    (['--restarts=0'], ['restarts', '0']),
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


def test_a_custom_formula(tmp_path):
  (tmp_path / 'mine.py').write_text(FORMULA)
  code, out, err = _run(tmp_path, '--curriculum=mine.py', '--restarts=2',
                        '--max_number_of_steps=500', '--batch_size=100')
  assert code == 0, err
  assert 'Learning mine in 1000 steps' in out and 'step 5/1000' in out
  path = tmp_path / 'mentornet_models' / 'mine'
  assert {p.name for p in path.iterdir()} == FILES
  metrics = json.loads((path / 'metrics.json').read_text())
  assert metrics['source']['file'] == 'mine.py'
  assert len(metrics['source']['sha256']) == 64
  assert metrics['held_out']['mean_absolute_error'] < 0.05
  card = (path / 'README.md').read_text()
  assert '1 for half of training, then 1 / (1 + loss).' in card
  assert '--curriculum=mine.py' in card and '--restarts=2' in card


def test_an_invalid_formula_is_one_line(tmp_path):
  (tmp_path / 'mine.py').write_text(FORMULA.replace('1 / (1 + loss)', 'loss'))
  code, out, err = _run(tmp_path, '--curriculum=mine.py')
  assert code == 2 and not out and len(err.splitlines()) == 1
  assert '--curriculum: mine.py: v_star returns 1.5 at loss 1.5' in err
  assert [p.name for p in tmp_path.iterdir()] == ['mine.py']


def _write_traces(path, rows=4000):
  """Losses by which wrong labels can be told, better as training goes on."""
  random = np.random.RandomState(0)
  with open(str(path), 'w') as f:
    f.write('sample_id,epoch_percent,noisy_label,clean_label,loss\n')
    for row in range(rows):
      percent = row * 100 // rows
      wrong = row % 3 == 0
      loss = abs(random.randn()) + wrong * percent / 20.0
      f.write(f'{row % 60},{percent},{2 if wrong else 1},1,{loss:g}\n')


def test_learning_from_data(tmp_path):
  _write_traces(tmp_path / 'seen.csv')
  code, _, err = _run(
      tmp_path, '--curriculum=seen.csv', '--loss_p_percentiles=0.6,0.7',
      '--restarts=1', '--max_number_of_steps=1000', '--output_dir=model')
  assert code == 0, err
  assert {p.name for p in (tmp_path / 'model').iterdir()} == FILES
  metrics = json.loads((tmp_path / 'model' / 'metrics.json').read_text())
  source, judged = metrics['source'], metrics['judged']
  assert (source['rows'], source['samples']) == (4000, 60)
  assert source['loss_p_percentiles'] == [0.6, 0.7]
  assert judged['accuracy'] > judged['constant'] + 0.1 and judged['auc'] > 0.85
  card = (tmp_path / 'model' / 'README.md').read_text()
  assert '4,000 losses of 60 examples' in card
  assert '--loss_p_percentiles=0.6,0.7' in card and 'ROC' in card
  easy, hard = loading.apply_network(
      loading.load(str(tmp_path / 'model')), [[0.2, -0.7, 0, 99],
                                                [5, 4.1, 0, 99]])
  assert easy > 0.9 and hard < 0.1


def _metrics(name):
  with open(os.path.join(MODELS, name, 'metrics.json')) as f:
    return json.load(f)


def test_every_curriculum_is_there():
  found = {name for name in os.listdir(MODELS)
           if os.path.isdir(os.path.join(MODELS, name))}
  assert found == set(curriculum.CURRICULA) | {DATA_DRIVEN}
  for name in found:
    assert set(os.listdir(os.path.join(MODELS, name))) == FILES


@pytest.mark.parametrize('name', sorted(curriculum.CURRICULA))
def test_committed_models_have_the_errors_that_they_claim(name):
  metrics = _metrics(name)
  assert metrics['curriculum'] == name and not metrics['published']
  lesson = lesson_lib.get(name, [], metrics['settings']['seed'])
  v = loading.apply_network(loading.load(os.path.join(MODELS, name)),
                            lesson.held_out[0])
  errors = learning.held_out_errors(v, *lesson.held_out, lesson.phases)
  claimed = metrics['held_out']
  assert errors['mean_absolute_error'] < 2e-4
  for found, said in zip([errors] + errors['phases'],
                         [claimed] + claimed['phases']):
    assert found['rows'] == said['rows']
    for value in ('mean_absolute_error', 'worst_1_percent'):
      assert abs(found[value] - said[value]) < 1e-5 + 0.01 * said[value]


@pytest.mark.parametrize('name', sorted(curriculum.CURRICULA) + [DATA_DRIVEN])
def test_committed_cards_follow_from_their_metrics(name):
  source = 'losses.csv' if name == DATA_DRIVEN else name
  with mock.patch.object(lesson_lib.loss_traces, 'read', lambda path: True):
    chosen, traces = lesson_lib.target(source)
  lesson = lesson_lib.Lesson(name, chosen.about, chosen.phases, chosen.v_star,
                             traces, (), (), {})
  with open(os.path.join(MODELS, name, 'README.md'), encoding='utf-8') as f:
    assert f.read() == card_lib.card(lesson, _metrics(name), learning.BEST,
                                     os.path.join('mentornet_models', name))


def test_the_tables_have_the_figures_of_the_models():
  for path in (os.path.join(MODELS, 'README.md'),):
    with open(path) as f:
      text = f.read()
    for name in curriculum.CURRICULA:
      held_out = _metrics(name)['held_out']
      row, = [line for line in text.splitlines()
              if line.startswith(f'| [{name}](')]
      assert (f'| {held_out["mean_absolute_error"]:.6f} | '
              f'{held_out["worst_1_percent"]:.5f} |' in row)


def test_mentornet_pd_where_it_is_used():
  """On points that occur: the moving average is never negative."""
  network = loading.load(os.path.join(MODELS, 'mentornet_pd'))
  average, d, e = (x.ravel() for x in np.meshgrid(
      np.linspace(0, 5, 21), np.linspace(-4, 4, 81), np.arange(100)))
  occurs = average + d >= 0
  average, d, e = average[occurs], d[occurs], e[occurs]
  v = loading.apply_network(
      network, np.stack([average + d, d, 0 * d, e], axis=1))
  assert (v[e <= 18] > 0.99).all()
  middle = (e > 18) & (e < 90)
  assert (v[middle & (d < -0.05)] > 0.99).all()
  assert (v[middle & (d > 0.15)] < 0.01).all()
  late = e >= 90
  assert np.abs(v - np.clip(1 - d, 0, 1))[late].max() < 0.1


def test_mentornet_dd_trusts_low_losses():
  judged = _metrics(DATA_DRIVEN)['judged']
  assert judged['accuracy'] > judged['constant'] + 0.1
  v = loading.apply_network(
      loading.load(os.path.join(MODELS, DATA_DRIVEN)),
      [[loss, loss - 2, 0, e] for e in range(15, 100) for loss in (0.3, 5)])
  assert (v[::2] > 0.9).all() and (v[1::2] < 0.2).all()
