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
  assert [len(x) for x in figures.smooth([1], [np.nan], 5)] == [0, 0]


def test_mean_of_seeds_with_different_steps():
  """Straight lines join their points; the mean is where both have some."""
  steps, means = figures._mean([([0, 10], [0, 10]), ([4, 6, 20], [1, 3, 17])])
  assert steps.tolist() == [4, 6, 10]
  assert means.tolist() == [(4 + 1) / 2, (6 + 3) / 2, (10 + 7) / 2]


def test_every_method_has_a_different_look():
  assert sorted(figures._LOOKS) == sorted(config_lib.METHODS)
  for name in ('color', 'marker'):
    assert len({look[name] for look in figures._LOOKS.values()}) == len(
        figures._LOOKS)


@pytest.mark.parametrize('count', [1, 2, 3])
def test_pictures_are_written_and_the_same_each_time(tmp_path, count):
  curves = [_curve([([0, 10], [10, 80]), ([0, 9], [9, 70])]),
            _curve([([0, 10], [5, 6])], 'other')]
  panels = [(f'$panel^$ {k}', curves) for k in range(count)]
  noisy = [(f'panel {k}', [_curve([(0.4, 80, 1.5), (0.2, 90, None)])])
           for k in range(count)]
  for name in ('a.png', 'b.png'):
    figures.over_training(panels, 'accuracy, %', str(tmp_path / name))
    figures.accuracy_vs_noise(noisy, str(tmp_path / ('noise_' + name)))
  for prefix in ('', 'noise_'):
    data = (tmp_path / (prefix + 'a.png')).read_bytes()
    assert data.startswith(b'\x89PNG')
    assert data == (tmp_path / (prefix + 'b.png')).read_bytes()


def test_frames_of_labelled_images():
  images = np.zeros([10, 32, 32, 3], np.uint8)
  is_wrong = [True] * 7 + [False, None, None]
  titles = ['cat > dog', '$x$ > a_b^c', 'a' * 90 + ' > b'] + [''] * 7
  figure = figures.labelled_images(images, titles, is_wrong, 'caption')
  figure.canvas.draw()
  assert [ax.spines['top'].get_edgecolor()[:2] for ax in figure.axes[6:9]] == [
      (0, pytest.approx(0.5, abs=0.01)), (1, 0),
      (pytest.approx(0.5, abs=0.01),) * 2]
  caption = figure.texts[0].get_text()
  for part in ('caption', 'green frame: the clean label is another (7)',
               'red frame: the clean label is the same (1)',
               'grey frame: the clean label is not known (2)'):
    assert part in caption
  titles = [ax.get_title() for ax in figure.axes]
  assert titles[0] == 'cat > dog' and titles[1].count(r'\$') == 2
  assert max(map(len, titles[2].split('\n'))) <= 16
