"""One step by hand, what it moves and what it must not, and the hooks."""
import io
import os
import shutil
import signal
import sys

import numpy as np
import pytest

from mentormix import config as config_lib
from mentormix.data import datasets
from mentormix.data import input_pipeline
from mentormix.mentornet import loading as mentornet_loading
from mentormix.mentornet import loss_traces
from mentormix.messages import RunError
from mentormix.messages import UserError
from mentormix import precision as precision_lib
from mentormix import runtime
from mentormix.runtime import tf
from mentormix.students import resnet
from mentormix import testing
from mentormix.training import hooks
from mentormix.training import loop as training_loop
from mentormix.training import step as step_lib

B = 8
DIGITS = datasets.get('digits')
CONFIG = config_lib.TrainConfig(
    dataset_name='digits', studentnet='resnet8_thin', batch_size=B,
    max_number_of_steps=100, num_epochs_per_decay=30, data_dir='unused',
    train_log_dir='unused', trained_mentornet_dir='unused')


def _half(features):
  """A MentorNet that always says 0.7."""
  return 0.7 * tf.ones_like(features[:, 0])


@pytest.fixture(autouse=True)
def fresh_graph():
  tf.reset_default_graph()
  tf.set_random_seed(1)


def _batch():
  rng = np.random.RandomState(0)
  return input_pipeline.Batch(
      tf.constant(rng.uniform(-1, 1, [B, 32, 32, 3]).astype(np.float32)),
      tf.constant(rng.randint(10, size=B)),
      tf.constant(rng.randint(10, size=B)), tf.constant([''] * B))


def _build(**kwargs):
  return step_lib.build_step(CONFIG._replace(**kwargs), DIGITS, 1000, _batch(),
                             _half)


def _step(**kwargs):
  """A `training.Step` of just these."""
  return step_lib.Step(*[None] * len(step_lib.Step._fields))._replace(**kwargs)


def _values(session):
  return {v.op.name: session.run(v) for v in tf.global_variables()}


def test_one_step_is_momentum_and_then_the_average():
  step = _build(method='cross_entropy')
  name = 'ResNet8/logit/DW'
  kernel = [v for v in tf.trainable_variables() if v.op.name == name][0]
  gradient, = tf.gradients(step.loss, [kernel])
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    before = session.run([kernel, gradient])
    session.run(step.train_op)
    middle = session.run([kernel, gradient])
    session.run(step.train_op)
    values = _values(session)
  after1 = before[0] - 0.1 * before[1]
  np.testing.assert_allclose(middle[0], after1, rtol=1e-4, atol=1e-6)
  momentum = 0.9 * before[1] + middle[1]
  after2 = after1 - 0.1 * momentum
  np.testing.assert_allclose(values[name], after2, rtol=1e-4, atol=1e-5)
  # Decay (1 + t) / (10 + t) for t = 0 and 1, of the weights after the step.
  average = 0.1 * before[0] + 0.9 * after1
  average = 2 / 11.0 * average + 9 / 11.0 * after2
  np.testing.assert_allclose(values[name + '/ExponentialMovingAverage'],
                             average, rtol=1e-4, atol=1e-5)
  assert values['global_step'] == 2


def test_every_state_moves_once_and_only_with_the_step():
  step = _build()
  summaries = tf.summary.merge_all()
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    start = _values(session)
    session.run([summaries, step.loss, step.v, step.selected])
    for name, value in _values(session).items():
      np.testing.assert_array_equal(value, start[name], name)
    session.run([step.train_op, summaries])
    once = _values(session)
  assert once['global_step'] == 1
  statistics = [n for n in once if n.endswith('local_step')]
  assert len(statistics) == 7  # One batch norm each.
  assert all(once[n] == 1 for n in statistics)
  for name in ('mentor/loss_average', 'second_mentor/loss_average'):
    assert once[name] > 0.5  # Half of a first loss of about log(10).
  still = [n for n in once if np.array_equal(once[n], start[n])]
  assert not still, still


def test_what_is_trained_and_averaged():
  _build()
  trained = {v.op.name for v in tf.trainable_variables()}
  assert all(n.startswith('ResNet8/') for n in trained)
  everything = {v.op.name for v in tf.global_variables()}
  for name in trained:
    assert name + '/Momentum' in everything
    assert name + '/ExponentialMovingAverage' in everything
  moving = {n for n in everything if n.endswith('moving_mean')}
  assert not any(n + '/ExponentialMovingAverage' in everything for n in moving)


def test_only_the_mixed_pass_moves_statistics():
  _build()
  updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
  assert len(updates) == 2 * 7 + 2  # Seven batch norms, two mentors.


