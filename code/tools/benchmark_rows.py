"""What benchmark.py times: the step, its parts and its input.

`inputs` and `steps` take a config and return (name -> `Row`, facts). B is the
batch size, K the number of classes.
"""
import functools
import resource
import types
from typing import Any, Callable, NamedTuple

import published_graph

from mentormix import mentormix_loss
from mentormix import precision
from mentormix import runtime
from mentormix import sampling
from mentormix import students
from mentormix.accelerator import flops
from mentormix.data import datasets
from mentormix.data import input_pipeline
from mentormix.data import photo_input
from mentormix.data import splits
from mentormix.mentornet import loading as mentornet_loading
from mentormix.mentornet import mentor as mentor_lib
from mentormix.runtime import tf
from mentormix.training import step as step_lib

_THREADS = (1, 2, 4)  # Of an input pipeline.
_PRODUCT = 2048  # Rows and columns of the matrix product.
_BEYOND_QUEUES = 6  # Batches; input pipelines are 4 ahead.
_MANY = 40  # Batches of a sample of the input: few of them were waiting.


class Row(NamedTuple):
  """What is timed."""
  run: Callable[[], Any]
  calls: int = 1  # How many calls make a sample.


def _data(config):
  """What a step is built on."""
  runtime.select_device(config.device_id)
  precision.check_precision(config.precision)
  split = splits.find(
      splits.dataset(config.dataset_name, config.data_dir,
                     students.get(config.studentnet), config.image_size),
      'train', config.data_dir, config.image_recipe)
  return types.SimpleNamespace(
      dataset=split.dataset, count=split.count, split=split,
      has_clean_labels=datasets.has_clean_labels(split.shards),
      network=mentornet_loading.load(config.trained_mentornet_dir,
                                     config.loss_p_percentile))


def _session(config):
  """A session on the default graph as training has it, with running queues."""
  session = tf.Session(config=runtime.session_config(
      config.precision, config.xla))
  with runtime.without_xla():
    session.run([tf.global_variables_initializer(),
                 tf.local_variables_initializer()])
  tf.train.start_queue_runners(session)
  return session


def inputs(config):
  """Both input pipelines by number of threads."""
  split = _data(config).split
  other = (('tf.data', _tf_data) if split.dataset.photographs else
           ('published', published_graph.train_batch))
  rows = {}
  for threads in _THREADS:
    for name, train_batch in (('ours', splits.Split.train_batch), other):
      with tf.Graph().as_default():
        batch = train_batch(split, config.batch_size, num_threads=threads)
        rows[f'{name}, threads: {threads}'] = _batches(_session(config), batch)
  return rows, dict(title=f'Input, batch {config.batch_size}', operations={})


def _tf_data(split, batch_size, num_threads):
  """What `photo_input.train_batch` does, by tf.data; (images, labels)."""
  kept = min(photo_input.SHUFFLED, split.count // 2)

  def example(record):
    encoded, label, _, _ = photo_input.parse(
        record[tf.newaxis], datasets.LABEL)
    return photo_input.train_image(
        encoded[0], split.dataset.image_size,
        photo_input.RECIPES[split.recipe]), label[0]

  paths = [shard.path for shard in split.shards]
  data = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths)).repeat()
  data = data.interleave(tf.data.TFRecordDataset, cycle_length=4,
                         num_parallel_calls=4)
  data = data.shuffle(kept).map(example, num_parallel_calls=num_threads)
  data = data.batch(batch_size, drop_remainder=True).prefetch(4)
  images, labels = tf.data.make_one_shot_iterator(data).get_next()
  return input_pipeline.Batch(images, labels, None, None)


def _batches(session, batch):
  ops = [batch.images.op, batch.labels.op]
  return Row(functools.partial(session.run, ops), _MANY)


