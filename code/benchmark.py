"""Times one whole training step next to the bare arithmetic in it.

    python code/benchmark.py --data_dir=data/cifar10/0.4

The floor is a bare graph of the same student: two forward passes and one
backward pass on a constant batch, without input, mentor, mixing, optimizer or
averages. The step is all of cifar_train_mentormix.py, input included. Both run
in turns in this process; medians, in wall and in CPU seconds (user + system).
"""
import json
import statistics
import time

from absl import flags

from mentormix import config as config_lib
from mentormix import command

FLAGS = flags.FLAGS

_WARM_UP = 6
_ROUNDS = 4  # Floor and step take turns so often.


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string('dataset_name', 'cifar10', 'The data set.')
  flags.DEFINE_string('data_dir', '', 'Directory of a noisy training set.')
  flags.DEFINE_string('studentnet', 'resnet32_thin', 'The student.')
  flags.DEFINE_string('trained_mentornet_dir',
                      'mentornet_models/mentornet_pd', 'The MentorNet.')
  flags.DEFINE_integer('batch_size', 128, 'Examples per step.', lower_bound=1)
  flags.DEFINE_integer('repeats', 20, 'Timed steps of each kind.',
                       lower_bound=1)
  flags.DEFINE_string('device_id', '0', 'GPUs, as in CUDA_VISIBLE_DEVICES.')
  flags.DEFINE_string('output', '', 'Also write the figures to this JSON file.')


def _step_config():
  return config_lib.TrainConfig(
      dataset_name=FLAGS.dataset_name, data_dir=FLAGS.data_dir,
      studentnet=FLAGS.studentnet, batch_size=FLAGS.batch_size,
      trained_mentornet_dir=FLAGS.trained_mentornet_dir,
      train_log_dir='unused', device_id=FLAGS.device_id)


def _floor(tf, student, num_classes, batch_size, image_size):
  """Ops of two forwards and one backward, and nothing else."""
  images = tf.random.normal([batch_size, image_size, image_size, 3])
  labels = tf.one_hot(tf.range(batch_size) % num_classes, num_classes)
  images, labels = tf.Variable(images), tf.Variable(labels)
  losses = []
  for reuse in (False, True):
    with tf.variable_scope(tf.get_variable_scope(), reuse=reuse):
      logits = student(images, num_classes, True, update_statistics=False)
    losses.append(tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(
        labels=tf.stop_gradient(labels), logits=logits)))
    # The second pass must not be taken for a copy of the first.
    images = images + 1e-6 * tf.stop_gradient(losses[0])
  variables = [v for v in tf.trainable_variables() if 'ResNet' in v.op.name]
  gradients = tf.gradients(losses[1], variables)
  # By their ops: what is only grouped, the graph optimizer prunes away.
  return [losses[0].op] + [g.op for g in gradients]


def main():
  """Flags -> figures."""
  config = _step_config()
  config_lib.validate(config)
  from mentormix import datasets
  from mentormix import input_pipeline
  from mentormix import mentornet
  from mentormix import runtime
  from mentormix import students
  from mentormix import training
  tf = runtime.tf
  runtime.select_device(config.device_id)
  dataset = datasets.get(config.dataset_name, config.data_dir)
  student = students.get(config.studentnet)
  files = datasets.find_files(dataset, 'train', config.data_dir)
  count = datasets.count_records(dataset, 'train', files)
  network = mentornet.load(config.trained_mentornet_dir,
                           config.loss_p_percentile)

  with tf.Graph().as_default() as floor_graph:
    floor_op = _floor(tf, student, dataset.num_classes, config.batch_size,
                      dataset.image_size)
    floor_init = tf.global_variables_initializer()
  with tf.Graph().as_default() as step_graph:
    batch = input_pipeline.train_batch(
        dataset, files, count, config.batch_size, config.num_readers,
        config.num_preprocessing_threads)
    step_op = training.build_step(
        config, dataset, count, batch, network).train_op
    step_init = tf.group(tf.global_variables_initializer(),
                         tf.local_variables_initializer())

  floor_session = tf.Session(graph=floor_graph, config=runtime.session_config())
  step_session = tf.Session(graph=step_graph, config=runtime.session_config())
  floor_session.run(floor_init)
  step_session.run(step_init)
  coordinator = tf.train.Coordinator()
  with step_graph.as_default():
    threads = tf.train.start_queue_runners(step_session, coordinator)

  seconds = {'floor': [], 'step': []}
  per_round = -(-FLAGS.repeats // _ROUNDS)
  for _ in range(_ROUNDS):
    for kind, session, op in (('floor', floor_session, floor_op),
                              ('step', step_session, step_op)):
      for repeat in range(_WARM_UP + per_round):
        wall, cpu = time.time(), time.process_time()
        session.run(op)
        if repeat >= _WARM_UP:
          seconds[kind].append((time.time() - wall, time.process_time() - cpu))
  coordinator.request_stop()
  step_session.close()
  coordinator.join(threads, ignore_live_threads=True)

  figures = {'tensorflow': runtime.VERSION, 'studentnet': config.studentnet,
             'batch_size': config.batch_size, 'repeats': len(seconds['step'])}
  for kind, pairs in seconds.items():
    walls, cpus = zip(*pairs)
    figures[kind + '_wall'] = statistics.median(walls)
    figures[kind + '_cpu'] = statistics.median(cpus)
  for clock in ('wall', 'cpu'):
    figures['ratio_' + clock] = (figures['step_' + clock] /
                                 figures['floor_' + clock])
  print('TensorFlow {tensorflow}, {studentnet}, batch {batch_size}, median of '
        '{repeats}'.format(**figures))
  print('         wall s   CPU s')
  for kind in ('floor', 'step', 'ratio'):
    print('%-6s %8.3f %7.3f' % (kind, figures[kind + '_wall'],
                                figures[kind + '_cpu']))
  if FLAGS.output:
    with open(FLAGS.output, 'w') as f:
      json.dump(figures, f, indent=2, sort_keys=True)
      f.write('\n')


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


if __name__ == '__main__':
  cli()
