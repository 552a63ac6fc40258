"""What code/benchmark.py times: the step, its parts and its input.

Each builder takes (config, a directory for files) and returns (name -> `Row`,
facts). B is the batch size, K the number of classes.
"""
import functools
import resource
import sys
import tempfile
import typing

import published_graph
from mentormix.accelerator import flops
from mentormix.data import datasets
from mentormix.data import input_pipeline
from mentormix.data import record_checks
from mentormix import mentormix_loss
from mentormix.mentornet import loading as mentornet_loading
from mentormix.mentornet import mentor as mentor_lib
from mentormix import precision
from mentormix import runtime
from mentormix.runtime import tf
from mentormix import sampling
from mentormix import students
from mentormix.students import resnet
from mentormix import summaries
from mentormix.training import step as step_lib

FLOOR = 'floor'
STEP = 'step'
INPUT_STEP = 'step + input'
SUMMARIES_STEP = 'step + input + summaries'
PUBLISHED_STEP = 'published step + input'
OURS, PUBLISHED = 'ours', 'published'  # The two input pipelines.
THREADS = (1, 2, 4)  # Of an input pipeline.
PUBLISHED_THREADS = 4  # Of the published step.
PRODUCT = 2048  # Rows and columns of the matrix product.

_BEYOND_QUEUES = 6  # Steps of warm-up: input pipelines are 4 batches ahead.
_MEMORY_STEPS = 5


class Row(typing.NamedTuple):
  """What is timed."""
  run: typing.Callable[[], typing.Any]
  calls: int = 1  # How many calls make a sample.
  warm_up: int = 3  # Samples that do not count, in every turn.


class _Data(typing.NamedTuple):
  """What a step is built on."""
  dataset: datasets.Dataset
  files: typing.List[str]  # Paths of the TFRecords.
  count: int  # How many records they hold.
  network: typing.Callable  # The MentorNet.


def _data(config):
  runtime.select_device(config.device_id)
  precision.check_precision(config.precision)
  dataset = datasets.get(config.dataset_name, config.data_dir)
  paths = datasets.find_files(dataset, 'train', config.data_dir)
  paths, count = record_checks.check_files(dataset, 'train', paths)
  return _Data(dataset, paths, count, mentornet_loading.load(
      config.trained_mentornet_dir, config.loss_p_percentile))


def _session(config):
  """A session on the default graph as training has it, queues running."""
  session = tf.Session(config=runtime.session_config(
      config.precision, config.xla))
  with runtime.without_xla():
    session.run([tf.global_variables_initializer(),
                 tf.local_variables_initializer()])
  tf.train.start_queue_runners(session)
  return session


def inputs(config, unused_directory):
  """Both input pipelines by number of threads."""
  data = _data(config)
  rows = {}
  for threads in THREADS:
    for name, pipeline in ((OURS, input_pipeline),
                           (PUBLISHED, published_graph)):
      with tf.Graph().as_default():
        batch = _train_batch(pipeline, config, data, threads)
        rows[f'{name}, threads: {threads}'] = _batches(_session(config), batch)
  return rows, {}


def _train_batch(pipeline, config, data, threads):
  return pipeline.train_batch(
      data.dataset, data.files, data.count, config.batch_size,
      num_readers=config.num_readers, num_threads=threads)


def _batches(session, batch):
  ops = [batch.images.op, batch.labels.op]
  return Row(functools.partial(session.run, ops), _BEYOND_QUEUES, 1)


def steps(config, directory):
  """The step, whole and in parts, and the most that the machine can do."""
  data = _data(config)
  rows, counted = {}, {}

  def add(name, session, ops, fed=None, warm_up=3):
    """A row with its operations counted."""
    counted[name] = flops.count(ops)
    rows[name] = Row(functools.partial(session.run, ops, fed), 1, warm_up)

  with tf.Graph().as_default():
    ops = _floor(config, data)
    add(FLOOR, _session(config), ops)

  with tf.Graph().as_default():
    batch, ops = _build_step(config, data, input_pipeline,
                             config.num_preprocessing_threads)
    summary = tf.summary.merge_all()
    shown = [s.op.inputs[1] for s in tf.get_collection(tf.GraphKeys.SUMMARIES)]
    writer = summaries.Writer(tempfile.mkdtemp(dir=directory))
    step_session = _session(config)
    fixed = dict(zip(batch, step_session.run(batch)))
    shown = dict(zip(shown, step_session.run(shown, fixed)))
    add(STEP, step_session, ops, fixed)
    add(INPUT_STEP, step_session, ops, warm_up=_BEYOND_QUEUES)
    with_summary = [summary] + ops
    rows[SUMMARIES_STEP] = Row(lambda: writer.add_summary(
        step_session.run(with_summary)[0], 0), 1, _BEYOND_QUEUES)

  if config.precision == 'float32' and not config.xla:
    name = f'{PUBLISHED}_{config.studentnet}'
    students.STUDENTS[name] = functools.partial(
        published_graph.resnet, **students.get(config.studentnet).keywords)
    with tf.Graph().as_default():
      _, ops = _build_step(config._replace(studentnet=name), data,
                           published_graph, PUBLISHED_THREADS)
      add(PUBLISHED_STEP, _session(config), ops, warm_up=_BEYOND_QUEUES)

  with tf.Graph().as_default():
    parts = _parts(config, data)
    session = _session(config)
    for name, ops in parts.items():
      rows[name] = Row(functools.partial(session.run, ops), 5, 3)
  rows['summaries'] = Row(lambda: writer.add_summary(
      step_session.run(summary, shown), 0), 5, 3)
  rows['input'] = _batches(step_session, batch)

  for dtype in sorted({tf.float32, precision.arithmetic(config.precision)},
                      key=lambda dtype: -dtype.size):
    with tf.Graph().as_default():
      matrix = tf.Variable(tf.cast(
          tf.random.normal([PRODUCT, PRODUCT]), dtype))
      product = _keep(tf.matmul(matrix, matrix), matrix.shape)
      add(f'matrix product, {dtype.name}',
          _session(config._replace(xla=False)), [product])  # The library's own.
  return rows, dict(operations=counted)


