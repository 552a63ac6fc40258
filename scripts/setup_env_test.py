"""setup_env.sh and test.sh with stand-ins for Python; nothing is installed."""
import os
import shutil
import signal
import subprocess
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# All that the scripts call; the machine's own Pythons stay out of sight.
TOOLS = ('bash', 'cat', 'cmp', 'dirname', 'find', 'flock', 'getconf', 'grep',
         'ls', 'mkdir', 'mv', 'nproc', 'rm', 'sed', 'sleep', 'tail')
# Answers the probe; makes environments that hold a copy of itself; logs pip.
PYTHON = r'''#!{bash}
case "$1 $2" in
  -c*) echo "{version}|{path}|{reason}" ;;
  "-m venv") mkdir -p "$3/bin"; echo >"$3/pyvenv.cfg"
             cat {path} >"$3/bin/python"; /bin/chmod +x "$3/bin/python" ;;
  "-m pip") [[ $4 == pip* ]] || echo "$*" >>{log}; sleep {secs}
            echo "pip says no"; exit {pip_exit} ;;
  "-m pytest") echo "$* other=$MENTORMIX_OTHER_PYTHON" >>{log}
               echo tested; sleep {pytest_secs}; exit {pytest_exit} ;;
esac
'''


class Machine:
  """A machine with a PATH, a home folder and a copy of the scripts."""

  def __init__(self, root):
    self.root, self.log = str(root), os.path.join(str(root), 'log')
    self.bin, self.home = self.path('bin'), self.path('home')
    for name in self.bin, self.home, self.path('project'):
      os.makedirs(name)
    shutil.copy(os.path.join(ROOT, 'requirements.txt'), self.path('project'))
    shutil.copytree(os.path.join(ROOT, 'scripts'), self.path('project/scripts'),
                    ignore=shutil.ignore_patterns('*.py', '__pycache__'))
    for tool in filter(shutil.which, TOOLS):
      os.symlink(shutil.which(tool), os.path.join(self.bin, tool))

  def path(self, name):
    return os.path.join(self.root, name)

  def script(self, folder, name, text):
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    with open(path, 'w') as f:
      f.write(text.replace('{bash}', shutil.which('bash')))
    os.chmod(path, 0o755)
    return path

  def python(self, version, folder=None, name=None, reason='', pip_exit=0,
             secs=0, pytest_exit=0, pytest_secs=0):
    """Installs a stand-in for a Python, on the PATH by default."""
    folder = folder or self.bin
    name = name or 'python' + version.rpartition('.')[0]
    return self.script(folder, name, PYTHON.format(
        bash='{bash}', version=version, path=os.path.join(folder, name),
        reason=reason, log=self.log, pip_exit=pip_exit,
        secs=secs, pytest_exit=pytest_exit, pytest_secs=pytest_secs))

  def start(self, *args, script='setup_env.sh', **environ):
    return subprocess.Popen(
        [shutil.which('bash'), self.path('project/scripts/' + script), *args],
        env=dict({'PATH': self.bin, 'HOME': self.home}, **environ),
        cwd=self.home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True)

  def run(self, *args, **options):
    """Returns exit code, stdout and stderr."""
    process = self.start(*args, **options)
    stdout, stderr = process.communicate()
    return process.returncode, stdout, stderr

  def choice(self, *args, **options):
    """Returns the one line about the choice that was made."""
    code, stdout, stderr = self.run('--dry_run', *args, **options)
    assert (code, stdout.count('\n'), stderr.count('\n')) == (0, 1, 1), stderr
    assert stdout.endswith('/bin/python\n')
    return stderr

  def logged(self):
    with open(self.log) as f:
      return f.read().splitlines()


@pytest.fixture
def machine(tmp_path):
  return Machine(tmp_path)


def test_python37_gives_the_reference_runtime(machine):
  machine.python('3.12.1')
  machine.python('3.7.5', name='python3')
  line = machine.choice()
  assert 'Python 3.7.5' in line and '/tf1-cpu.txt (no GPU' in line
  assert line.endswith('-> .venv-tf1\n')


def test_gpu_gives_the_gpu_builds(machine):
  machine.python('3.7.16')
  machine.python('3.11.7')

  def answer(capability, code):
    machine.script(machine.bin, 'nvidia-smi', '#!{bash}\n[[ -z $* ]] || '
                   f'echo {capability}\nexit {code}\n')

  answer('7.5', 0)
  line = machine.choice()
  assert ' requirements.txt (a GPU' in line and 'too old' not in line
  answer('12.0', 0)
  assert 'use --runtime=tf2' in machine.choice()
  assert '/tf2-gpu.txt' in machine.choice('--runtime=tf2')
  answer('', 9)
  assert '/tf1-cpu.txt' in machine.choice()


