"""The study, on small sets of runs whose figures are worked out by hand."""
import json
import math

import pytest

from mentormix import config as config_lib
from mentormix.evaluation import results
from mentormix.messages import UserError
from mentormix.reports import blocks
from mentormix.reports import groups
from mentormix.reports import page
from mentormix.reports import panels
from mentormix.reports import rendering
from mentormix.reports import runs
from mentormix.reports import study
from mentormix.reports.testing import HELD_OUT
from mentormix.reports.testing import NOISE
from mentormix.reports.testing import read_groups
from mentormix.reports.testing import write_results
from mentormix.reports.testing import write_run


def of(kind, level, realised=None, **others):
  """A noise.json with a hold-out."""
  return dict(noise_type=kind, rate_asked=level, rate_realised=realised,
              num_held_out=HELD_OUT, **others)


def tables(path):
  """The tables of the study of the runs below `path`: subheading -> blocks."""
  found, heading = {}, ''
  for block in study.section(read_groups(path), []):
    heading = block.subheading or heading
    if block.header:
      found.setdefault(heading, []).append(
          [list(map(str, row)) for row in (block.header, *block.rows)])
  return found


def best(path, heading):
  """The marked cells of the first table below a subheading."""
  blocks_ = study.section(read_groups(path), [])
  at = [block.subheading for block in blocks_].index(heading)
  table = next(block for block in blocks_[at:] if block.header)
  return [[str(cell) for cell in row if isinstance(cell, blocks.Best)]
          for row in table.rows]


@pytest.fixture(name='two_levels', scope='module')
def fixture_two_levels(tmp_path_factory):
  """Two methods, levels and seeds; only one method has held-out results.

  cross_entropy at 20%: final 60 and 64, peak 70 and 72; at 80%: final 30 and
  30, peak 50 and 60. mixup: at 20% final and peak 64 and 65, at 80% 40 and 44.
  """
  path = tmp_path_factory.mktemp('runs')
  for level, plain, mixed in (
      (0.2, ((0.1, 0.70, 0.60), (0.1, 0.72, 0.64)), (0.64, 0.65)),
      (0.8, ((0.1, 0.50, 0.30), (0.1, 0.60, 0.30)), (0.40, 0.44))):
    for seed in range(2):
      noise = of('symmetric', level)
      # The best on the held-out images is the second, then the third.
      write_run(path / f'plain{level}{seed}', plain[seed], noise,
                method='cross_entropy', seed=seed,
                held_out=(0.1, 0.3, 0.3 + 0.1 * seed))
      write_run(path / f'mixed{level}{seed}', (0.1, 0.2, mixed[seed]), noise,
                method='mixup', seed=seed)
  return path


def test_levels(two_levels):
  heading = 'cifar10, symmetric, resnet32, 100 steps'
  levels, paired = tables(two_levels)[heading]
  assert levels == [
      ['n = 2', 'Method', '20%', '80%', 'Mean over 2 levels'],
      # The sample deviation of a and b is |a - b| / sqrt(2).
      ['Final', 'cross_entropy', '62.00 ± 2.83', '30.00 ± 0.00',
       '46.00 ± 22.63'],
      ['', 'mixup', '64.50 ± 0.71', '42.00 ± 2.83', '53.25 ± 15.91'],
      ['Peak*', 'cross_entropy', '71.00 ± 1.41', '55.00 ± 7.07',
       '63.00 ± 11.31'],
      ['', 'mixup', '64.50 ± 0.71', '42.00 ± 2.83', '53.25 ± 15.91'],
      ['Drop', 'cross_entropy', '9.00 ± 1.41', '25.00 ± 7.07',
       '17.00 ± 11.31'],
      ['', 'mixup', '0.00 ± 0.00', '0.00 ± 0.00', '0.00 ± 0.00'],
      # Seed 0 stops at the second checkpoint, seed 1 at the third.
      ['Stopped early', 'cross_entropy', '67.00 ± 4.24', '40.00 ± 14.14',
       '53.50 ± 19.09'],
      ['', 'mixup', '–', '–', '–']]
  assert best(two_levels, heading) == [
      [], ['64.50 ± 0.71', '42.00 ± 2.83', '53.25 ± 15.91'],
      ['71.00 ± 1.41', '55.00 ± 7.07', '63.00 ± 11.31'], [], [], [], [], []]
  # mixup minus cross_entropy: 4, 1, 10 and 14, with mean 7.25; the squared
  # deviations sum to 102.75, so the error is sqrt(102.75 / 3 / 4) = 2.926.
  assert paired == [
      ['', 'minus cross_entropy', 'minus mixup'],
      ['cross_entropy', '–', '-7.25 ± 2.93 (4)'],
      ['mixup', '+7.25 ± 2.93 (4)', '–']]