@pytest.mark.parametrize('settings,decays', [
    (dict(second_reweight=False), True),
    (dict(second_reweight=True), False),
    (dict(method='cross_entropy', second_reweight=True), True),
    (dict(method='mixup', second_reweight=True), True),
    (dict(method='mentornet', second_reweight=True), True),
])
def test_weight_decay_is_off_with_a_second_weighting(settings, decays,
                                                     monkeypatch):
  monkeypatch.setattr(resnet, 'WEIGHT_DECAY', 1000.0)
  step = _build(mixup_alpha=0.0, **settings)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    loss = session.run(step.loss)
  assert (loss > 1000) == decays


def _losses(steps, **settings):
  """The loss before each of some steps from the same weights."""
  tf.reset_default_graph()
  tf.set_random_seed(4)
  step = _build(**settings)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    rng = np.random.RandomState(3)
    for v in tf.trainable_variables():
      if 'DW' in v.op.name:
        v.load((0.1 * rng.randn(*v.shape.as_list())).astype(np.float32),
               session)
    return [session.run([step.loss, step.train_op])[0] for _ in range(steps)]


def _loss_weight(features):
  """A MentorNet that fades from the moving average of the loss on."""
  return tf.sigmoid(-features[:, 1])


@pytest.mark.parametrize('one,other', [
    (dict(method='cross_entropy'), dict(method='mixup', mixup_alpha=0.0)),
    (dict(method='cross_entropy'),
     dict(method='mentornet', burn_in_epoch=100)),  # All weights are 1.
    (dict(method='cross_entropy'),
     dict(method='mentormix', mixup_alpha=0.0, second_reweight=False)),
    (dict(method='mentornet'), dict(method='mentormix', mixup_alpha=0.0)),
])
def test_methods_agree_in_their_limits(monkeypatch, one, other):
  """Over steps: gradients, averages of the loss and moving statistics, too."""
  monkeypatch.setattr(resnet, 'WEIGHT_DECAY', 0.0)
  monkeypatch.setitem(globals(), '_half', _loss_weight)
  one, other = _losses(3, **one), _losses(3, **other)
  assert abs(one[0] - one[2]) > 1e-3
  np.testing.assert_allclose(one, other, rtol=1e-3)


@pytest.mark.parametrize('method,mentors', [
    ('cross_entropy', []), ('mixup', []), ('mentornet', ['mentor']),
    ('mentormix', ['mentor', 'second_mentor'])])
def test_each_method_has_the_mentors_it_needs(method, mentors):
  step = _build(method=method)
  averages = [v.op.name for v in tf.global_variables()
              if v.op.name.endswith('loss_average')]
  assert sorted(averages) == [name + '/loss_average' for name in mentors]
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    v, _ = session.run([step.v, step.train_op])
  np.testing.assert_allclose(v, np.full(B, 0.7 if mentors else 1.0), rtol=1e-6)


def test_summaries_name_what_is_to_be_seen():
  step = _build()
  step_lib.summarize_separation(step.v, tf.constant([True, False] * 4))
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    summary = tf.Summary.FromString(session.run(tf.summary.merge_all()))
  tags = {value.tag for value in summary.value}
  assert {'loss', 'loss_average', 'second_loss_average', 'learning_rate', 'v',
          'v/mean', 'v/selected', 'v/clean', 'v/noisy', 'v/auc', 'v/precision',
          'v/recall'} <= tags


@pytest.mark.skipif(runtime.IS_1_15, reason='1.15 has no bfloat16 arithmetic')
def test_mixed_precision_keeps_state_in_float32_and_trains_alike():
  losses = _losses(3, method='cross_entropy', precision='mixed')
  dtypes = {v.dtype.base_dtype for v in tf.global_variables()}
  assert dtypes == {tf.float32, tf.int64}  # int64: the step.
  plain = _losses(3, method='cross_entropy')
  np.testing.assert_allclose(losses, plain, rtol=0.02)
  assert losses != plain


