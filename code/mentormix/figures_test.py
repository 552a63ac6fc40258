"""Running means, means of seeds, and the files that are drawn."""
import numpy as np
import pytest

from mentormix import config as config_lib
from mentormix import figures


def _curve(points, label='mentormix', line=figures.SOLID):
  return figures.Curve(label, 'mentormix', line, points)


def test_running_mean():
  steps, means = figures.smooth([0, 1, 2, 3, 10], [0, 3, 6, np.nan, 5], 2)
  assert steps.tolist() == [0, 1, 2, 10]
  assert means.tolist() == [1.5, 3, 4.5, 5]


def test_running_mean_of_nothing():
  steps, means = figures.smooth([1, 2], [np.nan, np.nan], 5)
  assert len(steps) == len(means) == 0


def test_mean_of_seeds_with_steps_of_their_own():
  """Straight lines join their points; the mean is where both have some."""
  steps, means = figures._mean([([0, 10], [0, 10]), ([4, 6, 20], [1, 3, 17])])
  assert steps.tolist() == [4, 6, 10]
  assert means.tolist() == [(4 + 1) / 2, (6 + 3) / 2, (10 + 7) / 2]


def test_every_method_has_a_look_of_its_own():
  for look in (figures._COLORS, figures._MARKERS):
    assert sorted(look) == sorted(config_lib.METHODS)
    assert len(set(look.values())) == len(look)


@pytest.mark.parametrize('count', [1, 2, 3])
def test_pictures_are_written_and_the_same_each_time(tmp_path, count):
  curves = [_curve([([0, 10], [10, 80]), ([0, 9], [9, 70])]),
            _curve([([0, 10], [5, 6])], 'other')]
  panels = [('$panel^$ %d' % k, curves) for k in range(count)]
  noisy = [('panel %d' % k, [_curve([(0.4, 80, 1.5), (0.2, 90, None)])])
           for k in range(count)]
  for name in ('a.png', 'b.png'):
    figures.over_training(panels, 'accuracy, %', str(tmp_path / name))
    figures.accuracy_vs_noise(noisy, str(tmp_path / ('noise_' + name)))
  for prefix in ('', 'noise_'):
    data = (tmp_path / (prefix + 'a.png')).read_bytes()
    assert data.startswith(b'\x89PNG')
    assert data == (tmp_path / (prefix + 'b.png')).read_bytes()
