"""Tests of the choice that setup_env.sh makes, with Pythons that are faked.

A fake is a small shell script that answers as a Python would; nothing is
installed from anywhere.
"""
import os
import shutil
import subprocess
import time

import pytest

SCRIPTS = os.path.dirname(os.path.abspath(__file__))
# All that the scripts call; the machine's own Pythons stay out of sight.
TOOLS = ('bash', 'cat', 'dirname', 'find', 'flock', 'getconf', 'grep', 'ls',
         'mkdir', 'mv', 'nproc', 'rm', 'sed', 'sleep', 'tail', 'uname')

# Answers the probe; makes environments that hold a copy of itself; counts pip.
FAKE_PYTHON = r'''#!{bash}
case "$1 $2" in
  -c*) echo "{version}|{path}|{fault}" ;;
  "-m venv") mkdir -p "$3/bin"; echo >"$3/pyvenv.cfg"
             cat {path} >"$3/bin/python"; /bin/chmod +x "$3/bin/python" ;;
  "-m pip") echo "$*" >>{log}; sleep {pip_seconds}; exit {pip_exit} ;;
  "-m pytest") echo "$* other=$MENTORMIX_OTHER_PYTHON" >>{log} ;;
esac
'''

LINUX_X86 = os.uname()[0] == 'Linux' and os.uname()[4] == 'x86_64'


class Machine(object):
  """A made-up machine: its PATH, its home folder, a copy of the project."""

  def __init__(self, root):
    self.root = str(root)
    self.bin = self.folder('bin')
    self.home = self.folder('home')
    self.log = os.path.join(self.root, 'log')
    self.project = self.folder('project')
    top = os.path.dirname(SCRIPTS)
    for name in ('requirements.txt', 'scripts/setup_env.sh', 'scripts/test.sh',
                 'scripts/requirements'):
      source = os.path.join(top, name)
      target = os.path.join(self.project, name)
      os.makedirs(os.path.dirname(target), exist_ok=True)
      copy = shutil.copytree if os.path.isdir(source) else shutil.copy
      copy(source, target)
    for tool in TOOLS:
      path = shutil.which(tool)
      if path:
        os.symlink(path, os.path.join(self.bin, tool))

  def folder(self, *names):
    """Makes and returns a folder."""
    path = os.path.join(self.root, *names)
    os.makedirs(path, exist_ok=True)
    return path

  def script(self, folder, name, text):
    """Writes a program."""
    path = os.path.join(folder, name)
    with open(path, 'w') as f:
      f.write(text)
    os.chmod(path, 0o755)
    return path

  def python(self, version, name=None, folder=None, fault='', pip_exit=0,
             pip_seconds=0):
    """Puts a fake Python into a folder, by default one on the PATH."""
    name = name or 'python' + version.rpartition('.')[0]
    folder = folder or self.bin
    return self.script(folder, name, FAKE_PYTHON.format(
        bash=shutil.which('bash'), version=version, fault=fault, log=self.log,
        path=os.path.join(folder, name), pip_exit=pip_exit,
        pip_seconds=pip_seconds))

  def gpu(self, exit_code=0, capability=''):
    """Puts an nvidia-smi on the PATH."""
    text = '#!%s\n[[ -z $* ]] || echo "%s"\nexit %d\n' % (
        shutil.which('bash'), capability, exit_code)
    self.script(self.bin, 'nvidia-smi', text)

  def start(self, *args, **options):
    """Starts setup_env.sh, or another script, away from the project."""
    environ = {'PATH': self.bin, 'HOME': self.home, 'PIP_NO_INDEX': '1',
               'SETUP_ENV_OPT': os.path.join(self.root, 'opt')}
    environ.update(options.get('environ', {}))
    script = os.path.join(self.project, 'scripts',
                          options.get('script', 'setup_env.sh'))
    return subprocess.Popen(
        [shutil.which('bash'), script] + list(args), cwd=self.home, env=environ,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True)

  def run(self, *args, **options):
    """Returns the exit code, stdout and stderr of `start`."""
    process = self.start(*args, **options)
    stdout, stderr = process.communicate()
    return process.returncode, stdout, stderr

  def choice(self, *args, **options):
    """Returns the line about the choice that was made."""
    code, stdout, stderr = self.run('--dry_run', *args, **options)
    assert code == 0, stderr
    assert stdout.endswith('/bin/python\n') and stdout.count('\n') == 1
    assert stderr.count('\n') == 1
    return stderr

  def logged(self):
    """Returns what the fakes were called with, pip's own update left out."""
    if not os.path.exists(self.log):
      return []
    with open(self.log) as f:
      return [line.strip() for line in f if 'pip>=' not in line]


@pytest.fixture
def machine(tmp_path):
  return Machine(tmp_path)


def test_python37_gives_the_reference_runtime_for_the_cpu(machine):
  machine.python('3.7.16')
  machine.python('3.12.1')
  line = machine.choice()
  assert 'TensorFlow 1.15.2 (intel-tensorflow), Python 3.7.16' in line
  assert 'no GPU answers nvidia-smi' in line
  assert line.endswith('-> .venv-tf1\n')


