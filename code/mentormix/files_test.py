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


def test_what_may_be_replaced(tmp_path):
  path = tmp_path / 'new'
  files.check_output(str(path), {'file'}, overwrite=False)
  _fill(str(path), 'first')
  with pytest.raises(UserError, match='there already; add --overwrite'):
    files.check_output(str(path), {'file'}, overwrite=False)
  files.check_output(str(path), {'file'}, overwrite=True)
  (path / 'thesis.tex').write_text(u'years of work')
  with pytest.raises(UserError, match='other files .thesis.tex.'):
    files.check_output(str(path), {'file'}, overwrite=True)
  with pytest.raises(UserError, match='is no directory'):
    files.check_output(str(path / 'file'), {'file'}, overwrite=True)
