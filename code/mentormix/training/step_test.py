"""One step by hand: what it changes and what it must not."""
import numpy as np
import pytest

from mentormix import config as config_lib
from mentormix import precision as precision_lib
from mentormix import runtime
from mentormix import schedules
from mentormix import settings as settings_lib
from mentormix import students
from mentormix.accelerator import flops
from mentormix.data import datasets
from mentormix.data import input_pipeline
from mentormix.messages import UserError
from mentormix.runtime import tf
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


def batch():
  rng = np.random.RandomState(0)
  return input_pipeline.Batch(
      tf.constant(rng.uniform(-1, 1, [B, 32, 32, 3]).astype(np.float32)),
      tf.constant(rng.randint(10, size=B)),
      tf.constant(rng.randint(10, size=B)), tf.constant([''] * B),
      tf.range(B))


def _build(**kwargs):
  return step_lib.build_step(CONFIG._replace(**kwargs), DIGITS, 1000, batch(),
                             _half)


def partial_step(**kwargs):
  """A `step.Step` with only these attributes."""
  return step_lib.Step(*[None] * len(step_lib.Step._fields))._replace(**kwargs)


def _values(session):
  return {v.op.name: session.run(v) for v in tf.global_variables()}


@pytest.mark.parametrize('nesterov', [False, True])
def test_one_step_is_momentum_and_then_the_average(nesterov):
  step = _build(method='cross_entropy', nesterov=nesterov)
  name = 'ResNet8/logit/DW'
  kernel = [v for v in tf.trainable_variables() if v.op.name == name][0]
  gradient, = tf.gradients(step.loss, [kernel])
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    before = session.run([kernel, gradient])
    session.run(step.train_op)
    middle = session.run([kernel, gradient])
    l2, _ = session.run([step.weights_l2, step.train_op])
    after = session.run(tf.trainable_variables())
    values = _values(session)
  ahead = lambda momentum, gradient: (  # As Sutskever et al. (2013).
      gradient + 0.9 * momentum if nesterov else momentum)
  after1 = before[0] - 0.1 * ahead(before[1], before[1])
  np.testing.assert_allclose(middle[0], after1, rtol=1e-4, atol=1e-6)
  momentum = 0.9 * before[1] + middle[1]
  after2 = after1 - 0.1 * ahead(momentum, middle[1])
  np.testing.assert_allclose(values[name], after2, rtol=1e-4, atol=1e-5)
  # Decay (1 + t) / (10 + t) for t = 0 and 1, of the weights after the step.
  average = 0.1 * before[0] + 0.9 * after1
  average = 2 / 11.0 * average + 9 / 11.0 * after2
  np.testing.assert_allclose(values[f"{name}/ExponentialMovingAverage"],
                             average, rtol=1e-4, atol=1e-5)
  assert values['global_step'] == 2
  # The weights are summed after the step.
  np.testing.assert_allclose(
      l2, sum(np.sum(np.float64(w) ** 2) / 2 for w in after), rtol=1e-4)


def test_every_state_moves_once_and_only_with_the_step():
  step = _build()
  step_lib.summarize_separation(step.v, tf.constant([True, False] * 4))
  summaries = tf.summary.merge_all()
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    start = _values(session)
    session.run([summaries, step.loss, step.v, step.selected])
    for name, value in _values(session).items():
      np.testing.assert_array_equal(value, start[name], name)
    _, summary = session.run([step.train_op, summaries])
    once = _values(session)
  assert once['global_step'] == 1
  statistics = [n for n in once if n.endswith('local_step')]
  assert len(statistics) == 7  # One batch norm each.
  assert all(once[n] == 1 for n in statistics)
  for name in ('mentor/loss_average', 'second_mentor/loss_average'):
    assert once[name] > 0.5  # Half of a first loss of about log(10).
  still = [n for n in once if np.array_equal(once[n], start[n])]
  assert not still, still
  trained = {v.op.name for v in tf.trainable_variables()}
  assert all(n.startswith('ResNet8/') for n in trained)
  for slot in '/Momentum', '/ExponentialMovingAverage':
    assert {n[:-len(slot)] for n in once if n.endswith(slot)} == trained
  tags = {value.tag for value in tf.Summary.FromString(summary).value}
  assert {'loss', 'loss_average', 'second_loss_average', 'learning_rate', 'v',
          'v/mean', 'v/selected', 'v/clean', 'v/noisy', 'v/auc', 'v/precision',
          'v/recall'} <= tags


def _set_decay(monkeypatch, coefficient):
  student = students.get(CONFIG.studentnet)
  monkeypatch.setitem(students.STUDENTS, CONFIG.studentnet, student._replace(
      weight_decay=coefficient))


