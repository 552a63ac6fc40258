"""The training step as StableHLO, for accelerator runtimes without TensorFlow.

    graph = build_step(config, dataset, num_examples, network)
    module, arguments, results = lower(graph, initial_state(graph))

`training.build_step` builds the graph, as for training; what it would read or
draw becomes an argument of the module, and so does its state:

    module: images, labels, draws, state -> loss, selected, state

Needs TensorFlow 2.x. B is the batch size; images are [B, H, W, 3].
"""
import collections
import re

from mentormix import augmentation
from mentormix import input_pipeline
from mentormix import runtime
from mentormix import training
from mentormix.command import RunError
from mentormix.runtime import tf

_ALIAS = re.compile(r'parameter_number = (\d+) : i64}, '
                    r'output_index = array<i64: (\d+)>')


class StepGraph(collections.namedtuple(
    'StepGraph', 'graph inputs draws outputs variables evaluated')):
  """A graph whose every input is a placeholder.

  Attributes:
    graph: the tf.Graph.
    inputs: name -> placeholder, in order.
    draws: name -> (placeholder, how it is distributed), in order.
    outputs: name -> tensor, in order; to fetch one is to run the whole step.
    variables: the state; tf.Variables.
    evaluated: the names of the variables that evaluation reads.
  """
  __slots__ = ()


class _Sampler(object):
  """Stands in for a `sampling.Sampler`: every draw is a placeholder.

  Attributes:
    draws: name -> (placeholder, how it is distributed), in order.
  """

  def __init__(self, batch_size):
    self.draws = collections.OrderedDict()
    self._batch_size = batch_size

  def _drawn(self, distribution, dtype=tf.float32, by_pair=False, **numbers):
    """A placeholder [B]; or [B, B]."""
    name = '%s_%d' % (distribution, len(self.draws))
    draw = tf.placeholder(dtype, [self._batch_size] * (2 if by_pair else 1))
    self.draws[name] = draw, dict(numbers, distribution=distribution)
    return draw

  def uniform(self, shape, low=0.0, high=1.0):
    del shape  # One for each example.
    return self._drawn('uniform', low=low, high=high)

  def integers(self, shape, low, high):
    """Both `low` and `high` may come."""
    del shape
    return self._drawn('integers', tf.int32, low=low, high=high)

  def partners(self, v):
    """Categorical(softmax(v)) by the Gumbel-max trick."""
    logits = tf.where(tf.math.is_nan(v), tf.zeros_like(v), v)
    return tf.argmax(
        tf.nn.log_softmax(logits) + self._drawn('gumbel', by_pair=True),
        axis=1, output_type=tf.int32)

  def beta(self, alpha, shape):
    del shape
    return self._drawn('beta', alpha=alpha)


def build_step(config, dataset, num_examples, network=None):
  """The graph of one training step, as a `StepGraph`.

  Args:
    config: a `config.TrainConfig`.
    dataset: a `datasets.Dataset`.
    num_examples: size of an epoch.
    network: the MentorNet, for the methods that need one.
  """
  size = config.batch_size
  sampler = _Sampler(size)
  # XLA has no kernel for the conditionals of version 1.
  tf.enable_control_flow_v2()
  try:
    with tf.Graph().as_default() as graph:
      tf.set_random_seed(config.seed)
      images = tf.placeholder(
          tf.float32, [size, dataset.image_size, dataset.image_size, 3])
      labels = tf.placeholder(tf.int64, [size])
      step = training.build_step(
          config, dataset, num_examples,
          input_pipeline.Batch(images, labels, None, None), network, sampler)
      with tf.control_dependencies([step.train_op]):
        outputs = [('loss', tf.identity(step.loss)),
                   ('selected', tf.identity(step.selected))]
      average = tf.train.ExponentialMovingAverage(0.0).name
      trainable = tf.trainable_variables()
      evaluated = ['%s/%s' % (v.op.name, average) if v in trainable
                   else v.op.name for v in tf.model_variables()]
      return StepGraph(
          graph, collections.OrderedDict([('images', images),
                                          ('labels', labels)]),
          sampler.draws, collections.OrderedDict(outputs),
          tf.global_variables(), frozenset(evaluated))
  finally:
    tf.disable_control_flow_v2()


def build_augmentation(batch_size, image_size):
  """The graph of the augmentation of a batch, as a `StepGraph`."""
  sampler = _Sampler(batch_size)
  with tf.Graph().as_default() as graph:
    images = tf.placeholder(
        tf.uint8, [batch_size, image_size, image_size, 3])
    augmented = augmentation.augment(
        images, augmentation.draw(batch_size, sampler))
    return StepGraph(graph, {'images': images}, sampler.draws,
                     {'images': augmented}, [], frozenset())