def test_recomputed_statistics(tmp_path):
  for level in (0.2, 0.4):
    path = tmp_path / str(level)
    write_run(path, (0.1, 0.5), of('symmetric', level), method='mixup')
    table = str(path / 'eval' / results.FILE)
    *rest, last = results.read(table)
    results.write(table, rest + [last._replace(top1_recomputed=0.25 + level)])
  levels, = tables(tmp_path)['cifar10, symmetric, resnet32, 100 steps']
  assert levels[-1] == ['Recomputed statistics', 'mixup', '45.00', '65.00',
                        '55.00 ± 14.14']
  notes = [block.text for block in study.section(read_groups(tmp_path), [])]
  assert blocks.RECOMPUTED_NOTE in notes


def test_differences_with_recomputed_statistics(tmp_path):
  """Beside those of the published evaluation; runs without them are left out.
  """
  for kind, method, last, recomputed in (
      ('red', 'mixup', 0.5, 0.625), ('red', 'mentormix', 0.25, 0.75),
      ('blue', 'mixup', 0.5, 0.5), ('blue', 'mentormix', 0.5, math.nan)):
    path = tmp_path / f'{kind}{method}'
    write_run(path, (0.1, last), of(kind, 0.4), method=method,
              dataset_name=f'mini_imagenet_{kind}')
    table = str(path / 'eval' / results.FILE)
    first, row = results.read(table)
    results.write(table, [first, row._replace(top1_recomputed=recomputed)])
  found = tables(tmp_path)
  _, published, paired = found['mini_imagenet_red, red, resnet32, 100 steps']
  assert published[2] == ['mentormix', '-25.00 (1)', '–']
  assert paired == [['', 'minus mixup', 'minus mentormix'],
                    ['mixup', '–', '-12.50 (1)'],
                    ['mentormix', '+12.50 (1)', '–']]
  assert len(found['mini_imagenet_blue, blue, resnet32, 100 steps']) == 2
  _, kinds = found['Kinds of noise']
  assert kinds == [
      ['Level', 'Method', 'Recomputed statistics, blue',
       'Recomputed statistics, red', 'red minus blue'],
      ['40%', 'mixup', '50.00', '62.50', '+12.50']]


def test_summary(two_levels):
  (header, row), = tables(two_levels)['Does early stopping matter?']
  assert dict(zip(header, row)) == {
      'Data': 'cifar10', 'Noise': 'symmetric',
      'Student, steps': 'resnet32, 100 steps', 'Runs': '8',
      # Of the four groups: 62, 30, 64.5, 42; 71, 55, 64.5, 42; 9, 25, 0, 0.
      'Final': '49.62', 'Peak*': '58.12', 'Drop': '8.50',
      'Drop at the highest level': '12.50 (at 80%)',
      # Only those that have it: 67 and 40, against 62 and 30.
      'Stopped early, minus final': '+7.50'}


@pytest.mark.parametrize('change,pairs', [
    (dict(), 1), (dict(seed=1), 0), (dict(noise=dict(NOISE, seed=1)), 0),
    (dict(noise=dict(NOISE, holdout=0.1)), 0), (dict(checkpoint_path='a'), 0)])
def test_only_runs_on_the_same_data_and_seed_are_paired(
    tmp_path, change, pairs):
  write_run(tmp_path / 'a', method='mixup')
  write_run(tmp_path / 'b', (0.1, 0.7), method='cross_entropy', **change)
  write_run(tmp_path / 'c', method='mixup', noise=dict(NOISE, rate_asked=0.2))
  cells = [cell for blocks_ in tables(tmp_path).values() for table in blocks_
           for row in table for cell in row]
  assert cells.count('+10.00 (1)') == pairs


def test_methods_and_levels_that_are_missing(tmp_path):
  write_run(tmp_path / 'a', method='mixup')
  write_run(tmp_path / 'b', method='mixup', noise=dict(NOISE, rate_asked=0.2))
  write_run(tmp_path / 'c', (0.1, 0.9), method='cross_entropy')
  levels, _ = tables(tmp_path)['cifar10, symmetric_others, resnet32, 100 steps']
  assert levels[0][2:] == ['20%', '40%', 'Mean over 2 levels']
  assert levels[1] == ['Final', 'cross_entropy', '–', '90.00', '–']
  assert levels[2] == ['', 'mixup', '80.00', '80.00', '80.00 ± 0.00']