def _build_step(config, data, pipeline, threads):
  """A whole step as in training: (batch, ops)."""
  batch = _train_batch(pipeline, config, data, threads)
  step = step_lib.build_step(config, data.dataset, data.count, batch,
                             data.network)
  if datasets.has_clean_labels(data.files):
    step_lib.summarize_separation(
        step.v, tf.equal(batch.labels, batch.clean_labels))
  # With what training looks at in every step.
  return batch, [step.train_op, step.weights_l2.op]


def _floor(config, data):
  """Ops of two forwards and one backward, and nothing else."""
  batch_size, num_classes = config.batch_size, data.dataset.num_classes
  images = tf.Variable(tf.random.normal(
      [batch_size] + 2 * [data.dataset.image_size] + [3]), trainable=False)
  labels = tf.Variable(tf.one_hot(tf.range(batch_size) % num_classes,
                                  num_classes), trainable=False)
  losses = []
  for reuse in (False, True):
    with tf.variable_scope(tf.get_variable_scope(), reuse=reuse):
      logits = students.get(config.studentnet)(
          images, num_classes, True, update_statistics=False,
          dtype=precision.arithmetic(config.precision))
    losses.append(tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(
        labels=tf.stop_gradient(labels), logits=logits)))
    # The second pass must not be taken for a copy of the first.
    images = images + 1e-6 * tf.stop_gradient(losses[0])
  weights = tf.trainable_variables()
  return [_keep(gradient, weight.shape) for gradient, weight in zip(
      tf.gradients(losses[1], weights), weights)]


def _keep(tensor, shape):
  """An op that moves `tensor` into a variable, which takes no copy.

  What nobody uses, the graph optimizer or XLA would leave out.
  """
  kept = tf.Variable(tf.zeros(shape, tensor.dtype), trainable=False)
  return kept.assign(tensor).op


def _parts(config, data):
  """Ops of parts of the step, each on constants."""
  constant = lambda x: tf.identity(tf.Variable(x, trainable=False))
  size, num_classes = config.batch_size, data.dataset.num_classes
  images = constant(tf.random.normal(
      [size] + 2 * [data.dataset.image_size] + [3]))
  labels = constant(tf.one_hot(tf.range(size) % num_classes, num_classes))
  parts = {}

  loss = constant(tf.random.uniform([size], maxval=5.0))
  mentor = mentor_lib.Mentor(data.network, tf.constant(50),
                            config.loss_p_percentile)
  v = mentor(loss)
  moved = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
  parts['mentor'] = [_keep(v, [size])] + [x.op for x in moved]

  v = constant(tf.random.uniform([size]))
  step = tf.train.get_or_create_global_step()
  mixed = mentormix_loss._mix_with_partners(
      images, labels, v, config.mixup_alpha,
      sampling.Sampler(config.seed, tf.identity(step), 0))
  parts['mixing'] = [_keep(x, whole.shape)
                     for x, whole in zip(mixed, (images, labels))]

  tf.get_collection_ref(tf.GraphKeys.UPDATE_OPS).clear()
  students.get(config.studentnet)(images, num_classes, True,
                                  update_statistics=False)
  weights = tf.trainable_variables()
  gradients = [constant(1e-3 * tf.random.normal(w.shape)) for w in weights]

  @tf.custom_gradient
  def constant_gradients(*unused_weights):
    return tf.constant(0.0), lambda unused: gradients

  optimizer = step_lib._optimizer(0.01, tf.identity(step), config.precision)
  update = step_lib._update(constant_gradients(*weights), optimizer, step)
  with tf.control_dependencies([update]):
    parts['update'] = [update, step_lib._weights_l2().op]
  move = {'moving_mean': resnet._move_debiased,
          'moving_variance': resnet._move}
  parts['statistics'] = [
      move[name](variable, constant(tf.ones(variable.shape))).op
      for variable in tf.global_variables()
      for name in move if variable.op.name.endswith('/' + name)]
  return parts


def memory(config, unused_directory):
  """Trains some steps and does nothing else."""
  with tf.Graph().as_default():
    _, ops = _build_step(config, _data(config), input_pipeline,
                         config.num_preprocessing_threads)
    session = _session(config)
  for _ in range(_MEMORY_STEPS):
    session.run(ops)
  unit = 1 if sys.platform == 'darwin' else 1024  # Bytes there, KiB on Linux.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
  return {}, dict(peak_memory_mib=peak / 2 ** 20)