def initial_state(step_graph):
  """What the initialisers give, name -> array in the order of the graph."""
  variables = step_graph.variables
  with tf.Session(graph=step_graph.graph,
                  config=runtime.session_config()) as session, \
      step_graph.graph.as_default():
    session.run(tf.variables_initializer(variables))
    return collections.OrderedDict(
        zip([v.op.name for v in variables], session.run(variables)))


def lower(step_graph, state):
  """Turns a graph into a module.

  Args:
    step_graph: a `StepGraph`.
    state: name -> array for each of its variables; the values do not matter.

  Returns:
    (module, arguments, results): the bytes of a StableHLO module, and the names
    of what it takes and gives, in order. State that does not change is taken,
    but not given.

  Raises:
    RunError: XLA cannot compile the graph.
  """
  placeholders = _placeholders(step_graph)
  graph_def = tf.graph_util.extract_sub_graph(
      step_graph.graph.as_graph_def(), _fetched(step_graph))
  handles = {v.op.name: v.handle.name for v in step_graph.variables}
  eager = tf.compat.v2.__internal__.eager_context.eager_mode
  with eager():
    variables = {name: tf.Variable(value) for name, value in state.items()}

    def step(*arguments):
      mapped = {x.name: y for x, y in zip(placeholders.values(), arguments)}
      graph = tf.get_default_graph()
      mapped.update({handles[name]: graph.capture(v.handle)
                     for name, v in variables.items()})
      return tf.import_graph_def(
          graph_def, mapped, [x.name for x in step_graph.outputs.values()],
          name='')

    specs = [tf.TensorSpec(x.shape, x.dtype) for x in placeholders.values()]
    wrapped = tf.wrap_function(step, specs)
    # Without the variables of the graph, whose place others have taken.
    pruned = wrapped.prune(list(wrapped.inputs[:len(specs)]),
                           list(wrapped.outputs))
    compiled = tf.compat.v2.function(
        lambda *arguments: pruned(*arguments), jit_compile=True,
        autograph=False)
    captured = compiled.get_concrete_function(*specs).captured_inputs
    names = {id(v.handle): name for name, v in variables.items()}
    try:
      ir = compiled.experimental_get_compiler_ir(*specs)
      module, text = ir(stage='stablehlo_serialized'), ir(stage='stablehlo')
    except (ValueError, tf.errors.OpError) as error:
      raise RunError('the step cannot be turned into a module: %s'
                     % str(error).partition('\n')[0])
  arguments = list(placeholders) + [names[id(handle)] for handle in captured]
  results = list(step_graph.outputs)
  # XLA says which argument each further result is the new value of.
  for argument, result in sorted(
      ((int(a), int(r)) for a, r in _ALIAS.findall(text)), key=lambda x: x[1]):
    if result != len(results):
      raise RunError('the module has results of which nothing is known; this '
                     'TensorFlow %s is not one that works' % tf.__version__)
    results.append(arguments[argument])
  return module, arguments, results


def describe(step_graph, state, arguments, results):
  """What `lower` gave, for those who call the module: a dict for JSON."""
  distributions = {name: how for name, (_, how) in step_graph.draws.items()}
  placeholders = _placeholders(step_graph)

  def row(name, outside):
    if name in outside:
      kind, value = outside[name]
      shape, dtype = value.shape.as_list(), value.dtype.name
    else:
      kind = {'kind': 'state', 'evaluated': name in step_graph.evaluated}
      shape, dtype = list(state[name].shape), state[name].dtype.name
    return dict(kind, name=name, shape=shape, dtype=dtype)

  taken = {name: (dict(distributions[name], kind='draw')
                  if name in distributions else {'kind': 'input'}, value)
           for name, value in placeholders.items()}
  given = {name: ({'kind': 'output'}, value)
           for name, value in step_graph.outputs.items()}
  return {'arguments': [row(name, taken) for name in arguments],
          'results': [row(name, given) for name in results]}


def _placeholders(step_graph):
  """Name -> placeholder of all inputs and draws, in order."""
  placeholders = collections.OrderedDict(step_graph.inputs)
  placeholders.update(
      (name, draw) for name, (draw, _) in step_graph.draws.items())
  return placeholders


def _fetched(step_graph):
  return [x.op.name for x in step_graph.outputs.values()]