def test_kinds_side_by_side(tmp_path):
  """Red and blue at the levels they share, with the rates counted."""
  for kind, level, realised, accuracies in (
      ('red', 0.4, 0.398, (0.1, 0.7, 0.6)), ('blue', 0.4, 0.241, (0.6, 0.3)),
      ('blue', 0.8, 0.5, (0.1, 0.2)), ('red', 0.0, 0.0, (0.1, 0.8))):
    write_run(tmp_path / f'{kind}{level}', accuracies,
              of(kind, level, realised),
              dataset_name=f'mini_imagenet_{kind}', method='mixup')
  table, = tables(tmp_path)['Kinds of noise']
  assert table == [
      ['Level', 'Method', 'Final, blue', 'Final, red', 'red minus blue',
       'Drop, blue', 'Drop, red'],
      ['40% (blue 24.1%, red 39.8%)', 'mixup', '30.00', '60.00', '+30.00',
       '30.00', '10.00']]
  assert 'mini_imagenet, resnet32, 100 steps' in [
      block.text for block in study.section(read_groups(tmp_path), [])]
  # The table of red, in the order of its levels.
  levels, = tables(tmp_path)['mini_imagenet_red, red, resnet32, 100 steps']
  assert levels[1] == ['Final', 'mixup', '80.00', '60.00', '70.00 ± 14.14']


def test_human_labels_beside_synthetic_ones(tmp_path):
  """40.2% counts as 40%; best is marked among the methods of a level."""
  for method, human, synthetic in (('mixup', 0.5, 0.7),
                                   ('cross_entropy', 0.6, 0.4)):
    write_run(tmp_path / f'h{method}', (0.1, human), of('file', None, 0.402),
              data_dir='d/worse', method=method)
    write_run(tmp_path / f's{method}', (0.1, synthetic), method=method)
  table, = tables(tmp_path)['Kinds of noise']
  assert table[0][2:5] == ['Final, label file', 'Final, symmetric_others',
                           'symmetric_others minus label file']
  level = '40% (label file 40.2%, symmetric_others 40.0%)'
  assert [row[:5] for row in table[1:]] == [
      [level, 'cross_entropy', '60.00', '40.00', '-20.00'],
      ['', 'mixup', '50.00', '70.00', '+20.00']]
  assert best(tmp_path, 'Kinds of noise') == [['60.00'], ['70.00']]
  levels, _ = tables(tmp_path)['cifar10, label file, resnet32, 100 steps']
  assert levels == [['worse (40.2%), n = 1', 'Final', 'Peak*', 'Drop'],
                    ['cross_entropy', '60.00', '60.00', '0.00'],
                    ['mixup', '50.00', '50.00', '0.00']]


def test_from_scratch_against_fine_tuned(tmp_path):
  for start, accuracies in (('', (0.1, 0.6)), ('in/net', (0.1, 0.9, 0.8))):
    for seed in range(2):
      write_run(tmp_path / f'{bool(start)}{seed}', accuracies, seed=seed,
                checkpoint_path=start)
  found = read_groups(tmp_path)
  assert [g.task.start for g in found] == ['', 'in/net']
  assert [len(g.runs) for g in found] == [2, 2]
  table, = tables(tmp_path)['From scratch or fine-tuned']
  assert table == [
      ['Level', 'Method', 'Final, from scratch',
       'Final, fine-tuned from in/net',
       'fine-tuned from in/net minus from scratch', 'Drop, from scratch',
       'Drop, fine-tuned from in/net'],
      ['40%', 'mentormix', '60.00 ± 0.00', '80.00 ± 0.00', '+20.00',
       '0.00 ± 0.00', '10.00 ± 0.00']]


@pytest.mark.parametrize('change,expected', [
    (dict(), False), (dict(seed=1), False), (dict(method='mixup'), False),
    (dict(noise=None, data_dir='d/web'), False),
    (dict(noise=dict(NOISE, rate_asked=0.2)), True),
    (dict(noise=dict(NOISE, noise_type='symmetric')), True),
    (dict(checkpoint_path='a'), True)])
def test_when_there_is_a_study(tmp_path, change, expected):
  write_run(tmp_path / 'a')
  write_run(tmp_path / 'b', **change)
  found = runs.read([str(tmp_path)])
  text = rendering.render('report.md', 'T', page.page(
      found, groups.group(found), [], 5), '.')
  assert ('## Study' in text) == expected
  # Wherever there is a peak, the page says what it needs.
  assert text.count('Peak\\* |') > 0 and '| Peak |' not in text
  assert text.count('It is not to be had without a clean test set') >= 2