@pytest.mark.parametrize('settings,decays', [
    (dict(second_reweight=False), True),
    (dict(second_reweight=True), False),
    (dict(method='cross_entropy', second_reweight=True), True),
    (dict(method='mixup', second_reweight=True), True),
    (dict(method='mentornet', second_reweight=True), True),
    (dict(second_reweight=True, weight_decay=1000.0), True),
    (dict(method='cross_entropy', weight_decay=0.0), False),
])
def test_weight_decay_is_off_with_a_second_weighting(settings, decays,
                                                     monkeypatch):
  _set_decay(monkeypatch, 1000.0)
  step = _build(mixup_alpha=0.0, **settings)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    loss = session.run(step.loss)
  assert (loss > 1000) == decays


def test_weight_decay_of_mentornet_does_not_depend_on_its_weights(monkeypatch):
  """Equation 1 of the MentorNet paper. Without any example, it is all."""
  monkeypatch.setitem(globals(), '_half', lambda features: 0 * features[:, 0])
  step = _build(method='mentornet')
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    decay = students.get(CONFIG.studentnet).decay_loss()
    loss, v, decay = session.run([step.loss, step.v, decay])
  assert not v.any() and loss > 0
  np.testing.assert_allclose(loss, decay, rtol=1e-6)


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
    (dict(method='cross_entropy'),
     dict(method='bootstrap_soft', bootstrap_beta=1.0)),
    (dict(method='cross_entropy'),
     dict(method='bootstrap_hard', bootstrap_beta=1.0)),
    (dict(method='cross_entropy'), dict(method='s_model', noise_rate=0.0)),
    (dict(method='cross_entropy'), dict(method='gce', gce_q=1e-5)),
    (dict(method='cross_entropy'), dict(method='elr', elr_lambda=0.0)),
    (dict(method='cross_entropy'), dict(method='co_teaching', forget_rate=0.0)),
    (dict(method='cross_entropy'), dict(method='cross_entropy', dropout=0.0)),
])
def test_methods_agree_in_their_limits(monkeypatch, one, other):
  """Over steps: gradients, averages of the loss and moving statistics, too."""
  _set_decay(monkeypatch, 0.0)
  monkeypatch.setitem(globals(), '_half', _loss_weight)
  one, other = _losses(3, **one), _losses(3, **other)
  assert abs(one[0] - one[2]) > 1e-3
  np.testing.assert_allclose(one, other, rtol=1e-3)


@pytest.mark.parametrize('method,passes,mentors', [
    ('cross_entropy', 1, []), ('mixup', 1, []), ('mentornet', 1, ['mentor']),
    ('bootstrap_soft', 1, []), ('s_model', 1, []), ('elr', 1, []),
    ('co_teaching', 1, []),
    ('mentormix', 2, ['mentor', 'second_mentor'])])
def test_each_method_has_the_passes_and_mentors_it_needs(method, passes,
                                                         mentors):
  """One backward pass, and no second copy of the mixed pass."""
  step = _build(method=method)
  averages = [v.op.name for v in tf.global_variables()
              if v.op.name.endswith('loss_average')]
  assert sorted(averages) == [f"{name}/loss_average" for name in mentors]
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    v, selected, _ = session.run([step.v, step.selected, step.train_op])
  np.testing.assert_allclose(v, np.full(B, 0.7 if mentors else 1.0), rtol=1e-6)
  assert selected == 1  # The share of weights of at least one half.
  kinds = [o.type for o in tf.get_default_graph().get_operations()]
  assert kinds.count('Conv2D') == passes * 7
  assert kinds.count('Conv2DBackpropFilter') == 7


@pytest.mark.parametrize('microbatches', [1, 2])
@pytest.mark.parametrize('first_pass', settings_lib.FIRST_PASSES)
def test_the_losses_of_the_first_pass(first_pass, microbatches):
  """They are of the images and statistics that its name says."""
  step = _build(first_pass=first_pass, microbatches=microbatches)
  logits, images = [], batch().images
  if first_pass == 'half':
    images = tf.reduce_mean(tf.reshape(images, [B, 16, 2, 16, 2, 3]), [2, 4])
  for part in tf.split(images, microbatches):
    with tf.variable_scope('', reuse=tf.AUTO_REUSE):
      logits.append(students.get(CONFIG.studentnet)(
          part, 10, first_pass != 'inference', update_statistics=False))
  expected = tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=batch().labels, logits=tf.concat(logits, axis=0))
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for _ in range(2):  # Then the moving statistics have moved.
      found, wanted = session.run([step.unmixed, expected])
      np.testing.assert_allclose(found, wanted, rtol=1e-4)
      session.run(step.train_op)
    values = _values(session)
  # One pass moves the statistics.
  assert {values[n] for n in values if n.endswith('local_step')} == {2}