def test_python_that_does_not_work_is_passed_over(machine):
  machine.script(machine.bin, 'python3.7', '#!{bash}\nexit 127\n')
  machine.python('3.11.7', reason='cannot make virtual environments')
  machine.python('3.10.4')
  machine.python('3.14.0', name='python3')
  line = machine.choice()
  assert 'Python 3.10.4' in line and '-> .venv-tf2' in line
  assert 'python3.7 does not run (exit code 127)' in line
  assert 'python3.11 cannot make virtual environments' in line


@pytest.mark.parametrize('variable, folder', [
    ('', 'home/.pyenv/versions/3.7.16'), ('', 'home/miniconda3/envs/tf 1'),
    ('', 'home/.local/share/uv/python/cpython-3.7.9'),
    ('PYENV_ROOT', 'here/versions/3.7.16'), ('CONDA_PREFIX', 'here')])
def test_python37_of_pyenv_conda_and_uv_is_found(machine, variable, folder):
  machine.python('3.11.7')
  machine.python('3.7.16', folder=machine.path(folder + '/bin'))
  environ = {variable: machine.path('here')} if variable else {}
  assert 'Python 3.7.16' in machine.choice(**environ)


def test_named_python_is_used(machine):
  machine.python('3.7.16')
  python = machine.python('3.9.2', folder=machine.path('here'))
  assert 'Python 3.9.2 ' in machine.choice('--python=' + python)
  assert 'Python 3.9.2 ' in machine.choice('--python=../here/python3.9')
  code, _, error = machine.run('--runtime=tf1', '--python=' + python)
  assert (code, error.count('\n')) == (2, 1) and 'is Python 3.9.2' in error
  code, _, error = machine.run('--python=/nowhere')
  assert code == 2 and '/nowhere does not run' in error


@pytest.mark.parametrize('args, code, named', [
    ((), 3, '--runtime=auto'), (('--runtime=tf1',), 3, '--runtime=tf1'),
    (('--runtime=tf3',), 2, 'tf3'), (('--runtme=tf1',), 2, '--runtme'),
    (('--venv=',), 2, '--venv')])
def test_an_error_is_one_line(machine, args, code, named):
  machine.python('3.8.18')
  got, stdout, stderr = machine.run(*args)
  assert (got, stdout, stderr.count('\n')) == (code, '', 1)
  assert stderr.startswith('setup_env: error: ') and named in stderr


@pytest.mark.parametrize('variable', ['VIRTUAL_ENV', 'CONDA_PREFIX'])
def test_an_active_environment_that_works_is_taken(machine, variable):
  machine.python('3.7.16')
  python = machine.python('3.11.7', machine.path('my env/bin'), 'python')
  active = {variable: machine.path('my env'),
            'PATH': machine.path('my env/bin') + os.pathsep + machine.bin}
  for args in (), ('--runtime=auto',), ('--dry_run',):
    code, stdout, stderr = machine.run(*args, **active)
    assert (code, stdout, stderr) == (
        0, python + '\n', f'setup_env: takes the active {python}\n')
  # Flags decide, and the tests need the pins.
  assert '-> .venv-tf1' in machine.choice('--runtime=tf1', **active)
  assert '/home/my new' in machine.choice('--venv=my new', **active)
  assert 'Python 3.7.16' in machine.choice(
      f'--python={machine.bin}/python3.7', **active)
  assert 'test: auto: .venv-tf1/bin/python with' in machine.run(
      '--runtime=auto', script='test.sh', **active)[2]
  # So does the environment that is first on the PATH.
  active['PATH'] = machine.bin
  assert '-> .venv-tf1' in machine.choice(**active)


def test_an_active_environment_that_lacks_something_is_not_taken(machine):
  machine.python('3.7.16')
  python = machine.script(
      machine.path('mine/bin'), 'python', '#!{bash}\n'
      'printf "Traceback\\n  x\\nImportError: No module\\n" >&2\nexit 1\n')
  line = machine.choice(VIRTUAL_ENV=machine.path('mine'), PATH=(
      machine.path('mine/bin') + os.pathsep + machine.bin))
  assert '-> .venv-tf1' in line
  assert f'the active {python} lacks something: ImportError: No module' in line


