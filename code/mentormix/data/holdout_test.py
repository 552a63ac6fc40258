"""Held-out training images: which they are, and how they are written."""
import json

import numpy as np
import pytest

from mentormix.data import cifar_archive_test
from mentormix.data import datasets
from mentormix.data import holdout
from mentormix.data import preparation
from mentormix.data.preparation_test import column
from mentormix.data.preparation_test import contents
from mentormix.data.preparation_test import custom
from mentormix.data.preparation_test import decode
from mentormix.data.preparation_test import facts
from mentormix.data.preparation_test import image_folder
from mentormix.data.preparation_test import records
from mentormix.data.preparation_test import settings
from mentormix.data.preparation_test import source_ids
from mentormix.messages import UserError


@pytest.mark.parametrize('count, share, number', [
    (200, 0.1, 20), (50, 0.21, 10), (3, 0.5, 2), (2, 0.5, 1)])
def test_how_many(count, share, number):
  held = holdout.held_out(count, share, seed=7)
  assert held.shape == (count,) and held.sum() == number
  assert held.tolist() == holdout.held_out(count, share, seed=7).tolist()


def test_random_and_by_seed():
  held = np.stack([holdout.held_out(1000, 0.3, seed) for seed in range(20)])
  assert 0.25 < held[:, :500].mean() < 0.35
  assert abs(np.corrcoef(held[0], held[1])[0, 1]) < 0.15


@pytest.mark.parametrize('dataset_name', ['cifar10', 'cifar100', 'digits'])
def test_labels_are_those_of_the_set_without_it(tmp_path, dataset_name):
  archive = None
  if dataset_name != 'digits':
    archive = str(tmp_path / 'a.tar.gz')
    cifar_archive_test.write_cifar_archive(archive, dataset_name, 100)
  values = settings(tmp_path, dataset_name=dataset_name, archive=archive,
                    seed=4)
  preparation.prepare(values)
  preparation.prepare(values._replace(
      holdout=0.2, output_dir=str(tmp_path / 'parts')))
  whole = records(dataset_name, 'train', tmp_path / 'out' / '0.4')
  kept = records(dataset_name, 'train', tmp_path / 'parts' / '0.4')
  held = records(dataset_name, 'test', tmp_path / 'parts' / '0.4_holdout')
  assert len(held) == round(0.2 * len(whole))
  expected = dict(zip(source_ids(whole), whole))
  assert sorted(source_ids(kept) + source_ids(held)) == sorted(expected)
  for record in kept + held:
    whole_record = expected[source_ids([record])[0]]
    for key in (datasets.IMAGE, datasets.LABEL, datasets.CLEAN_LABEL):
      assert record[key] == whole_record[key]
  # What the evaluator scores on is the noisy label.
  key = datasets.get(dataset_name).label_key('test')
  given = column(held, datasets.LABEL)
  assert column(held, key).tolist() == given.tolist()
  wrong = np.mean(given != column(held, datasets.CLEAN_LABEL))
  assert 0.3 < wrong < 0.5
  if dataset_name == 'cifar100':  # In training it is the clean one.
    np.testing.assert_array_equal(column(kept, datasets.FINE_LABEL),
                                  column(kept, datasets.CLEAN_LABEL))
  assert contents(tmp_path / 'parts' / 'val') == contents(
      tmp_path / 'out' / 'val')
  # In the order of the source; training records are shuffled.
  assert source_ids(held) == sorted(source_ids(held), key=int)
  assert source_ids(kept) != sorted(source_ids(kept), key=int)