@pytest.mark.parametrize('microbatches', [1, 2])
@pytest.mark.parametrize('first_pass', settings_lib.FIRST_PASSES)
def test_losses_are_remembered_between_first_passes(first_pass, microbatches):
  """In epochs 1 and 2, each example has its loss of epoch 0."""
  every = dict(first_pass=first_pass, microbatches=microbatches,
               learning_rate=0.5)
  step = _build(first_pass_interval_epochs=3, **every)
  with tf.variable_scope('', reuse=tf.AUTO_REUSE):
    measured = _build(**every).unmixed
  memory = [v for v in tf.global_variables()
            if v.op.name == 'method_state/losses'][0]
  assert memory.shape.as_list() == [1000]
  assert memory not in tf.trainable_variables()
  found, fresh = [], []
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    # Of 8 of 1000 examples each: the first and last step of the epochs.
    for number in (0, 124, 125, 249, 250, 374, 375):
      tf.train.get_global_step().load(number, session)
      fresh.append(session.run(measured))
      found.append(session.run([step.unmixed, step.train_op])[0])
      np.testing.assert_array_equal(session.run(memory)[:B], found[-1])
    assert not session.run(memory)[B:].any()
  for k in (0, 1, 6):
    np.testing.assert_allclose(found[k], fresh[k], rtol=1e-4)
  for k in (2, 3, 4, 5):
    np.testing.assert_array_equal(found[k], found[1])
    assert np.abs(found[k] - fresh[k]).max() > 1e-3


@pytest.mark.parametrize('alpha', [0, 1])
def test_statistics_move_after_the_first_pass(alpha):
  """Even where weights do not depend on the losses, as in burn-in."""
  step = _build(first_pass='inference', mixup_alpha=alpha)
  updates = [op for op in tf.get_collection(tf.GraphKeys.UPDATE_OPS)
             if 'mentor' not in op.name]
  assert updates
  for update in updates:
    assert step.unmixed.op in flops.behind([update.op]), update.name


def test_no_pass_is_taken_for_a_remembered_loss():
  step = _build(first_pass_interval_epochs=2)
  options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for number, passes in ((0, 2), (125, 1), (250, 2)):
      tf.train.get_global_step().load(number, session)
      trace = tf.RunMetadata()
      session.run(step.train_op, options=options, run_metadata=trace)
      kinds = [node.timeline_label.partition('(')[0].split()[-1]
               for device in trace.step_stats.dev_stats
               for node in device.node_stats if '(' in node.timeline_label]
      assert sum(kind.endswith('Conv2D') for kind in kinds) == passes * 7, kinds


def test_half_the_size_must_fit():
  students.check_size('resnet8_thin', 32, 'half')
  students.check_size('fast', 20, 'inference')
  with pytest.raises(UserError, match='--first_pass=half: --studentnet=fast '
                     'does not take images of 10x10'):
    students.check_size('fast', 20, 'half')


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


@pytest.mark.parametrize('method', [
    m for m in config_lib.METHODS if m != 'mixup'])
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
    loss, labels = session.run([step.unmixed, batch().labels])
  expected = np.log(np.exp(np.arange(10)).sum()) - labels
  np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_the_noise_layer_trains_beside_the_student():
  step = _build(method='s_model', noise_rate=0.3)
  name = 'method_state/noise_logits'
  noise = [v for v in tf.trainable_variables() if v.op.name == name][0]
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    before = session.run(noise)
    session.run(step.train_op)
    after = session.run(noise)
  np.testing.assert_allclose(np.exp(before),
                             np.full([10, 10], 0.3 / 9) + (0.7 - 0.3 / 9)
                             * np.eye(10), rtol=1e-5)
  assert np.abs(after - before).max() > 1e-4


def test_elr_remembers_the_examples_of_the_batch():
  """From t = 0 on; only the rows of the batch move, and once a step."""
  step = _build(method='elr', elr_beta=0.6, learning_rate=1e-9)
  memory = [v for v in tf.global_variables()
            if v.op.name == 'method_state/targets'][0]
  assert memory not in tf.trainable_variables()
  assert memory.shape.as_list() == [1000, 10]
  sums = []
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for _ in range(3):
      session.run(step.loss)  # This changes nothing.
      session.run(step.train_op)
      sums.append(session.run(memory).sum(axis=1))
  for found, expected in zip(sums, (0.4, 0.64, 0.784)):
    np.testing.assert_allclose(found[:B], np.full(B, expected), rtol=1e-5)
    assert not found[B:].any()


def test_co_teaching_forgets_more_and_more(monkeypatch):
  """v has what was kept; a step is 8 of 1000 examples."""
  monkeypatch.setattr(schedules, 'FORGETTING_EPOCHS', 0.016)  # Two steps.
  step = _build(method='co_teaching', forget_rate=0.5)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    kept = []
    for _ in range(4):
      v, losses, _ = session.run([step.v, step.unmixed, step.train_op])
      kept.append(int(v.sum()))
      assert losses[v == 1].max() < losses[v == 0].min(initial=1e9)
  assert kept == [8, 6, 4, 4]


def test_dropout_is_that_of_the_settings():
  """Of a student that has none itself: training is another, and finite."""
  plain, dropped = _losses(2), _losses(2, dropout=0.5)
  assert plain[0] != dropped[0] and np.isfinite(dropped).all()