def steps(config):
  """The step, whole and in parts, and the most that the machine can do."""
  data = _data(config)
  rows, counted = {'floor': None}, {}  # The floor is the first row.

  def add(name, session, ops, fed=None):
    """Adds a row with its operations counted."""
    counted[name] = flops.count(ops)
    rows[name] = Row(functools.partial(session.run, ops, fed))

  with tf.Graph().as_default():
    batch = data.split.train_batch(
        config.batch_size, num_threads=config.num_preprocessing_threads)
    ops = _build_step(config, data, batch)
    step_session = _session(config)
    for _ in range(_BEYOND_QUEUES):
      step_session.run(ops)
    # So far, this process has only trained. In KiB on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 10
    add('step', step_session, ops, dict(zip(batch, step_session.run(batch))))
    add('step + input', step_session, ops)

  with tf.Graph().as_default():
    ops = _floor(config, data)
    add('floor', _session(config), ops)

  ours = students.get(config.studentnet)
  if (config.precision == 'float32' and not config.xla
      and not data.dataset.photographs and 'depth' in ours.keywords):
    name = f'published_{config.studentnet}'
    students.STUDENTS[name] = ours._replace(network=functools.partial(
        published_graph.resnet, **ours.keywords))
    with tf.Graph().as_default():
      ops = _build_step(
          config._replace(studentnet=name), data,
          published_graph.train_batch(data.split, config.batch_size))
      add('published step + input', _session(config), ops)

  with tf.Graph().as_default():
    parts = _parts(config, data)
    session = _session(config)
    for name, ops in parts.items():
      rows[name] = Row(functools.partial(session.run, ops), 5)
  rows['input'] = _batches(step_session, batch)

  dtype = precision.arithmetic(config.precision)
  with tf.Graph().as_default():
    matrix = tf.Variable(tf.cast(
        tf.random.normal([_PRODUCT, _PRODUCT]), dtype))
    product = _keep(tf.matmul(matrix, matrix), matrix.shape)
    # Without XLA, which would take the product of its own library.
    add(f'matrix product, {dtype.name}',
        _session(config._replace(xla=False)), [product])
  xla = ' with XLA' if config.xla else ''
  return rows, dict(
      operations=counted, peak_memory_mib=peak,
      title=f'{config.studentnet}, batch {config.batch_size}, '
      f'{config.precision}{xla}: {peak:.0f} MiB in a process that only trains')


def _build_step(config, data, batch):
  """Ops of a whole step as in training."""
  step = step_lib.build_step(config, data.dataset, data.count, batch,
                             data.network)
  if data.has_clean_labels:
    step_lib.summarize_separation(
        step.v, tf.equal(batch.labels, batch.clean_labels))
  # The hooks of training fetch the sum of the squared weights in every step.
  return [step.train_op, step.weights_l2.op]


def _constant(x):
  """A constant that the graph optimizer does not know."""
  return tf.identity(tf.Variable(x, trainable=False))


def _random_batch(config, data):
  """Constant images [B, H, W, 3] and one-hot labels [B, K]."""
  size, num_classes = config.batch_size, data.dataset.num_classes
  images = tf.random.normal([size] + 2 * [data.dataset.image_size] + [3])
  labels = tf.one_hot(tf.range(size) % num_classes, num_classes)
  return _constant(images), _constant(labels)


def _floor(config, data):
  """Ops of two forward passes and one backward pass, and nothing else."""
  images, labels = _random_batch(config, data)
  losses = []
  for reuse in (False, True):
    with tf.variable_scope(tf.get_variable_scope(), reuse=reuse):
      logits = students.get(config.studentnet)(
          images, data.dataset.num_classes, True, update_statistics=False,
          dtype=precision.arithmetic(config.precision))
    losses.append(tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(
        labels=tf.stop_gradient(labels), logits=logits)))
    # Otherwise the optimizer would take the second pass for the first.
    images = images + 1e-6 * tf.stop_gradient(losses[0])
  weights = tf.trainable_variables()
  return [_keep(gradient, weight.shape) for gradient, weight in zip(
      tf.gradients(losses[1], weights), weights)]


def _keep(tensor, shape):
  """An op that moves `tensor` into a variable, which takes no copy.

  The graph optimizer or XLA would leave out what nobody uses.
  """
  kept = tf.Variable(tf.zeros(shape, tensor.dtype), trainable=False)
  return kept.assign(tensor).op


def _parts(config, data):
  """Ops of parts of the step, each on constants."""
  size = config.batch_size
  images, labels = _random_batch(config, data)
  parts = {}

  mentor = mentor_lib.Mentor(data.network, tf.constant(50),
                             config.loss_p_percentile)
  v = mentor(_constant(tf.random.uniform([size], maxval=5.0)))
  moved = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
  parts['mentor'] = [_keep(v, [size])] + [x.op for x in moved]

  v = _constant(tf.random.uniform([size]))
  step = tf.train.get_or_create_global_step()
  sampler = sampling.Sampler(config.seed, tf.identity(step))
  j = sampler.partners(v)
  lam = mentormix_loss.mixing_coefficients(
      sampler.beta(config.mixup_alpha, [size]), v)
  parts['mixing'] = [_keep(mentormix_loss.mix(x, j, lam), x.shape)
                     for x in (images, labels)]

  students.get(config.studentnet)(images, data.dataset.num_classes, True,
                                  update_statistics=False)
  weights = tf.trainable_variables()
  gradients = [_constant(1e-3 * tf.random.normal(w.shape)) for w in weights]
  optimizer = step_lib._optimizer(config, 0.01, tf.identity(step))
  update = optimizer.apply_gradients(list(zip(gradients, weights)), step)
  with tf.control_dependencies([update]):
    parts['update'] = [update, step_lib._weights_l2().op]
  return parts
