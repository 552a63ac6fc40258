"""Tests of what becomes of an image that is no plain JPEG."""
import io

import hypothesis
import numpy as np
from PIL import Image
import pytest

from mentormix import testing
from mentormix.data.photos import pictures
from mentormix.data.photos.testing import jpeg
from mentormix.runtime import tf

RED, BLUE = (255, 0, 0), (0, 0, 255)
WIDTH, HEIGHT = 40, 24


def halves(mode='RGB', left=RED, right=BLUE):
  """A picture of two colours, [HEIGHT, WIDTH]."""
  image = Image.new('RGBA' if len(left) == 4 else 'RGB', (WIDTH, HEIGHT), left)
  image.paste(right, (WIDTH // 2, 0, WIDTH, HEIGHT))
  return image if mode == image.mode else image.convert(mode)


def encoded(image, kind='JPEG', **kwargs):
  stream = io.BytesIO()
  image.save(stream, kind, **kwargs)
  return stream.getvalue()


def decoded(picture):
  """What training sees, by TensorFlow: uint8 [H, W, 3]."""
  with tf.Graph().as_default(), tf.Session() as session:
    return session.run(tf.image.decode_jpeg(picture.jpeg, channels=3))


def assert_halves(pixels, left=RED, right=BLUE, tolerance=60):
  assert pixels.shape == (HEIGHT, WIDTH, 3)
  for columns, colour in ((slice(2, 16), left), (slice(24, -2), right)):
    found = pixels[:, columns].reshape(-1, 3).mean(0)
    assert np.abs(found - colour[:3]).max() < tolerance, found


@pytest.mark.parametrize('image, kwargs', [
    (halves(), {}), (halves('L'), {}), (halves(), dict(progressive=True)),
    (halves().resize((1, 1)), {}), (halves(), dict(comment=b'x'))])
def test_plain_jpeg_keeps_its_bytes(image, kwargs):
  data = encoded(image, **{name: value for name, value in kwargs.items()})
  assert pictures.convert(data) == pictures.Picture(data, False)
  assert pictures.convert(data, WIDTH) == pictures.Picture(data, False)


@pytest.mark.parametrize('data', [
    encoded(halves('CMYK')), encoded(halves(), 'PNG'),
    encoded(halves('P'), 'PNG'), encoded(halves(), 'GIF'),
    encoded(halves(), 'BMP'), encoded(halves(), 'TIFF'),
    encoded(halves(), 'WEBP', quality=90)],
    ids=['cmyk', 'png', 'palette', 'gif', 'bmp', 'tiff', 'webp'])
def test_others_are_encoded_again(data):
  picture = pictures.convert(data)
  assert picture.is_new and picture.jpeg.startswith(b'\xff\xd8\xff')
  assert_halves(decoded(picture))
  assert Image.open(io.BytesIO(picture.jpeg)).mode == 'RGB'


def test_transparent_parts_are_black():
  data = encoded(halves('RGBA', RED + (255,), BLUE + (0,)), 'PNG')
  assert_halves(decoded(pictures.convert(data)), RED, (0, 0, 0))


def test_first_picture_of_an_animation():
  data = encoded(halves(), 'GIF', save_all=True, append_images=[
      Image.new('RGB', (WIDTH, HEIGHT))])
  assert_halves(decoded(pictures.convert(data)))


@pytest.mark.parametrize('orientation', range(2, 9))
def test_turned_as_exif_says(orientation):
  """A camera that was held so has stored what turns into the halves."""
  back = {2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180,
          4: Image.FLIP_TOP_BOTTOM, 5: Image.TRANSPOSE, 6: Image.ROTATE_90,
          7: Image.TRANSVERSE, 8: Image.ROTATE_270}[orientation]
  exif = Image.Exif()
  exif[0x0112] = orientation
  picture = pictures.convert(encoded(halves().transpose(back), exif=exif))
  assert picture.is_new
  assert_halves(decoded(picture))
  assert 0x0112 not in Image.open(io.BytesIO(picture.jpeg)).getexif()


def test_damaged_exif_does_not_matter():
  data = encoded(halves(), exif=b'Exif\0\0II*\0\xff\xff\xff\xffxx')
  assert pictures.convert(data) == pictures.Picture(data, False)


def test_max_side():
  picture = pictures.convert(jpeg(1, (400, 200)), 50)
  assert picture.is_new and decoded(picture).shape == (25, 50, 3)


@pytest.mark.parametrize('data, words', [
    (b'', 'an empty file'), (b'<html>gone</html>', 'a web page'),
    (jpeg(1)[:-200], 'truncated'), (b'nothing', 'no known kind'),
    (jpeg(1)[:30], '.')])
def test_damaged(data, words):
  with pytest.raises(ValueError, match=words):
    pictures.convert(data)


def test_too_large_is_refused(monkeypatch):
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
  with pytest.raises(ValueError, match='exceeds limit'):
    pictures.convert(jpeg(1, (12, 12)))


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(testing.damaged(jpeg(3)))
def test_damaged_bytes_are_kept_or_refused(data):
  try:
    picture = pictures.convert(data)
  except ValueError as error:
    assert str(error)
  else:
    assert picture.jpeg