@pytest.mark.skipif(not runtime.IS_1_15, reason='float16 is for 1.15')
def test_loss_scaling_changes_no_step_and_skips_what_overflows():
  """The graph rewrite itself needs a GPU; the scaling of the loss does not."""
  np.testing.assert_allclose(
      _losses(3, method='cross_entropy', precision='mixed'),
      _losses(3, method='cross_entropy'), rtol=1e-5)
  tf.reset_default_graph()
  factor = tf.placeholder_with_default(1.0, [])
  w = tf.get_variable('w', initializer=2.0)
  train_op = step_lib._update(
      factor * w, step_lib._AveragingOptimizer(precision_lib.scale_loss(
          tf.train.GradientDescentOptimizer(0.5), 'mixed'), 0.5),
      tf.train.get_or_create_global_step())
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    session.run(train_op)
    assert session.run(w) == 1.5
    session.run(train_op, {factor: float('inf')})
    assert session.run(w) == 1.5  # Not taken, but a step all the same.
    assert session.run(tf.train.get_global_step()) == 2
    session.run(train_op)
    assert session.run(w) < 1.5


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  """A directory with 40 images in two files."""
  directory = tmp_path_factory.mktemp('records')
  rng = np.random.RandomState(0)
  for shard in range(2):
    testing.write_records(
        directory / ('digits_train-%d' % shard),
        rng.randint(0, 256, [20, 32, 32, 3]), rng.randint(10, size=20),
        [1] * 20)
  return str(directory)


def test_a_run_cut_and_resumed_is_the_run_uncut(records, tmp_path, monkeypatch):
  """In its numbers, too: what comes next follows from seed and step alone."""
  class Cut(hooks.SignalHook):
    """As if a signal came after some steps of a session."""

    def after_run(self, run_context, run_values):
      if steps and runtime.tf.train.get_global_step().eval(
          run_context.session) >= steps[0]:
        self.stop.received = steps.pop(0) and signal.SIGTERM
      super(Cut, self).after_run(run_context, run_values)

  monkeypatch.setattr(hooks, 'SignalHook', Cut)
  for name, steps in (('whole', []), ('cut', [7, 23])):
    config = CONFIG._replace(
        data_dir=records, train_log_dir=str(tmp_path / name), learning_rate=.01,
        max_number_of_steps=30, trained_mentornet_dir=mentornet_loading.THRESHOLD,
        example_dropout_rates='0.2,100', save_summaries_secs=0, device_id='')
    os.mkdir(config.train_log_dir)
    cuts = len(steps)
    codes = [training_loop.train(config) for _ in range(cuts + 1)]
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
    assert training_loop.train(run_config._replace(max_number_of_steps=steps)) == 0
  os.truncate(os.path.join(run_config.train_log_dir,
                           'model.ckpt-5.data-00000-of-00001'), 100)
  started = config_lib.load(run_config.train_log_dir)['started']
  assert training_loop.train(run_config._replace(max_number_of_steps=6)) == 0
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
  assert training_loop.train(run_config) == 0
  directory = run_config.train_log_dir
  os.truncate(os.path.join(directory, 'model.ckpt-3.index'), 20)
  os.remove(os.path.join(directory, 'checkpoint'))
  before = sorted(os.listdir(directory))
  with pytest.raises(UserError, match='--seed is 0 there, 5 here'):
    training_loop.train(run_config._replace(seed=5))
  os.rename(os.path.join(directory, 'config.json'),
            os.path.join(directory, 'away'))
  with pytest.raises(UserError, match='holds checkpoints but no config.json'):
    training_loop.train(run_config)
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
  assert training_loop.train(run_config) == 128 + signal.SIGTERM
  assert testing.weights(run_config.train_log_dir)['global_step'] == 3
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_lowered_end_is_known_to_the_evaluation(run_config):
  assert training_loop.train(run_config) == 0
  assert training_loop.train(run_config._replace(max_number_of_steps=2)) == 0
  saved = config_lib.load(run_config.train_log_dir)
  assert saved['max_number_of_steps'] == 2


def test_a_start_that_failed_binds_nobody(run_config):
  config_lib.save(run_config._replace(seed=5), run_config.train_log_dir)
  assert training_loop.train(run_config) == 0
  with pytest.raises(UserError, match='--seed is 0 there, 5 here'):
    training_loop.train(run_config._replace(seed=5))


def test_other_data_or_mentornet_than_the_run_began_with(run_config, tmp_path):
  formula = tmp_path / 'mine.py'
  formula.write_text('def v_star(loss, difference, label, epoch):\n'
                     '  return 0 * loss + 1\n')
  data_dir = tmp_path / 'data'
  shutil.copytree(run_config.data_dir, str(data_dir))
  (data_dir / 'noise.json').write_text('{"seed": 1}')
  config = run_config._replace(
      method='mentornet', trained_mentornet_dir='v_star:%s' % formula,
      data_dir=str(data_dir))
  assert training_loop.train(config) == 0
  config = config._replace(max_number_of_steps=4)
  (data_dir / 'noise.json').write_text('{"seed": 2}')
  with pytest.raises(UserError, match='noise.json differs in seed'):
    training_loop.train(config)
  (data_dir / 'noise.json').write_text('{"seed": 1}')
  formula.write_text(formula.read_text().replace('+ 1', '+ 0.5'))
  with pytest.raises(UserError, match='holds another MentorNet now'):
    training_loop.train(config)


