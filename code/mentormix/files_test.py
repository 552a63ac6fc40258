"""Directories are written atomically and locked by one process."""
import os

import pytest

from mentormix import files
from mentormix.messages import UserError


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


def test_a_new_directory_replaces_the_old_one_only_at_the_end(tmp_path):
  path = str(tmp_path / 'new')
  with pytest.raises(ValueError):
    _fill(path, 'fail')
  assert not os.listdir(str(tmp_path))
  for text in 'first', 'second':
    _fill(path, text)
    with pytest.raises(ValueError):
      _fill(path, 'fail')
    assert (tmp_path / 'new' / 'file').read_text() == text
    assert os.listdir(str(tmp_path)) == ['new']


def test_a_failed_rename_leaves_what_was_there(tmp_path, monkeypatch):
  path = str(tmp_path / 'new')
  _fill(path, 'first')
  rename = os.rename

  def fail(source, target):
    if '.tmp-' in source:
      raise OSError(5, 'Input/output error')
    rename(source, target)

  monkeypatch.setattr(os, 'rename', fail)
  with pytest.raises(OSError):
    _fill(path, 'second')
  assert (tmp_path / 'new' / 'file').read_text() == 'first'
  assert os.listdir(str(tmp_path)) == ['new']


def test_what_may_be_replaced(tmp_path):
  path = tmp_path / 'new'
  files.check_output(str(path), {'file'}, overwrite=False)
  _fill(str(path), 'first')
  with pytest.raises(UserError, match='already exists; add --overwrite'):
    files.check_output(str(path), {'file'}, overwrite=False)
  files.check_output(str(path), {'file'}, overwrite=True)
  (path / 'thesis.tex').write_text('years of work')
  with pytest.raises(UserError, match='other files .thesis.tex.'):
    files.check_output(str(path), {'file'}, overwrite=True)
  with pytest.raises(UserError, match='is not a directory'):
    files.check_output(str(path / 'file'), {'file'}, overwrite=True)


def test_one_process_holds_a_directory(tmp_path, monkeypatch):
  monkeypatch.setattr(files, '_PATIENCE_SECS', 0)
  path = str(tmp_path)
  for _ in range(2):  # What the first one leaves is stale.
    with files.only_writer(path, 'train_log_dir'):
      with pytest.raises(UserError, match='--train_log_dir=.* is in use by '
                                          f'process {os.getpid()} on '):
        with files.only_writer(path, 'train_log_dir'):
          raise AssertionError('both hold it')
