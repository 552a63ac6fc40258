"""The rules of the code's shape: who imports whom, who defines flags."""
import ast
import glob
import os

import pytest

CODE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# In the order of the flow: a module imports only what stands above it.
FLOW = ['command', 'cluster', 'files', 'runtime',
        'operations', 'servers', 'noise', 'config', 'presets', 'results', 'summaries',
        'schedules', 'pickles', 'label_files', 'archives', 'image_folders',
        'datasets', 'sampling', 'augmentation', 'input_pipeline', 'checkpoints',
        'students.resnet', 'students', 'curriculum', 'loss_traces',
        'mentornet_weights', 'mentornet', 'mentornet_training',
        'mentormix_loss', 'training', 'step_export', 'published_graph',
        'evaluation', 'label_scores', 'runs', 'figures', 'mentornet_figures']
MAY_NOT_IMPORT = {
    'mentormix_loss': {'students', 'students.resnet', 'mentornet'},
    'evaluation': {'mentornet', 'mentormix_loss', 'training'},
}
WITHOUT_TENSORFLOW = ['command', 'cluster', 'files', 'records',
                      'noise', 'config', 'presets', 'results', 'pickles',
                      'label_files', 'archives', 'image_folders', 'curriculum',
                      'loss_traces', 'figures', 'mentornet_figures']


def _modules():
  paths = glob.glob(os.path.join(CODE, 'mentormix', '**', '*.py'),
                    recursive=True)
  for path in paths:
    name = os.path.relpath(path, os.path.join(CODE, 'mentormix'))[:-3]
    name = name.replace(os.sep, '.')
    if name.endswith('_test') or name in ('__init__', 'testing'):
      continue
    yield name.replace('.__init__', ''), path


MODULES = dict(_modules())


def _imports(path):
  """Full names of what a file imports, inside functions too."""
  with open(path) as f:
    tree = ast.parse(f.read())
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield alias.name
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        yield '%s.%s' % (node.module, alias.name)


def _own_imports(path):
  found = set()
  for name in _imports(path):
    if name.startswith('mentormix.'):
      rest = name[len('mentormix.'):]
      while rest and rest not in MODULES:
        rest = rest.rpartition('.')[0]
      if rest:
        found.add(rest)
  return found


def test_every_module_has_its_place():
  assert sorted(MODULES) == sorted(FLOW)


@pytest.mark.parametrize('name', FLOW)
def test_a_module_imports_only_from_above(name):
  below = set(FLOW[FLOW.index(name):])
  assert not _own_imports(MODULES[name]) & below
  assert not _own_imports(MODULES[name]) & MAY_NOT_IMPORT.get(name, set())


@pytest.mark.parametrize('name', FLOW)
def test_only_runtime_knows_tensorflow(name):
  if name == 'runtime':
    return
  for imported in _imports(MODULES[name]):
    assert not imported.startswith(('tensorflow', 'tf_slim', 'tf_keras'))


@pytest.mark.parametrize('name', WITHOUT_TENSORFLOW)
def test_modules_that_need_no_tensorflow(name):
  assert 'runtime' not in _own_imports(MODULES[name])


@pytest.mark.parametrize('name', [n for n in FLOW if n != 'command'])
def test_only_scripts_have_flags(name):
  assert not any(i.startswith('absl') for i in _imports(MODULES[name]))


def test_the_code_directory_is_no_package():
  assert not os.path.exists(os.path.join(CODE, '__init__.py'))


@pytest.mark.parametrize('path', glob.glob(os.path.join(CODE, '*.py')))
def test_scripts_start_tensorflow_late(path):
  """At module level a script imports nothing that loads TensorFlow."""
  if path.endswith(('_test.py', 'conftest.py')):
    return
  with open(path) as f:
    tree = ast.parse(f.read())
  tree.body = [n for n in tree.body
               if isinstance(n, (ast.Import, ast.ImportFrom))]
  names = {alias.name for node in tree.body for alias in node.names}
  assert not names & {'tensorflow', 'runtime', 'tf', 'slim', 'datasets',
                      'training', 'evaluation', 'mentornet', 'students'}