def test_pictures_and_their_places(tmp_path):
  for kind in ('red', 'blue'):
    for start in ('', 'in/net'):
      write_run(tmp_path / f'{kind}{start[:2]}', noise=of(kind, 0.4, 0.3),
                checkpoint_path=start)
  found = read_groups(tmp_path)
  drawn = panels.draw(found, str(tmp_path))
  assert set(drawn) == {*study.CAPTIONS, 'accuracy_vs_step.png'}
  blocks_ = page.page(runs.read([str(tmp_path)]), found, drawn, 5)
  shown = [block.picture for block in blocks_ if block.picture]
  assert sorted(shown) == sorted(drawn)
  (title, (blue, red)), _ = panels._contrast_panels(
      study.kinds(found), study.realised)
  assert 'resnet32, 100 steps\nmentormix' in title
  assert (blue.label, red.label) == ('blue', 'red')
  assert (blue.look, red.look) == (3, 4)
  assert blue.points == [(pytest.approx(0.3), 80, None)]


def test_all_methods(tmp_path):
  names = config_lib.METHODS
  for name in names:
    for level in (0.2, 0.4):
      write_run(tmp_path / f'{name}{level}', noise=of('red', level),
                method=name)
  levels, paired = tables(tmp_path)['cifar10, red, resnet32, 100 steps']
  assert len(levels) == 1 + 3 * len(names)  # Final, peak and drop.
  assert len(paired) == len(paired[0]) == 1 + len(names)
  assert panels.draw(read_groups(tmp_path), str(tmp_path))


# The held-out part.


def test_held_out_results_are_never_test_results(tmp_path):
  write_run(tmp_path / 'a', (), of('red', 0.4), held_out=(0.1, 0.9))
  write_run(tmp_path / 'b', (0.1, 0.7), of('red', 0.4), held_out=(0.9, 0.1))
  write_results(tmp_path / 'a' / 'my_holdout_2', (0.1, 0.9))
  only, both = runs.read([str(tmp_path)])
  assert (only.state, only.peak, only.picked) == (runs.NO_RESULTS, None, None)
  assert [r.top1 for r in only.holdout_results] == [0.1, 0.9]
  # Best on the held-out images is the first checkpoint.
  assert (both.last, both.peak, both.picked) == (70, 70, 10)


def test_the_first_of_equals_and_only_steps_of_both(tmp_path):
  """0, 50 and 100 are in the test results; 25 and 75 are not."""
  write_run(tmp_path / 'a', (0.1, 0.6, 0.5), of('red', 0.4),
            held_out=(0.1, 0.5, 0.4, 0.5, 0.4))
  assert runs.read([str(tmp_path)])[0].picked == 60


def test_held_out_results_that_end_early_pick_nothing(tmp_path):
  write_run(tmp_path / 'a', (0.1, 0.2), of('red', 0.4), held_out=(0.3,))
  assert runs.read([str(tmp_path)])[0].picked is None


@pytest.mark.parametrize('noise', [of('red', 0.4), NOISE, None])
def test_held_out_results_of_other_images(tmp_path, noise):
  """Of 400 images; 140 or none were held out."""
  write_run(tmp_path / 'a', noise=noise)
  write_results(tmp_path / 'a' / 'holdout', (0.1, 0.2))
  with pytest.raises(UserError, match='is not about the images held out'):
    runs.read([str(tmp_path)])


@pytest.mark.parametrize('folder,data,words', [
    ('holdout', of('red', 0.4, holdout=0.1), None),
    ('holdout', of('red', 0.6, holdout=0.1), 'not about the images held out'),
    ('holdout', dict(noise_type=None), 'not about the images held out'),
    ('eval', dict(noise_type=None, rate_asked=0.0), None),
    ('eval', of('red', 0.4, holdout=0.1), 'held-out images with noisy labels')])
def test_which_data_results_are_about(tmp_path, folder, data, words):
  write_run(tmp_path / 'a', (0.1, 0.3, 0.2), of('red', 0.4, holdout=0.1),
            held_out=(0.1, 0.9, 0.8))
  (tmp_path / 'a' / folder / 'data.json').write_text(json.dumps(data))
  if words:
    with pytest.raises(UserError, match=words):
      runs.read([str(tmp_path)])
  else:
    assert runs.read([str(tmp_path)])[0].picked == 30
