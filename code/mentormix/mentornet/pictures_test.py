"""What the panels show, and the files that are written."""
from matplotlib import figure
import numpy as np
from PIL import Image
from PIL import ImageSequence
import pytest

from mentormix.mentornet import curriculum
from mentormix.mentornet import loss_traces
from mentormix.mentornet import pictures


def _learned(features):
  """A weight that tells the features apart."""
  loss, d, label, epoch = features.T
  assert not label.any()
  return 1 / (1 + np.exp(d + 0.1 * loss - 0.01 * epoch))


def _traces():
  """At 20% and at 80%, losses of right labels below 1, of wrong ones above."""
  epoch = np.repeat([20, 80], 100)
  noisy = np.tile(np.repeat([0, 1], 50), 2)
  loss = np.tile(np.linspace(0, 2, 100), 2) + (epoch == 80)
  return loss_traces.Traces(np.arange(200).astype(str), epoch, noisy,
                            np.zeros(200, int), loss)


def _column(v_star=None, traces=None, epoch=0):
  axes = figure.Figure().subplots(3 if v_star else 2)
  column = pictures._Column(axes, _learned, v_star, traces)
  column.show(epoch)
  return column, axes


def test_maps_have_the_loss_upwards_and_the_difference_to_the_right():
  _, axes = _column(curriculum.focal, epoch=40)
  ideal, learned = (np.asarray(ax.images[0].get_array()) for ax in axes[:2])
  centres = (np.arange(120) + 0.5) / 20  # Of 120 cells, on 0 to 6.
  np.testing.assert_allclose(ideal, np.broadcast_to(
      ((1 - np.exp(-centres)) ** 2)[:, np.newaxis], [120, 120]))
  for row, cell in ((0, 0), (30, 100), (119, 5)):
    loss, d = centres[row], centres[cell] - 3
    assert learned[row, cell] == pytest.approx(
        1 / (1 + np.exp(d + 0.1 * loss - 0.4)))
  assert tuple(axes[0].images[0].get_extent()) == (-3, 3, 0, 6)


def test_curves_keep_their_moving_average():
  _, axes = _column(curriculum.focal, epoch=30)
  for k, average in enumerate(pictures.AVERAGES):
    learned, ideal = axes[2].lines[k], axes[2].lines[3 + k]
    d, v = learned.get_data()
    assert d[0] == -average and d[-1] == 3  # No loss is negative.
    np.testing.assert_allclose(
        v, 1 / (1 + np.exp(d + 0.1 * (average + d) - 0.3)))
    np.testing.assert_allclose(
        ideal.get_data(), [d, (1 - np.exp(-average - d)) ** 2])


def test_a_column_turns_to_another_epoch():
  column, axes = _column(epoch=0)
  before = [np.array(axes[0].images[0].get_array()),
            axes[1].lines[0].get_ydata().copy()]
  column.show(90)
  assert (axes[0].images[0].get_array() > before[0]).all()
  assert (axes[1].lines[0].get_ydata() > before[1]).all()


@pytest.mark.parametrize('epoch,first,last', [
    (20, 20, 20), (25, 20, 20), (99, 80, 80), (49, 20, 20), (51, 80, 80)])
def test_traces_around_an_epoch_or_the_nearest(epoch, first, last):
  _, axes = _column(traces=_traces(), epoch=epoch)
  average = np.linspace(0, 2, 100)[69] + (first == 80)
  text = axes[1].texts[0].get_text()
  assert text == f'losses of {first}\u2013{last}%: average {average:.2f}'
  line, = axes[1].lines
  assert line.get_xdata()[0] == pytest.approx(-average)
  offsets = axes[1].collections[0].get_offsets()
  border = 1 + (first == 80) - average  # Between right and wrong labels.
  d, share = np.asarray(offsets).T
  assert (share[d < border - 0.25] == 1).all()
  assert (share[d > border + 0.25] == 0).all()
  heights = [bar.get_height() for bar in axes[1].patches]
  assert max(heights) == 1 and min(heights) == 0
  sizes = axes[1].collections[0].get_sizes()
  np.testing.assert_allclose(
      sizes / sizes.max(), [height for height in heights if height])


@pytest.mark.parametrize('settings', [
    {}, {'v_star': curriculum.focal, 'title': '$x_1$'}, {'traces': _traces()}])
def test_files_are_the_same_each_time(settings, tmp_path):
  for name in ('a', 'b'):
    pictures.draw(str(tmp_path / (name + '.png')), _learned, [60], **settings)
    pictures.animate(str(tmp_path / (name + '.gif')), _learned,
                     epochs=[0, 1, 60], **settings)
  for ending, magic in (('.png', b'\x89PNG'), ('.gif', b'GIF89a')):
    data = (tmp_path / ('a' + ending)).read_bytes()
    assert data.startswith(magic) and b'atplotlib' not in data
    assert data == (tmp_path / ('b' + ending)).read_bytes()


def test_an_animation_is_small_and_repeats(tmp_path):
  path = tmp_path / 'a.gif'
  pictures.animate(str(path), _learned, v_star=curriculum.focal)
  # Older versions of Pillow store pixels that have not changed.
  most = 900000 if int(Image.__version__.split('.')[0]) > 9 else 3000000
  assert path.stat().st_size < most
  with Image.open(str(path)) as image:
    assert (image.n_frames, image.width, image.info['loop']) == (100, 700, 0)
    durations = [frame.info['duration']
                 for frame in ImageSequence.Iterator(image)]
  assert set(durations[:-1]) == {90} and durations[-1] > 1000


def test_the_frames_of_a_gif_are_those_given(tmp_path):
  """The file leaves out unchanged pixels, the picture does not."""
  palette = np.zeros([256, 3], np.uint8)
  palette[:4] = [[250, 0, 0], [0, 250, 0], [0, 0, 250], [90, 90, 90]]
  choice = np.random.RandomState(0).randint(5, size=[6, 40, 30])
  choice[1:, :20] = choice[0, :20]  # Still, and black where 4 is.
  frames = list(palette[choice])
  pictures._write_gif(str(tmp_path / 'a.gif'), frames)
  with Image.open(str(tmp_path / 'a.gif')) as image:
    shown = [np.array(frame.convert('RGB'))
             for frame in ImageSequence.Iterator(image)]
  np.testing.assert_array_equal(shown, frames)
