"""The pages for people: every link, path, command and flag in them exists."""
import functools
import glob
import os
import re

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _files(*patterns):
  """Paths below the top of the repository, of what is not a test."""
  return sorted(
      os.path.relpath(path, ROOT) for pattern in patterns
      for path in glob.glob(os.path.join(ROOT, pattern), recursive=True)
      if not path.endswith('_test.py'))


PAGES = _files('README.md', 'code/*.md', 'scripts/*.md', 'data/*.md',
               'results/**/*.md', 'mentornet_models/**/*.md')
# The files that define the flags which a script passes on.
TRAINING = ('code/cifar_train_mentormix.py', 'code/mentormix/settings.py')
PASSED_ON = {
    'code/cifar_eval.py': ('code/mentormix/eval_settings.py',
                           'code/mentormix/settings.py'),
    'code/export_step.py': TRAINING,
    'code/tools/out_of_fold.py': TRAINING,
    'scripts/sweep.sh': TRAINING,
    'scripts/mentornet_dd.sh': TRAINING,
    'scripts/local_cluster.sh': TRAINING,
    'scripts/slurm.sh': TRAINING,
}
PATH = r'(?:code|scripts|mentormix)/[\w/]+\.\w+'


def _read(path):
  with open(os.path.join(ROOT, path), encoding='utf-8') as f:
    return f.read()


def _page(path):
  """The text of a page, without the commands of an earlier commit."""
  return re.sub(r'(?m)^    git checkout .*\n(    .*\n)*', '', _read(path))


def _anchors(text):
  """The anchors that GitHub makes from the headings."""
  text = re.sub(r'(?ms)^```.*?^```', '', text)
  return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
          for heading in re.findall(r'(?m)^#+ (.*)$', text)}


@functools.lru_cache(maxsize=None)
def _words(*paths):
  return frozenset(re.findall(r'\w+', '\n'.join(map(_read, paths))))


def _is_known(flag, words):
  return flag in words or re.sub('^no', '', flag) in words


def test_the_pages_are_found():
  for name in ('', 'code/', 'scripts/', 'data/', 'results/',
               'mentornet_models/'):
    assert name + 'README.md' in PAGES


def test_every_file_on_the_map_of_the_code_exists():
  names = {os.path.basename(path) for path in _files('code/**/*.py')}
  mentioned = set(re.findall(r'\w+\.py', _read('code/README.md')))
  assert len(mentioned) > 20
  assert mentioned - names <= {'architecture_test.py'}


@pytest.mark.parametrize('page', PAGES)
def test_every_link_leads_somewhere(page):
  for target in re.findall(r'\]\(([^)\s]+)\)', _page(page)):
    if '://' in target:
      continue
    path, _, anchor = target.partition('#')
    path = os.path.join(os.path.dirname(page), path) if path else page
    assert os.path.exists(os.path.join(ROOT, path)), target
    assert not anchor or anchor in _anchors(_read(path)), target


@pytest.mark.parametrize('page', PAGES)
def test_every_path_of_the_code_exists(page):
  for path in re.findall(r'(?<![\w/])' + PATH, _page(page)):
    if path.startswith('mentormix/'):
      path = 'code/' + path
    assert os.path.exists(os.path.join(ROOT, path)), path


@pytest.mark.parametrize('page', PAGES)
def test_every_flag_of_a_command_exists(page):
  text = _page(page).replace('\\\n', ' ')
  for script, rest in re.findall(rf'({PATH})((?: [^`|>\n]*)?)', text):
    if script.startswith('mentormix/'):
      continue
    words = _words(script, *PASSED_ON.get(script, TRAINING[1:]))
    for flag in re.findall(r'(?<!\S)--(\w+)', rest):
      assert _is_known(flag, words), f'{script} --{flag}'


@pytest.mark.parametrize('page', PAGES)
def test_every_flag_in_the_text_exists(page):
  words = _words(*_files('code/**/*.py', 'scripts/*.sh', 'scripts/*.yaml'))
  for flag in re.findall(r'`--(\w+)', _page(page)):
    assert _is_known(flag, words), flag
