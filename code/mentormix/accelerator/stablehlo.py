"""The training step as StableHLO, for accelerator runtimes without TensorFlow.

    export(config, directory)

`training.build_step` builds the graph, as for training. Whatever the step would
read or draw becomes an argument of the module, and so does its state:

    module: images, labels, draws, state -> loss, selected, state

Needs TensorFlow 2.x. B is the batch size; images are [B, H, W, 3].
"""
import os
import re
from typing import Dict, List, NamedTuple

import numpy as np

from mentormix import config as config_lib
from mentormix import files
from mentormix import runtime
from mentormix import students
from mentormix.accelerator import flops
from mentormix.data import augmentation
from mentormix.data import datasets
from mentormix.data import decoding
from mentormix.data import input_pipeline
from mentormix.data import noise_facts
from mentormix.data import splits
from mentormix.mentornet import loading as mentornet_loading
from mentormix.messages import log, RunError, UserError
from mentormix.runtime import tf
from mentormix.training import finetuning
from mentormix.training import step as step_lib

STEP, AUGMENT = 'step.stablehlo', 'augment.stablehlo'
DESCRIPTION, STATE, DATA = 'step.json', 'state.npz', 'data.npz'
FILES = {STEP, AUGMENT, DESCRIPTION, STATE, DATA, noise_facts.FACTS_FILE}

_ALIAS = re.compile(r'parameter_number = (\d+) : i64}, '
                    r'output_index = array<i64: (\d+)>')


class StepGraph(NamedTuple):
  """A graph whose inputs are all placeholders."""
  graph: tf.Graph
  placeholders: Dict[str, tf.Tensor]  # By name: inputs, then draws.
  draws: Dict[str, dict]  # Name -> its distribution.
  # Name -> tensor; fetching one runs the whole step.
  outputs: Dict[str, tf.Tensor]
  variables: List[tf.Variable]  # The state.


def export(config, directory):
  """Writes the step, its initial state, its data and their description.

  Args:
    config: a `config.TrainConfig`, validated.
    directory: an existing directory.

  Returns:
    The content of step.json.

  Raises:
    UserError: data, student and MentorNet do not fit together.
    RunError: XLA cannot compile the step.
  """
  dataset = datasets.get(config.dataset_name, config.data_dir)
  if dataset.photographs:
    raise UserError(f'--data_dir={config.data_dir} holds photographs of any '
                    'size; only sets of small images can be exported')
  students.check_size(config.studentnet, dataset.image_size, config.first_pass)
  network = _load_mentornet(config)
  source = finetuning.find(config)
  data = splits.find(dataset, 'train', config.data_dir, config.image_recipe,
                     config.max_bad_records)
  count = data.count
  if count < config.batch_size:
    raise UserError(f'--batch_size={config.batch_size}: --data_dir='
                    f'{config.data_dir} has only {count} examples')
  log(f'TensorFlow {runtime.VERSION}: exporting {config.method} of '
      f'{config.studentnet} on {config.data_dir}, {count} examples')

  step = build_step(config, dataset, count, network)
  with tf.Session(graph=step.graph, config=runtime.session_config()) as session:
    session.run([v.initializer for v in step.variables],
                _loaded(config, source, step.graph, data))
    state = session.run({v.op.name: v for v in step.variables})
  np.savez(os.path.join(directory, STATE), **state)
  augment = build_augmentation(config.batch_size, dataset.image_size,
                               config.augmentation)
  description = {}
  for name, graph, values in ((STEP, step, state), (AUGMENT, augment, {})):
    module, description[name.partition('.')[0]] = _lower(graph, values)
    with open(os.path.join(directory, name), 'wb') as f:
      f.write(module)
  description.update(
      settings=config._asdict(), num_examples=count,
      tensorflow=runtime.VERSION,
      flops_per_step=flops.count([x.op for x in step.outputs.values()]))
  files.write_json(os.path.join(directory, DESCRIPTION), description)
  records = decoding.decode(dataset, 'train', data.shards, count)
  # Uncompressed, because reading must be fast.
  np.savez(os.path.join(directory, DATA), images=records['image'],
           labels=records['label'], clean_labels=records['clean_label'])
  noise_facts.copy_facts(config.data_dir, directory)
  return description


def _loaded(config, source, graph, data):
  """What is fed to the initial values, or None."""
  with graph.as_default():
    return finetuning.initial(config, source, data)


def _load_mentornet(config):
  """The MentorNet, or None for a method without one."""
  if config.method not in config_lib.WEIGHTED:
    return None
  path = config.trained_mentornet_dir
  if path.startswith(mentornet_loading.V_STAR):
    raise UserError(
        f'--trained_mentornet_dir={path} is a Python function, which a module '
        'cannot hold; learn a MentorNet from it with code/train_mentornet.py')
  return mentornet_loading.load(path, config.loss_p_percentile)


