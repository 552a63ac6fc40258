"""Training as a whole: resuming, refusing and stopping."""
import os
import shutil
import signal

import numpy as np
import pytest

from mentormix import config as config_lib
from mentormix import testing
from mentormix.mentornet import loading
from mentormix.messages import UserError
from mentormix.runtime import tf
from mentormix.training import hooks
from mentormix.training import loop
from mentormix.training.step_test import CONFIG


@pytest.fixture(autouse=True)
def fresh_graph():
  tf.reset_default_graph()


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  """A directory with 40 images in two files."""
  directory = tmp_path_factory.mktemp('records')
  rng = np.random.RandomState(0)
  for shard in range(2):
    testing.write_records(
        directory / f'digits_train-{shard}',
        rng.randint(0, 256, [20, 32, 32, 3]), rng.randint(10, size=20),
        [1] * 20)
  return str(directory)


@pytest.mark.parametrize('method', [
    'mentormix', pytest.param('elr', marks=pytest.mark.slow),
    pytest.param('s_model', marks=pytest.mark.slow)])
def test_a_run_cut_and_resumed_is_the_run_uncut(records, tmp_path, monkeypatch,
                                                method):
  """In its numbers, too: what comes next follows from seed and step alone."""
  class Cut(hooks.SignalHook):
    """As if a signal came after some steps of a session."""

    def after_run(self, run_context, run_values):
      if steps and tf.train.get_global_step().eval(
          run_context.session) >= steps[0]:
        steps.pop(0)
        self._signals.stopped_by = signal.SIGTERM
      super().after_run(run_context, run_values)

  monkeypatch.setattr(hooks, 'SignalHook', Cut)
  for name, steps in (('whole', []), ('cut', [7])):
    config = CONFIG._replace(
        data_dir=records, train_log_dir=str(tmp_path / name), learning_rate=.01,
        max_number_of_steps=12, trained_mentornet_dir=loading.THRESHOLD,
        example_dropout_rates='0.2,100', save_summaries_secs=0, device_id='',
        method=method)
    os.mkdir(config.train_log_dir)
    cuts = len(steps)
    codes = [loop.train(config) for _ in range(cuts + 1)]
    assert codes == [128 + signal.SIGTERM] * cuts + [0]
  whole = testing.weights(tmp_path / 'whole')
  assert whole['global_step'] == 12
  testing.assert_same_run(testing.weights(tmp_path / 'cut'), whole)


@pytest.fixture
def run_config(records, tmp_path):
  """Of a short run on a CPU."""
  directory = tmp_path / 'train'
  directory.mkdir()
  return CONFIG._replace(
      data_dir=records, train_log_dir=str(directory), max_number_of_steps=3,
      method='cross_entropy', device_id='', save_summaries_secs=1000)


def test_a_wrong_flag_changes_nothing(run_config):
  assert loop.train(run_config) == 0
  directory = run_config.train_log_dir
  os.truncate(os.path.join(directory, 'model.ckpt-3.index'), 20)
  os.remove(os.path.join(directory, 'checkpoint'))
  before = sorted(os.listdir(directory))
  with pytest.raises(UserError, match='--seed is 0 there, 5 here'):
    loop.train(run_config._replace(seed=5))
  os.rename(os.path.join(directory, 'config.json'),
            os.path.join(directory, 'away'))
  with pytest.raises(UserError, match='holds checkpoints but no config.json'):
    loop.train(run_config)
  os.rename(os.path.join(directory, 'away'),
            os.path.join(directory, 'config.json'))
  assert sorted(os.listdir(directory)) == before


def test_a_signal_during_the_last_save_is_waited_for(run_config, monkeypatch):
  """The first of them does not end the process before all is saved."""
  save = hooks.CheckpointHook._save

  def slow_save(self, session):
    if session.run(tf.train.get_global_step()) == 3:
      os.kill(os.getpid(), signal.SIGTERM)
    save(self, session)

  monkeypatch.setattr(hooks.CheckpointHook, '_save', slow_save)
  assert loop.train(run_config) == 128 + signal.SIGTERM
  assert testing.weights(run_config.train_log_dir)['global_step'] == 3
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_which_settings_bind(run_config):
  """Not those of a start that failed; another end is known to evaluation."""
  directory = run_config.train_log_dir
  config_lib.save(run_config._replace(seed=5), directory)
  assert loop.train(run_config) == 0
  with pytest.raises(UserError, match='--seed is 0 there, 5 here'):
    loop.train(run_config._replace(seed=5))
  assert loop.train(run_config._replace(
      max_number_of_steps=2, checkpoint_path='ignored')) == 0
  saved = config_lib.load(directory)
  assert saved['max_number_of_steps'] == 2
  assert saved['checkpoint_path'] == ''  # What the run began with.


def test_other_data_or_mentornet_than_the_run_began_with(run_config, tmp_path):
  formula = tmp_path / 'mine.py'
  formula.write_text('def v_star(loss, difference, label, epoch):\n'
                     '  return 0 * loss + 1\n')
  data_dir = tmp_path / 'data'
  shutil.copytree(run_config.data_dir, str(data_dir))
  (data_dir / 'noise.json').write_text('{"seed": 1}')
  config = run_config._replace(
      method='mentornet', trained_mentornet_dir=f'v_star:{formula}',
      data_dir=str(data_dir))
  assert loop.train(config) == 0
  config = config._replace(max_number_of_steps=4)
  (data_dir / 'noise.json').write_text('{"seed": 2}')
  with pytest.raises(UserError, match='noise.json differs in seed'):
    loop.train(config)
  (data_dir / 'noise.json').write_text('{"seed": 1}')
  formula.write_text(formula.read_text().replace('+ 1', '+ 0.5'))
  with pytest.raises(UserError, match='now holds another MentorNet'):
    loop.train(config)
