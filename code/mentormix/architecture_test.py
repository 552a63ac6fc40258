"""The rules of the code's shape: who imports whom, who defines flags."""
import ast
import glob
import os
import subprocess
import sys

import pytest

CODE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LARGEST_MODULE, _LARGEST_FUNCTION = 350, 70  # Lines.

# Wing -> the wings that it may import. All of them may import the front door:
# the modules directly in mentormix/, except for those of `ABOVE`.
WINGS = {
    'data': set(),
    'students': set(),
    'mentornet': set(),
    'cluster': set(),
    'evaluation': {'data', 'students'},
    'training': {'data', 'students', 'mentornet', 'cluster'},
    'reports': {'data', 'evaluation'},
    'accelerator': {'data', 'students', 'mentornet', 'training'},
}
# Modules directly in mentormix/ that stand above some wings.
ABOVE = {
    'noise_level': {'data'},
    'presets': {'data'},
    'label_page': {'data'},
    'label_ranking': {'data', 'evaluation', 'mentornet', 'students'},
}
# Only the wings that train know the loss.
KNOW_THE_LOSS = {'training', 'accelerator'}
# These stop a wrong command line before TensorFlow is imported, or must run
# where there is no TensorFlow.
WITHOUT_TENSORFLOW = [
    'mentormix.' + name for name in (
        'command', 'config', 'detection', 'figures', 'file_kinds', 'files',
        'messages', 'noise_level', 'presets', 'progress', 'settings', 'signals',
        'accelerator.jax_benchmark',
        'accelerator.jax_files', 'accelerator.jax_runner', 'cluster.roles',
        'cluster.watch', 'data.cifar_archive', 'data.digits', 'data.download',
        'data.holdout', 'data.image_folders', 'data.image_set',
        'data.label_checks',
        'data.label_files', 'data.label_formats',
        'data.noise', 'data.noise_facts', 'data.plain_pickles',
        'data.photos.cnwl', 'data.photos.facts', 'data.photos.fetching',
        'data.photos.finding', 'data.photos.ilsvrc12', 'data.photos.lists',
        'data.photos.pictures', 'data.photos.preparation',
        'data.photos.rows', 'data.photos.settings', 'data.photos.webvision',
        'data.photos.wnids', 'data.photos.writing',
        'evaluation.results', 'mentornet.curriculum', 'mentornet.loss_traces',
        'mentornet.pictures')]


def _modules():
  """Dotted name -> path, of all modules that are not tests."""
  found = {}
  for path in glob.glob(os.path.join(CODE, '**', '*.py'), recursive=True):
    name = os.path.relpath(path, CODE)[:-3].replace(os.sep, '.')
    if not name.endswith(('_test', 'testing', 'conftest')):
      found[name.replace('.__init__', '')] = path
  return found


MODULES = _modules()
LIBRARY = sorted(name for name in MODULES if name.startswith('mentormix.'))
SCRIPTS = sorted(name for name in MODULES if '.' not in name
                 and name != 'mentormix')


def _tree(name):
  with open(MODULES[name], encoding='utf-8') as f:
    return ast.parse(f.read())


def _imports(tree):
  """Full names of what a module imports, inside functions too."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield alias.name
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        yield f'{node.module}.{alias.name}'


def _own_imports(name):
  """Dotted names of the modules of this project that a module imports."""
  found = set()
  for imported in _imports(_tree(name)):
    while imported and imported not in MODULES:
      imported = imported.rpartition('.')[0]
    if imported not in ('', 'mentormix'):
      found.add(imported)
  return found


def _wing(name):
  """The wing of a module, or None for one directly in mentormix/."""
  first = name.split('.')[1]
  return first if first in WINGS else None


def test_every_folder_is_a_wing():
  folders = {name.split('.')[1] for name in LIBRARY if name.count('.') > 1}
  assert folders | {'students'} == set(WINGS)


@pytest.mark.parametrize('name', LIBRARY)
def test_a_wing_imports_only_wings_below_it(name):
  wing = _wing(name)
  allowed = WINGS[wing] | {wing} if wing else ABOVE.get(
      name.split('.')[1], set())
  for imported in _own_imports(name):
    assert imported.startswith('mentormix.'), 'the library imports a script'
    target, module = _wing(imported), imported.split('.')[1]
    if target:
      assert target in allowed, imported
    else:
      assert module not in ABOVE or wing == 'reports' or not wing, imported
      assert (module != 'mentormix_loss' or not wing
              or wing in KNOW_THE_LOSS), imported


@pytest.mark.parametrize('name', LIBRARY)
def test_only_runtime_imports_tensorflow(name):
  if name != 'mentormix.runtime':
    for imported in _imports(_tree(name)):
      assert not imported.startswith(('tensorflow', 'tf_slim', 'tf_keras'))


def _at_the_top(name):
  """The modules of this project that importing a module imports."""
  tree = _tree(name)
  tree.body = [node for node in tree.body
               if isinstance(node, (ast.Import, ast.ImportFrom))]
  return {imported if imported in MODULES else imported.rpartition('.')[0]
          for imported in _imports(tree) if imported.startswith('mentormix.')}


@pytest.mark.parametrize(
    'name', [n for n in LIBRARY if n != 'mentormix.command'])
def test_only_scripts_have_flags(name):
  assert not any(i.startswith('absl') for i in _imports(_tree(name)))


@pytest.mark.parametrize('name', SCRIPTS)
def test_a_script_does_not_import_another(name):
  assert all(imported.startswith('mentormix.')
             for imported in _own_imports(name))


@pytest.mark.parametrize('name', SCRIPTS + WITHOUT_TENSORFLOW)
def test_modules_without_tensorflow(name):
  """Importing a script, as for --help, does not import TensorFlow."""
  seen, new = set(), {name}
  while new:
    seen |= new
    new = {n for m in new for n in _at_the_top(m)} - seen
  assert 'mentormix.runtime' not in seen


@pytest.mark.parametrize('name', sorted(MODULES))
def test_modules_and_functions_are_small(name):
  with open(MODULES[name], encoding='utf-8') as f:
    assert len(f.readlines()) <= _LARGEST_MODULE
  for node in ast.walk(_tree(name)):
    if isinstance(node, ast.FunctionDef):
      # Python 3.7 does not know where a function ends.
      last = max(getattr(n, 'lineno', 0) for n in ast.walk(node))
      assert last - node.lineno < _LARGEST_FUNCTION, node.name


def test_help_does_not_import_tensorflow():
  program = ('import sys; sys.path.insert(0, sys.argv[1]); '
             'import cifar_train_mentormix; assert "tensorflow" not in '
             'sys.modules')
  subprocess.run([sys.executable, '-c', program, CODE], check=True)