class _Sampler:
  """Replaces a `sampling.Sampler`: every draw is one of the placeholders."""

  def __init__(self, **inputs):
    self.placeholders, self.draws = inputs, {}
    self._batch_size = inputs['images'].shape.as_list()[0]

  def _drawn(self, distribution, dtype=tf.float32, by_pair=False, **numbers):
    """A placeholder [B], or [B, B] with `by_pair`."""
    name = f'{distribution}_{len(self.draws)}'
    draw = tf.placeholder(dtype, [self._batch_size] * (2 if by_pair else 1))
    self.placeholders[name] = draw
    self.draws[name] = dict(numbers, distribution=distribution)
    return draw

  def uniform(self, shape, low=0.0, high=1.0):
    del shape  # One number for each example.
    return self._drawn('uniform', low=low, high=high)

  def integers(self, shape, low, high):
    """From `low` to `high`, both included."""
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
  # XLA has no kernel for the conditionals of version 1.
  tf.enable_control_flow_v2()
  try:
    with tf.Graph().as_default() as graph:
      tf.set_random_seed(config.seed)
      images = tf.placeholder(
          tf.float32, [size, dataset.image_size, dataset.image_size, 3])
      labels = tf.placeholder(tf.int64, [size])
      sampler = _Sampler(images=images, labels=labels)
      step = step_lib.build_step(
          config, dataset, num_examples,
          input_pipeline.Batch(images, labels, None, None), network, sampler)
      with tf.control_dependencies([step.train_op]):
        outputs = {'loss': tf.identity(step.loss),
                   'selected': tf.identity(step.selected)}
      return StepGraph(graph, sampler.placeholders, sampler.draws, outputs,
                       tf.global_variables())
  finally:
    tf.disable_control_flow_v2()


def build_augmentation(batch_size, image_size, name='published'):
  """The graph of the augmentation of a batch, as a `StepGraph`.

  `name` is one of `settings.AUGMENTATIONS`. The flips of the light one are an
  input, since they alternate by epoch.
  """
  with tf.Graph().as_default() as graph:
    images = tf.placeholder(
        tf.uint8, [batch_size, image_size, image_size, 3])
    if name == 'light':
      flip = tf.placeholder(tf.bool, [batch_size])
      sampler = _Sampler(images=images, flip=flip)
      augmented = augmentation.augment_lightly(
          images, augmentation.draw_light(batch_size, sampler, flip))
    else:
      sampler = _Sampler(images=images)
      augmented = augmentation.augment(
          images, augmentation.draw(batch_size, sampler))
    return StepGraph(graph, sampler.placeholders, sampler.draws,
                     {'images': augmented}, [])


def _lower(step_graph, state):
  """Turns a `StepGraph` and its state, name -> array, into a module.

  Returns:
    (module, rows): the bytes of a StableHLO module, and 'arguments' and
    'results' -> list of dicts that describe them, in order. State that does not
    change is an argument, but not a result.
  """
  placeholders, outputs = step_graph.placeholders, step_graph.outputs
  graph_def = tf.graph_util.extract_sub_graph(
      step_graph.graph.as_graph_def(), [x.op.name for x in outputs.values()])
  handles = {v.op.name: v.handle.name for v in step_graph.variables}
  with tf.compat.v2.__internal__.eager_context.eager_mode():
    variables = {name: tf.Variable(value) for name, value in state.items()}

    def step(*arguments):
      mapped = {x.name: y for x, y in zip(placeholders.values(), arguments)}
      graph = tf.get_default_graph()
      mapped.update({handles[name]: graph.capture(v.handle)
                     for name, v in variables.items()})
      return tf.import_graph_def(
          graph_def, mapped, [x.name for x in outputs.values()], name='')

    specs = [tf.TensorSpec(x.shape, x.dtype) for x in placeholders.values()]
    wrapped = tf.wrap_function(step, specs)
    # Without the variables of the graph, which `variables` have replaced.
    pruned = wrapped.prune(list(wrapped.inputs[:len(specs)]),
                           list(wrapped.outputs))
    compiled = tf.compat.v2.function(
        lambda *arguments: pruned(*arguments), jit_compile=True,
        autograph=False)
    captured = compiled.get_concrete_function(*specs).captured_inputs
    names = {id(v.handle): name for name, v in variables.items()}
    try:
      compiled_ir = compiled.experimental_get_compiler_ir(*specs)
      module = compiled_ir(stage='stablehlo_serialized')
      text = compiled_ir(stage='stablehlo')
    except (ValueError, tf.errors.OpError) as error:
      reason = str(error).partition('\n')[0]
      raise RunError(f'XLA cannot compile the step: {reason}')
  arguments = list(placeholders) + [names[id(handle)] for handle in captured]
  results = _results(list(outputs), arguments, text)
  return module, {
      'arguments': [_describe(name, 'input', placeholders, step_graph, state)
                    for name in arguments],
      'results': [_describe(name, 'output', outputs, step_graph, state)
                  for name in results]}


def _results(outputs, arguments, text):
  """Names of all results: the outputs, then the state that the step changes."""
  # XLA notes in the module which argument each further result updates.
  results = list(outputs)
  aliases = [(int(result), int(argument))
             for argument, result in _ALIAS.findall(text)]
  for result, argument in sorted(aliases):
    if result != len(results):
      raise RunError('the module has unknown results; TensorFlow '
                     f'{tf.__version__} does not work for this')
    results.append(arguments[argument])
  return results


def _describe(name, kind, tensors, step_graph, state):
  """An argument or a result as a dict for JSON."""
  if name not in tensors:
    return {'kind': 'state', 'name': name, 'shape': list(state[name].shape),
            'dtype': state[name].dtype.name}
  row = {'kind': 'draw' if name in step_graph.draws else kind}
  row.update(step_graph.draws.get(name, {}))
  return dict(row, name=name, shape=tensors[name].shape.as_list(),
              dtype=tensors[name].dtype.name)