@pytest.mark.parametrize('name', ['python3', 'python'])
def test_python37_under_another_name(machine, name):
  machine.python('3.7.5', name=name)
  assert 'Python 3.7.5' in machine.choice()


def test_gpu_gives_the_gpu_builds(machine):
  machine.python('3.7.16')
  machine.python('3.11.7')
  machine.gpu()
  assert 'TensorFlow 1.15.0 (tensorflow-gpu)' in machine.choice()
  assert ('TensorFlow 2.21.0 (tensorflow[and-cuda])'
          in machine.choice('--runtime=tf2'))


def test_gpu_driver_that_fails_gives_the_cpu_build(machine):
  machine.python('3.7.16')
  machine.gpu(exit_code=9)
  assert '(intel-tensorflow)' in machine.choice()


@pytest.mark.parametrize('capability, newer',
                         [('7.5', False), ('8.0', True), ('12.0', True)])
def test_gpu_that_is_too_new_for_1_15_is_said(machine, capability, newer):
  machine.python('3.7.16')
  machine.gpu(capability=capability)
  assert ('--runtime=tf2' in machine.choice()) == newer


def test_shim_that_does_not_run_is_passed_over(machine):
  machine.script(machine.bin, 'python3.7', '#!%s\nexit 127\n'
                 % shutil.which('bash'))
  machine.python('3.11.7')
  line = machine.choice()
  assert 'TensorFlow 2.21.0' in line and '.venv-tf2' in line
  assert 'python3.7 does not run (exit 127)' in line
  machine.python('3.7.16', folder=machine.folder(
      'home', '.pyenv', 'versions', '3.7.16', 'bin'))
  assert 'Python 3.7.16' in machine.choice()


def test_python_that_cannot_make_environments_is_passed_over(machine):
  machine.python('3.7.3', fault='cannot make virtual environments')
  machine.python('3.9.2', fault='cannot make virtual environments')
  machine.python('3.10.4')
  line = machine.choice()
  assert 'Python 3.10.4' in line
  assert 'python3.7 cannot make virtual environments' in line


@pytest.mark.parametrize('folders', [
    ('home', '.pyenv', 'versions', '3.7.16'),
    ('home', '.pyenv', 'versions', 'miniconda3-4.7', 'envs', 'old'),
    ('home', 'miniconda3', 'envs', 'tf 1'),
    ('home', 'miniforge3'),
    ('home', 'micromamba', 'envs', 'tf1'),
    ('home', '.local', 'share', 'uv', 'python', 'cpython-3.7.9-linux-x86_64'),
    ('opt', 'conda', 'envs', 'tf1'),
])
def test_python37_off_the_path_is_found(machine, folders):
  machine.python('3.11.7')
  machine.python('3.7.16', folder=machine.folder(*(folders + ('bin',))))
  assert 'Python 3.7.16' in machine.choice()


@pytest.mark.parametrize('variable, folders', [
    ('PYENV_ROOT', ('versions', '3.7.16')),
    ('CONDA_PREFIX', ()),
    ('MAMBA_ROOT_PREFIX', ('envs', 'tf1')),
    ('UV_PYTHON_INSTALL_DIR', ('cpython-3.7.9',)),
])
def test_python37_where_a_variable_points(machine, variable, folders):
  machine.python('3.7.16', folder=machine.folder(
      'elsewhere', *(folders + ('bin',))))
  where = os.path.join(machine.root, 'elsewhere')
  assert 'Python 3.7.16' in machine.choice(environ={variable: where})


def test_python37_in_the_list_that_conda_keeps(machine):
  prefix = machine.folder('far away', 'env')
  machine.python('3.7.16', folder=machine.folder('far away', 'env', 'bin'))
  with open(os.path.join(machine.folder('home', '.conda'),
                         'environments.txt'), 'w') as f:
    f.write(prefix + '\n')
  assert 'Python 3.7.16' in machine.choice()


def test_newest_python_for_tensorflow_2(machine):
  for version in ('3.8.18', '3.9.18', '3.12.1', '3.10.13'):
    machine.python(version)
  machine.python('3.14.0', name='python3')
  assert 'Python 3.12.1' in machine.choice()


def test_python39_gives_the_last_tensorflow_for_it(machine):
  machine.python('3.9.18')
  line = machine.choice()
  assert 'TensorFlow 2.20.0' in line
  if LINUX_X86:
    assert '(tensorflow-cpu)' in line


@pytest.mark.parametrize('args', [(), ('--runtime=tf1',), ('--runtime=tf2',)])
def test_no_python_is_one_line(machine, args):
  machine.python('3.8.18')
  machine.python('3.6.15', name='python3')
  code, stdout, stderr = machine.run(*args)
  assert (code, stdout, stderr.count('\n')) == (3, '', 1)
  assert stderr.startswith('setup_env: error: ')


@pytest.mark.parametrize('arg, named', [
    ('--runtime=tf3', 'tf3'), ('--runtme=tf1', '--runtme'), ('tf1', 'tf1'),
    ('--venv=', '--venv')])
