"""Tests of what an earlier run left: directories and downloads."""
import os
import shutil

import pytest

from mentormix import files
from mentormix.data import cifar_archive
from mentormix.data import cifar_archive_test
from mentormix.data import download as download_lib
from mentormix.data import preparation
from mentormix.data import preparation_settings
from mentormix.data.preparation_test import contents
from mentormix.data.preparation_test import facts
from mentormix.data.preparation_test import fail_after
from mentormix.data.preparation_test import settings
from mentormix.messages import RunError, UserError


def test_finished_directories_are_kept(tmp_path, capsys, monkeypatch):
  preparation.prepare(settings(tmp_path))
  before = contents(tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(preparation, '_read', None)  # The images are not even read.
    preparation.prepare(settings(tmp_path))
  assert contents(tmp_path) == before
  preparation.prepare(settings(tmp_path, noise_levels=(0.1, 0.4)))
  assert capsys.readouterr().out.count('kept') == 4
  assert sorted(os.listdir(str(tmp_path / 'out'))) == ['0.1', '0.4', 'val']


@pytest.mark.parametrize('change', [
    {'seed': 1}, {'noise_type': 'symmetric'}, {'num_shards': 2},
    {'num_train': 50}])
def test_other_settings_are_refused_before_writing(tmp_path, change):
  preparation.prepare(settings(tmp_path))
  before = contents(tmp_path)
  wanted = settings(tmp_path, noise_levels=(0.1, 0.4), **change)
  with pytest.raises(UserError, match='--overwrite') as caught:
    preparation.prepare(wanted)
  (name, value), = change.items()
  was = getattr(preparation_settings.checked(settings(tmp_path)), name)
  assert (f'{name} {"none" if was is None else was}, not {value}'
          in str(caught.value))
  assert contents(tmp_path) == before
  preparation.prepare(wanted._replace(overwrite=True))
  assert facts(tmp_path)[name] == value
  assert sorted(os.listdir(str(tmp_path / 'out'))) == ['0.1', '0.4', 'val']


def test_other_archive_is_refused(tmp_path):
  values = settings(tmp_path)
  preparation.prepare(values)
  cifar_archive_test.write_cifar_archive(values.archive, seed=1)
  with pytest.raises(UserError, match='archive_md5.*--overwrite'):
    preparation.prepare(values)


@pytest.mark.parametrize('damage', ['change', 'remove', 'add', 'no json',
                                    'odd json', 'deep json'])
def test_damaged_directories_are_refused(tmp_path, damage):
  preparation.prepare(settings(tmp_path))
  level = tmp_path / 'out' / '0.4'
  shard, note = level / 'cifar10_train-00001-of-00003', level / 'noise.json'
  if damage == 'change':
    shard.write_bytes(shard.read_bytes()[:-1])
  elif damage == 'remove':
    shard.unlink()
  elif damage == 'add':
    (level / 'cifar10_train-00003-of-00004').write_bytes(b'')
  elif damage == 'no json':
    note.unlink()
  else:
    note.write_text('[]' if damage == 'odd json' else '[' * 100000)
  with pytest.raises(UserError, match='--overwrite'):
    preparation.prepare(settings(tmp_path))
  preparation.prepare(settings(tmp_path, overwrite=True))
  assert len(facts(tmp_path)['sha256']) == 5


def test_other_files_are_never_replaced(tmp_path):
  level = tmp_path / 'out' / '0.4'
  level.mkdir(parents=True)
  (level / 'thesis.tex').write_text('x')
  for overwrite in (False, True):
    with pytest.raises(UserError, match='thesis.tex.*--output_dir'):
      preparation.prepare(settings(tmp_path, overwrite=overwrite))
  (level / 'thesis.tex').unlink()
  preparation.prepare(settings(tmp_path))  # An empty one is no obstacle.
  assert facts(tmp_path)


def test_file_or_link_in_the_way(tmp_path):
  (tmp_path / 'out').mkdir()
  level = tmp_path / 'out' / '0.4'
  for make in (level.touch, lambda: level.symlink_to(tmp_path / 'nowhere')):
    make()
    with pytest.raises(UserError, match='not a directory'):
      preparation.prepare(settings(tmp_path, overwrite=True))
    level.unlink()


def test_failed_overwrite_keeps_the_old(tmp_path, monkeypatch):
  preparation.prepare(settings(tmp_path))
  before = contents(tmp_path)

  def disk_full():
    raise OSError(28, 'No space left on device')

  fail_after(monkeypatch, 10, disk_full)
  with pytest.raises(RunError, match='cannot write .*No space left'):
    preparation.prepare(settings(tmp_path, seed=1, overwrite=True))
  assert contents(tmp_path) == before


def test_unofficial_archive_is_noted(tmp_path, capsys):
  values = settings(tmp_path)
  preparation.prepare(values)
  assert 'is not the official archive' in capsys.readouterr().out
  preparation.prepare(values._replace(md5=files.md5_of(values.archive)))
  assert 'Note' not in capsys.readouterr().out


def test_download(tmp_path, monkeypatch, capsys):
  """The official address by default; its checksum unless told otherwise."""
  fetched = []
  archive = settings(tmp_path).archive

  def download(url, path, md5):
    fetched.append((url, path, md5))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copy(archive, path)

  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(download_lib, 'download', download)
  official = cifar_archive.OFFICIAL['cifar10']._replace(
      md5=files.md5_of(archive))
  monkeypatch.setitem(cifar_archive.OFFICIAL, 'cifar10', official)
  values = settings(tmp_path, archive=None)
  target = os.path.join('data', 'cifar-10-python.tar.gz')
  preparation.prepare(values)
  assert fetched == [(official.url, target, official.md5)]

  preparation.prepare(values)  # Everything is there: nothing is needed.
  assert len(fetched) == 1

  # An address elsewhere: the same file unless --md5 says otherwise.
  values = values._replace(archive='http://mirror/x/cifar-10-python.tar.gz',
                           overwrite=True)
  preparation.prepare(values)
  assert len(fetched) == 1 and 'Using ' + target in capsys.readouterr().out
  os.remove(target)
  preparation.prepare(values)
  assert fetched[1:] == [(values.archive, target, official.md5)]
  with pytest.raises(UserError, match='delete it.*--archive=' + target):
    preparation.prepare(values._replace(md5='0' * 32))
