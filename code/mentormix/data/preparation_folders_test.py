"""Image folders with label files, bad images and few images, prepared."""
import json
import shlex

import numpy as np
import pytest

from mentormix.data import preparation
from mentormix.data import preparation_settings
from mentormix.data import preparation_test
from mentormix.data.preparation_test import contents, source_ids
from mentormix.messages import UserError


def _settings(tmp_path, **changes):
  values = preparation_settings.Settings(
      dataset_name='own', image_dir=str(tmp_path / 'images'),
      output_dir=str(tmp_path / 'my out'))
  return values._replace(**changes)


@pytest.fixture(name='numbered')
def fixture_numbered(tmp_path):
  """A folder of 12 classes called 0 to 11, four images each; their labels."""
  preparation_test.image_folder(tmp_path / 'images', 12, 4, 8)
  for split in ('train', 'val'):
    for k in range(12):
      (tmp_path / 'images' / split / f'class {k}').rename(
          tmp_path / 'images' / split / str(k))
  return np.repeat(np.arange(12), 4)


def _prepare(tmp_path, labels, **changes):
  path = tmp_path / 'labels.json'
  path.write_text(json.dumps(np.asarray(labels).tolist()))
  preparation.prepare(_settings(tmp_path, noise_file=str(path), **changes))


def test_label_files_use_the_numbers_of_folders(tmp_path, numbered, capsys):
  labels = numbered.copy()
  labels[::4] = (labels[::4] + 1) % 12
  _prepare(tmp_path, labels)
  said = capsys.readouterr().out
  assert (f'12 classes by id, as {tmp_path}/labels.json is read: 0 = 0, 1 = 1, '
          '2 = 2, ') in said and '11 = 11' in said
  assert '0.2500 realised' in said
  assert shlex.quote(str(tmp_path / 'my out' / 'labels')) in said


def test_labels_in_another_numbering_are_refused(tmp_path, numbered, capsys):
  as_text = np.argsort(np.argsort(list(map(str, range(12)))))[numbered]
  for labels in ((numbered + 1) % 12, as_text, numbered // 4):
    with pytest.raises(UserError, match='look renumbered|it uses 3 classes'):
      _prepare(tmp_path, labels)
    assert not (tmp_path / 'my out').exists()
  with pytest.raises(UserError, match='is 12; the 12 classes are 0 to 11'):
    _prepare(tmp_path, numbered + 1)
  _prepare(tmp_path, (numbered + 1) % 12, force_labels=True)
  assert '1.0000 realised' in capsys.readouterr().out


def test_a_training_set_alone(tmp_path, numbered, capsys):
  del numbered
  settings = _settings(tmp_path)
  preparation.prepare(settings._replace(
      image_dir=str(tmp_path / 'images' / 'train')))
  assert [path.name for path in (tmp_path / 'my out').iterdir()] == ['0']
  assert capsys.readouterr().out.endswith("; there is no test set\n")
  facts = json.loads((tmp_path / 'my out' / '0' / 'noise.json').read_text())
  assert facts['num_examples'] == 48 and facts['class_names'][11] == '11'


def test_few_images_make_few_files(tmp_path, numbered):
  preparation.prepare(_settings(tmp_path, num_train=4))
  names = {name.split('/')[-1] for name in contents(tmp_path / 'my out')}
  assert {name for name in names if 'train' in name} == {
      f'own_train-0000{k}-of-00004' for k in range(4)}
  assert len([name for name in names if 'test' in name]) == 10
  facts = json.loads((tmp_path / 'my out' / '0' / 'noise.json').read_text())
  assert facts['num_shards'] == 4
  with pytest.raises(UserError, match='--num_shards=5 leaves files empty'):
    preparation.prepare(_settings(tmp_path, num_train=4, num_shards=5,
                                  output_dir=str(tmp_path / 'other')))


def test_bad_images_are_left_out_with_their_labels(tmp_path, numbered, capsys):
  images = tmp_path / 'images'
  bad = ['train/1/002.png', 'train/10/000.png', 'val/3/005.png']
  for name in bad:
    (images / name).write_bytes(b'<html>')
  with pytest.raises(UserError, match='3 bad images, with --max_bad_records=0'):
    _prepare(tmp_path, numbered)
  labels = numbered.copy()
  labels[[5, 6]] = 7, 8
  _prepare(tmp_path, labels, max_bad_records=3)
  train = preparation_test.records(
      'own', 'train', tmp_path / 'my out' / 'labels')
  test = preparation_test.records('own', 'test', tmp_path / 'my out' / 'val')
  assert len(train) == 46 and len(test) == 119
  found = dict(zip(source_ids(train), preparation_test.column(
      train, 'image/class/label')))
  expected = {f'train/{k}/00{n}.png': labels[4 * k + n]
              for k in range(12) for n in range(4)}
  assert found == {name: label for name, label in expected.items()
                   if name not in bad}
  said = capsys.readouterr().out
  assert 'it is a web page' in said and '46 examples' in said