def test_bad_command_line_is_one_line(machine, arg, named):
  machine.python('3.7.16')
  code, stdout, stderr = machine.run(arg)
  assert (code, stdout, stderr.count('\n')) == (2, '', 1)
  assert named in stderr


def test_help(machine):
  code, stdout, stderr = machine.run('--help')
  assert (code, stderr) == (0, '')
  assert '--runtime=auto|tf1|tf2' in stdout


@pytest.mark.parametrize('is_folder', [False, True])
def test_folder_with_something_else_is_left_alone(machine, is_folder):
  machine.python('3.7.16')
  taken = os.path.join(machine.root, 'taken')
  path = os.path.join(machine.folder('taken'), 'mine') if is_folder else taken
  with open(path, 'w') as f:
    f.write('mine')
  code, stdout, stderr = machine.run('--venv=' + taken)
  assert (code, stdout, stderr.count('\n')) == (2, '', 1)
  with open(path) as f:
    assert f.read() == 'mine'
  assert not is_folder or os.listdir(taken) == ['mine']


def test_second_run_installs_nothing_and_changed_pins_do(machine):
  machine.python('3.7.16')
  code, stdout, _ = machine.run('--venv=my env')
  python = os.path.join(machine.home, 'my env', 'bin', 'python')
  assert (code, stdout) == (0, python + '\n')
  assert machine.logged() == [
      '-m pip install -r scripts/requirements/tf1-cpu.txt'
      ' -r scripts/requirements/test.txt']
  assert machine.run('--venv=my env')[:2] == (0, python + '\n')
  assert len(machine.logged()) == 1
  with open(os.path.join(machine.project, 'scripts', 'requirements',
                         'tf1-cpu.txt'), 'a') as f:
    f.write('more==1.0\n')
  assert machine.run('--venv=my env')[0] == 0
  assert len(machine.logged()) == 2


def test_failed_install_shows_the_log_and_starts_anew(machine):
  machine.python('3.7.16', pip_exit=1)
  code, stdout, stderr = machine.run()
  assert (code, stdout) == (1, '')
  assert 'setup.log' in stderr.splitlines()[-1]
  machine.python('3.7.16')
  assert machine.run()[0] == 0
  assert len(machine.logged()) == 1  # The failed one was pip's own update.


def test_killed_install_is_not_taken_for_finished(machine):
  machine.python('3.7.16', pip_seconds=1)
  process = machine.start()
  while not os.path.exists(machine.log) and process.poll() is None:
    time.sleep(0.02)
  process.kill()
  process.communicate()
  os.remove(machine.log)
  machine.python('3.7.16')
  assert machine.run()[0] == 0
  assert len(machine.logged()) == 1


@pytest.mark.skipif(not shutil.which('flock'), reason='there is no flock')
def test_two_at_once_install_once(machine):
  machine.python('3.7.16', pip_seconds=0.3)
  processes = [machine.start() for _ in range(2)]
  outputs = [process.communicate() for process in processes]
  assert [process.returncode for process in processes] == [0, 0]
  assert outputs[0][0] == outputs[1][0]
  assert len(machine.logged()) == 1


def test_environment_of_somebody_else_keeps_its_python(machine):
  machine.python('3.7.16')
  mine = machine.folder('mine', 'bin')
  machine.python('3.11.7', name='python', folder=mine)
  for name in ('pyvenv.cfg', 'precious'):
    with open(os.path.join(machine.root, 'mine', name), 'w') as f:
      f.write('mine')
  venv = '--venv=' + os.path.dirname(mine)
  assert machine.run('--runtime=tf1', venv)[0] == 3
  assert machine.run(venv)[0] == 0
  assert 'tf2-cpu.txt' in machine.logged()[0]
  assert os.path.exists(os.path.join(machine.root, 'mine', 'precious'))


def test_tests_run_on_every_runtime(machine):
  machine.python('3.7.16')
  machine.python('3.12.1')
  code, _, stderr = machine.run('-k', 'a or b', script='test.sh')
  assert code == 0, stderr
  pythons = [os.path.join(machine.project, '.venv-tf%d' % i, 'bin', 'python')
             for i in (1, 2)]
  runs = [line for line in machine.logged() if 'pytest' in line]
  assert [run.partition('other=')[2] for run in runs] == pythons[::-1]
  assert all('-k a or b' in run for run in runs)
  assert stderr.splitlines()[-1].startswith('test: tf1 passed in ')


def test_tests_run_on_the_only_runtime(machine):
  machine.python('3.12.1')
  code, _, stderr = machine.run(script='test.sh')
  assert code == 0, stderr
  assert 'one runtime only: tf2' in stderr
  assert len([line for line in machine.logged() if 'pytest' in line]) == 1


def test_tests_without_a_python_are_one_line(machine):
  code, _, stderr = machine.run(script='test.sh')
  assert (code, stderr.count('\n')) == (3, 1)


def test_tests_with_a_bad_runtime_are_one_line(machine):
  code, _, stderr = machine.run('--runtime=tf3', script='test.sh')
  assert (code, stderr.count('\n')) == (2, 1)