def test_other_folders_are_never_emptied(machine):
  machine.python('3.7.16')
  mine = machine.python('3.7.16', machine.path('mine/bin'), 'python')
  for _ in 'a folder', 'an environment':
    code, _, error = machine.run('--venv=' + machine.path('mine'))
    assert (code, error.count('\n')) == (2, 1) and os.path.exists(mine)
    assert 'was not made by this script; name a new directory' in error
    open(machine.path('mine/pyvenv.cfg'), 'w').close()


def test_second_run_installs_nothing_and_changed_pins_do(machine):
  machine.python('3.7.16')
  python = machine.path('home/my env/bin/python\n')
  assert machine.run('--venv=my env')[:2] == (0, python)
  assert machine.run('--venv=my env')[:2] == (0, python)
  assert machine.logged() == ['-m pip install -r scripts/requirements/tf1-cpu'
                              '.txt -r scripts/requirements/test.txt']
  with open(machine.path('project/scripts/requirements/test.txt'), 'a') as f:
    f.write('more==1.0\n')
  assert machine.run('--venv=my env')[0] == 0
  assert len(machine.logged()) == 2


def test_failed_or_killed_installation_starts_anew(machine):
  machine.python('3.7.16', pip_exit=1)
  code, stdout, stderr = machine.run()
  assert (code, stdout) == (1, '')
  assert 'pip says no' in stderr and 'setup.log' in stderr.splitlines()[-1]
  machine.python('3.7.16', secs=1)
  process = machine.start()
  while not os.path.exists(machine.path('project/.venv-tf1/bin/python')):
    time.sleep(0.02)
  process.kill()
  process.communicate()
  machine.python('3.7.16')
  assert machine.run()[0] == 0
  assert os.path.exists(machine.path('project/.venv-tf1/.mentormix-installed'))


@pytest.mark.skipif(not shutil.which('flock'), reason='there is no flock')
def test_two_at_once_install_once(machine):
  machine.python('3.7.16', secs=0.3)
  processes = [machine.start() for _ in range(2)]
  outputs = [process.communicate()[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0]
  assert outputs[0] == outputs[1] and len(machine.logged()) == 1


def test_tests_run_on_every_runtime(machine):
  machine.python('3.12.1')
  code, _, stderr = machine.run(script='test.sh')
  assert code == 0 and 'one runtime only: tf2' in stderr
  machine.python('3.7.16')
  code, stdout, stderr = machine.run('--slow', '-k', 'a or b', script='test.sh')
  assert code == 0 and 'tf1: tested' in stdout and 'tf2: tested' in stdout
  assert 'test: tf1 passed in ' in stderr and 'test: tf2 passed in ' in stderr
  runs = [line for line in machine.logged() if 'pytest' in line]
  assert ['-m  -k a or b' in run for run in runs] == [False, True, True]
  others = [run.partition('other=')[2] for run in runs]
  assert others[0] == '' and sorted(others[1:]) == [
      machine.path(f'project/.venv-tf{i}/bin/python') for i in (1, 2)]


@pytest.mark.parametrize('failing', ['tf1', 'tf2'])
def test_one_failing_runtime_fails_the_tests(machine, failing):
  for runtime, version in ('tf1', '3.7.16'), ('tf2', '3.12.1'):
    machine.python(version, pytest_exit=int(runtime == failing))
  code, _, stderr = machine.run(script='test.sh')
  assert code == 1
  for runtime in 'tf1', 'tf2':
    outcome = 'FAILED' if runtime == failing else 'passed'
    assert f'test: {runtime} {outcome} in ' in stderr


def test_a_signal_ends_the_tests_of_both_runtimes(machine):
  machine.python('3.7.16', pytest_secs=1000)
  machine.python('3.12.1', pytest_secs=1000)
  process = machine.start(script='test.sh')
  while not (os.path.exists(machine.log)
             and str(machine.logged()).count('-m pytest') == 2):
    time.sleep(0.02)
  process.send_signal(signal.SIGTERM)
  process.communicate(timeout=100)  # No `sleep` holds its stdout any more.
  assert process.returncode == 143


def test_a_slip_at_the_tests_is_one_line(machine):
  code, _, stderr = machine.run('--runtime=tf3', script='test.sh')
  assert (code, stderr.count('\n')) == (2, 1)
  code, _, stderr = machine.run(script='test.sh')
  assert (code, stderr.count('\n')) == (3, 1)
