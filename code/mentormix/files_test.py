"""Directories: whole or not at all."""
import os

import pytest

from mentormix import files
from mentormix.command import UserError


def test_directory_that_cannot_be_written(tmp_path):
  files.writable_directory(str(tmp_path / 'a' / 'b'), 'eval_dir')
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='--eval_dir=.*file/x'):
    files.writable_directory(str(tmp_path / 'file' / 'x'), 'eval_dir')


def _fill(path, text):
  with files.new_directory(path) as directory:
    assert os.path.dirname(directory) == os.path.dirname(path)
    with open(os.path.join(directory, 'file'), 'w') as f:
      f.write(text)
    if text == 'fail':
      raise ValueError('on the way')


def test_a_new_directory_replaces_the_old_one_at_the_end(tmp_path):
  path = str(tmp_path / 'new')
  _fill(path, 'first')
  _fill(path, 'second')
  assert (tmp_path / 'new' / 'file').read_text() == 'second'
  assert os.listdir(str(tmp_path)) == ['new']


def test_a_failure_leaves_what_was_there(tmp_path):
  path = str(tmp_path / 'new')
  with pytest.raises(ValueError):
    _fill(path, 'fail')
  assert not os.listdir(str(tmp_path))
  _fill(path, 'first')
  with pytest.raises(ValueError):
    _fill(path, 'fail')
  assert (tmp_path / 'new' / 'file').read_text() == 'first'
  assert os.listdir(str(tmp_path)) == ['new']
