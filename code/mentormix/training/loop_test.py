"""Training as a whole: resuming, refusing, stopping, and a full disk."""
import os
import shutil
import signal

import numpy as np
import pytest

from mentormix import config as config_lib
from mentormix import testing
from mentormix.mentornet import loading
from mentormix.messages import RunError
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


def test_a_run_cut_and_resumed_is_the_run_uncut(records, tmp_path, monkeypatch):
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
  for name, steps in (('whole', []), ('cut', [7, 23])):
    config = CONFIG._replace(
        data_dir=records, train_log_dir=str(tmp_path / name), learning_rate=.01,
        max_number_of_steps=30, trained_mentornet_dir=loading.THRESHOLD,
        example_dropout_rates='0.2,100', save_summaries_secs=0, device_id='')
    os.mkdir(config.train_log_dir)
    cuts = len(steps)
    codes = [loop.train(config) for _ in range(cuts + 1)]
    assert codes == [128 + signal.SIGTERM] * cuts + [0]
  whole = testing.weights(tmp_path / 'whole')
  assert whole['global_step'] == 30
  testing.assert_same_run(testing.weights(tmp_path / 'cut'), whole)


@pytest.fixture
def run_config(records, tmp_path):
  """Of a short run on a CPU."""
  directory = tmp_path / 'train'
  directory.mkdir()
  return CONFIG._replace(
      data_dir=records, train_log_dir=str(directory), max_number_of_steps=3,
      method='cross_entropy', device_id='', save_summaries_secs=1000)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    run_config, capsys):
  for steps in (3, 5):
    assert loop.train(run_config._replace(max_number_of_steps=steps)) == 0
  os.truncate(os.path.join(run_config.train_log_dir,
                           'model.ckpt-5.data-00000-of-00001'), 100)
  started = config_lib.load(run_config.train_log_dir)['started']
  assert loop.train(run_config._replace(max_number_of_steps=6)) == 0
  out = capsys.readouterr().out
  assert 'model.ckpt-5 cannot be read' in out
  assert 'from step 3' in out.splitlines()[-3]
  assert testing.weights(run_config.train_log_dir)['global_step'] == 6
  assert config_lib.load(run_config.train_log_dir)['started'] == started
  names = os.listdir(run_config.train_log_dir)
  assert {name for name in names if name.startswith('damaged.')} == {
      'damaged.model.ckpt-5.index',
      'damaged.model.ckpt-5.data-00000-of-00001'}
  assert not [name for name in names if name.endswith('.meta')]


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


def test_a_lowered_end_is_known_to_the_evaluation(run_config):
  assert loop.train(run_config) == 0
  assert loop.train(run_config._replace(max_number_of_steps=2)) == 0
  saved = config_lib.load(run_config.train_log_dir)
  assert saved['max_number_of_steps'] == 2


def test_a_start_that_failed_binds_nobody(run_config):
  config_lib.save(run_config._replace(seed=5), run_config.train_log_dir)
  assert loop.train(run_config) == 0
  with pytest.raises(UserError, match='--seed is 0 there, 5 here'):
    loop.train(run_config._replace(seed=5))


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


@pytest.mark.slow
@pytest.mark.parametrize('when', ['save', 'summary'])
def test_a_full_disk_costs_the_steps_since_the_last_checkpoint(
    run_config, monkeypatch, when):
  """One line that says what to do; then the run goes on."""
  class Fill(hooks.SignalHook):
    """Fills the disk after a step, before anything is written."""

    def after_run(self, run_context, run_values):
      if not os.path.exists(os.path.join(disk, 'filler')):
        testing.fill_disk(disk)
      super().after_run(run_context, run_values)

  class Always(hooks.SummaryHook):
    """Writes the summaries of every step."""

    def after_run(self, run_context, run_values):
      super().after_run(run_context, run_values)
      self._due = 0

  with testing.small_disk('8m') as disk:
    config = run_config._replace(
        train_log_dir=disk, max_number_of_steps=40,
        save_summaries_secs=1 if when == 'summary' else 0)
    with monkeypatch.context() as patch:
      patch.setattr(hooks, 'SignalHook', Fill)
      patch.setattr(hooks, 'SummaryHook', Always)
      with pytest.raises(RunError) as error:
        loop.train(config)
    line = str(error.value)
    assert line.startswith(
        f'--train_log_dir={disk} cannot be read or written (')
    assert 'No space left on device' in line
    assert line.endswith('free some space or fix that; then rerun the same '
                         f'command to resume from step 0 in {disk}')
    assert {'save': 'model.ckpt-40', 'summary': 'tfevents'}[when] in line
    os.remove(os.path.join(disk, 'filler'))
    assert loop.train(config) == 0
    assert testing.weights(disk)['global_step'] == 40
    assert not [name for name in os.listdir(disk) if 'temp' in name]