@pytest.mark.parametrize('when', ['save', 'summary'])
def test_a_full_disk_costs_the_steps_since_the_last_checkpoint(
    run_config, monkeypatch, when):
  """One line that says what to do; then the run goes on."""
  class Fill(hooks.SignalHook):
    """Fills the disk after a step, before anything is written."""

    def after_run(self, run_context, run_values):
      if not os.path.exists(os.path.join(disk, 'filler')):
        testing.fill_disk(disk)
      super(Fill, self).after_run(run_context, run_values)

  class Always(hooks.SummaryHook):
    """Writes the summaries of every step."""

    def after_run(self, run_context, run_values):
      super(Always, self).after_run(run_context, run_values)
      self._due = 0

  with testing.small_disk('8m') as disk:
    config = run_config._replace(
        train_log_dir=disk, max_number_of_steps=40,
        save_summaries_secs=1 if when == 'summary' else 0)
    with monkeypatch.context() as patch:
      patch.setattr(hooks, 'SignalHook', Fill)
      patch.setattr(hooks, 'SummaryHook', Always)
      with pytest.raises(RunError) as error:
        training_loop.train(config)
    line = str(error.value)
    assert line.startswith('--train_log_dir=%s cannot be read or written ('
                           % disk)
    assert 'No space left on device' in line
    assert line.endswith('make room or mend it; then the same command goes on '
                         'from step 0 in %s' % disk)
    assert {'save': 'model.ckpt-40', 'summary': 'tfevents'}[when] in line
    os.remove(os.path.join(disk, 'filler'))
    assert training_loop.train(config) == 0
    assert testing.weights(disk)['global_step'] == 40
    assert not [name for name in os.listdir(disk) if 'temp' in name]


@pytest.mark.parametrize('loss,size,said', [
    (float('nan'), 1.0, 'at step 8 the loss is nan;'),
    (1.0, float('inf'), 'at step 8 the sum of squared weights is inf;'),
    (1.0, 1.0, None)])
def test_numbers_gone_bad_end_training_in_that_step(tmp_path, loss, size, said):
  step = _step(loss=tf.constant(loss), weights_l2=tf.constant(size),
               done=tf.constant(8))
  config = CONFIG._replace(train_log_dir=str(tmp_path))
  with tf.train.MonitoredSession(
      hooks=[hooks.SoundHook(step, config)]) as session:
    if said:
      with pytest.raises(RunError, match=said + '.* lower --learning_rate=0.1'):
        session.run([])
    else:
      session.run([])


def test_weights_are_summed_after_the_step():
  step = _build(method='cross_entropy')
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    l2, _ = session.run([step.weights_l2, step.train_op])
    after = session.run(tf.trainable_variables())
  np.testing.assert_allclose(
      l2, sum(np.sum(np.float64(w) ** 2) / 2 for w in after), rtol=1e-4)


def test_separation_by_hand():
  v = tf.constant([0.9, 0.8, 0.2, 0.6, 0.2])
  is_clean = tf.constant([True, True, True, False, False])
  with tf.Session() as session:
    auc, precision, recall = session.run(
        step_lib.summarize_separation(v, is_clean))
  # Of six pairs, 0.9 and 0.8 win four; 0.2 loses one and ties one.
  np.testing.assert_allclose(auc, 4.5 / 6, rtol=1e-6)
  np.testing.assert_allclose(precision, 2 / 3.0, rtol=1e-6)
  np.testing.assert_allclose(recall, 2 / 3.0, rtol=1e-6)


def test_selection_counts_weights_of_one_half():
  step = _build()
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    assert session.run(step.selected) == 1
    np.testing.assert_allclose(session.run(step.v), np.full(B, 0.7), rtol=1e-6)


def _global_step(start):
  return tf.get_variable(
      'global_step', initializer=np.int64(start), trainable=False,
      collections=[tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.GLOBAL_STEP])


def _trace(path, config, steps, start=0, saved_after=()):
  """Runs a TraceHook; rows are written as before checkpoints at these steps."""
  tf.reset_default_graph()
  _global_step(start)
  batch = _batch()
  percent = tf.get_variable('percent', [], tf.int32, tf.zeros_initializer(),
                            use_resource=True)
  before = percent.read_value()
  with tf.control_dependencies([before]):
    bump = percent.assign_add(1)
  step = _step(train_op=bump, done=start + 1 + before, unmixed=tf.ones([B]),
               epoch_percent=before)
  hook = hooks.TraceHook(config, step, batch, is_new=not start)
  with tf.train.SingularMonitoredSession(hooks=[hook]) as session:
    for done in range(start, start + steps):
      session.run(step.train_op)
      if done + 1 in saved_after:
        hook.before_save(done + 1)
  with open(path) as f:
    return [line.split(',') for line in f.read().splitlines()[1:]]