def test_files_beside_the_records(tmp_path, capsys):
  preparation.prepare(settings(tmp_path))
  preparation.prepare(settings(
      tmp_path, holdout=0.15, output_dir=str(tmp_path / 'parts')))
  out = capsys.readouterr().out
  whole, kept, held = (tmp_path / name for name in (
      'out/0.4', 'parts/0.4', 'parts/0.4_holdout'))
  assert f'{held}: 30 examples, symmetric_others noise, 0.4 asked, 0.' in out
  assert f'held-out images with --data_dir={held}\n' in out
  assert (kept / 'labels.json').read_bytes() == (
      whole / 'labels.json').read_bytes()
  assert not (held / 'labels.json').exists()
  lines = {path: (path / 'labels.csv').read_text().splitlines()
           for path in (whole, kept, held)}
  assert len(lines[held]) == 31 and len(lines[kept]) == 171
  assert sorted(lines[kept][1:] + lines[held][1:]) == sorted(lines[whole][1:])
  indices = [int(line.split(',')[0]) for line in lines[held][1:]]
  assert indices == np.flatnonzero(holdout.held_out(200, 0.15, 0)).tolist()
  changed = 0
  for path, split in ((kept, 'train'), (held, 'test')):
    found = json.loads((path / 'noise.json').read_text())
    rows = [line.split(',') for line in lines[path][1:]]
    assert (found['holdout'], found['num_held_out'], found['num_kept'],
            found['split'], found['rate_asked'], found['seed']) == (
                0.15, 30, 170, split, 0.4, 0)
    assert found['num_examples'] == len(rows)
    assert found['num_changed'] == sum(row[1] != row[2] for row in rows)
    assert found['rate_realised'] == found['num_changed'] / len(rows)
    changed += found['num_changed']
  assert changed == 80  # 40% of all 200.
  assert not {'holdout', 'num_held_out'} & set(facts(tmp_path))
  assert 'holdout' not in (tmp_path / 'parts/val/noise.json').read_text()


def test_the_same_images_at_every_level_and_kind(tmp_path):
  preparation.prepare(settings(tmp_path, holdout=0.1, noise_levels=(0, 0.8)))
  preparation.prepare(settings(tmp_path, holdout=0.1, noise_levels=(0.4,),
                               noise_type='asymmetric'))
  ids = [source_ids(records('cifar10', 'test', tmp_path / 'out' / name))
         for name in ('0_holdout', '0.8_holdout', '0.4_holdout')]
  assert ids[0] == ids[1] == ids[2]


def test_labels_of_a_file_and_of_folders(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  image_folder(tmp_path / 'images')
  values = custom(tmp_path, holdout=0.25)
  preparation.prepare(values)
  labels = json.loads((tmp_path / 'out/0/labels.json').read_text())
  wrong = [1 - label if k % 4 == 0 else label
           for k, label in enumerate(labels)]
  (tmp_path / 'human.json').write_text(json.dumps(wrong))
  preparation.prepare(values._replace(noise_file='human.json'))
  for name, expected in (('0_holdout', labels), ('human_holdout', wrong)):
    held = records('own', 'test', tmp_path / 'out' / name)
    rows = np.flatnonzero(holdout.held_out(40, 0.25, 0))
    assert column(held, datasets.LABEL).tolist() == [expected[k] for k in rows]
    assert decode(held)[:, 0, 0, 1].tolist() == [k % 20 for k in rows]


def test_kept_and_refused(tmp_path, capsys):
  values = settings(tmp_path, holdout=0.1)
  preparation.prepare(values)
  preparation.prepare(values)
  assert capsys.readouterr().out.count(': kept, ') == 3
  with pytest.raises(UserError, match='made with holdout 0.1, not 0.2'):
    preparation.prepare(values._replace(holdout=0.2))
  preparation.prepare(values._replace(holdout=0.2, overwrite=True))
  assert facts(tmp_path)['num_held_out'] == 40
  # Without it the held-out images would be trained on.
  for overwrite in (False, True):
    with pytest.raises(UserError, match='0.4_holdout holds images that would'):
      preparation.prepare(values._replace(holdout=0, overwrite=overwrite))
  for path in (tmp_path / 'out' / '0.4_holdout').iterdir():
    path.unlink()
  (tmp_path / 'out' / '0.4_holdout').rmdir()
  with pytest.raises(UserError, match='made with holdout 0.2, not none'):
    preparation.prepare(values._replace(holdout=0))


@pytest.mark.parametrize('changes, words', [
    (dict(holdout=1.0), 'holdout=1.0 must be at least 0 and below 1'),
    (dict(holdout=-0.1), 'must be at least 0'),
    (dict(holdout=float('nan')), 'must be at least 0'),
    (dict(holdout=0.001), 'holds out 0 of 200'),
    (dict(holdout=0.999), 'holds out 200 of 200'),
    (dict(holdout=0.01), 'num_shards=3 .*a split has 2 images')])
def test_bad_shares_are_refused_before_writing(tmp_path, changes, words):
  with pytest.raises(UserError, match=words):
    preparation.prepare(settings(tmp_path, **changes))
  assert not (tmp_path / 'out').exists()