def test_a_trace_has_the_rows_of_evenly_spread_steps(tmp_path, monkeypatch):
  path = str(tmp_path / 'losses.csv')
  config = CONFIG._replace(loss_csv_file=path, train_log_dir=str(tmp_path))
  with tf.Session() as session:
    batch = session.run(_batch())
  rows = _trace(path, config, 4, saved_after=(1, 3))
  assert len(rows) == 3 * B  # The last step was never saved.
  assert [row[1] for row in rows[::B]] == ['0', '1', '2']
  assert [int(row[2]) for row in rows] == list(batch.labels) * 3
  assert [int(row[3]) for row in rows] == list(batch.clean_labels) * 3
  rows = _trace(path, config, 2, start=3, saved_after=(4, 5))
  assert len(rows) == 5 * B
  rows = _trace(path, config, 1, start=4, saved_after=())  # 5 was damaged.
  assert len(rows) == 4 * B
  monkeypatch.setattr(loss_traces, 'MAX_ROWS', 40 * B)
  (tmp_path / 'losses.csv').unlink()
  rows = _trace(path, config, 9, saved_after=(9,))
  assert [row[1] for row in rows[::B]] == ['0', '3', '6']  # 100 steps, 40 kept.


@pytest.mark.parametrize('method', ['cross_entropy', 'mentornet', 'mentormix'])
def test_the_unmixed_loss_is_that_of_the_labels_given(method):
  """At weights of 0 it is log K, and what a mentor gets, mixed or not."""
  step = _build(method=method)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for v in tf.trainable_variables():
      if 'logit' in v.op.name:
        v.load(np.zeros(v.shape.as_list(), np.float32), session)
    biases = [v for v in tf.trainable_variables()
              if v.op.name.endswith('logit/biases')][0]
    biases.load(np.arange(10, dtype=np.float32), session)
    loss, labels = session.run([step.unmixed, _batch().labels])
  expected = np.log(np.exp(np.arange(10)).sum()) - labels
  np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_progress_lines(capsys, monkeypatch):
  monkeypatch.setattr(hooks, '_LOG_SECS', 0)
  bump = tf.assign_add(_global_step(4), 1)
  step = _step(done=bump, loss=tf.constant(1.25), selected=tf.constant(0.5))
  hook = hooks.ProgressHook(step, 6)
  with tf.train.MonitoredSession(hooks=[hook]) as session:
    session.run(bump)
    session.run(bump)
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 2
  assert 'step 5/6 (83.3%)  loss 1.250  selected 50%' in lines[0]
  assert 'step 6/6 (100.0%)' in lines[1] and '0:00:00 left' in lines[1]


def test_progress_bar_on_a_terminal(monkeypatch):
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  monkeypatch.setattr(sys, 'stdout', Terminal())
  bump = tf.assign_add(_global_step(4), 1)
  step = _step(done=bump, loss=tf.constant(1.25), selected=tf.constant(0.5))
  with tf.train.MonitoredSession(
      hooks=[hooks.ProgressHook(step, 6)]) as session:
    session.run(bump)
    session.run(bump)
  shown = sys.stdout.getvalue()
  assert 'loss=1.250' in shown and 'selected=50%' in shown
  assert shown.rstrip().split('\r')[-1].startswith('100%') and '6/6' in shown


@pytest.mark.parametrize('seconds,text', [
    (0, '0:00:00'), (61.4, '0:01:01'), (3599.6, '1:00:00'),
    (100 * 3600 + 5, '100:00:05')])
def test_duration(seconds, text):
  assert hooks._duration(seconds) == text


def test_graph_has_no_second_copy_of_the_mixed_pass():
  """Two forward passes and one backward pass, no more."""
  _build()
  operations = tf.get_default_graph().get_operations()
  convolutions = sum(o.type == 'Conv2D' for o in operations)
  backward = sum(o.type == 'Conv2DBackpropFilter' for o in operations)
  assert (convolutions, backward) == (2 * 7, 7)


@pytest.mark.parametrize('method', ['cross_entropy', 'mixup', 'mentornet'])
def test_the_other_methods_have_one_pass(method):
  _build(method=method)
  operations = tf.get_default_graph().get_operations()
  assert sum(o.type == 'Conv2D' for o in operations) == 7
