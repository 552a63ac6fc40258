"""Tests of reading custom images."""
import io
import os
import struct
import zlib

import numpy as np
from PIL import Image
import pytest

from mentormix.data import image_folders
from mentormix.messages import UserError

GREY = np.random.RandomState(0).randint(0, 256, [8, 8]).astype(np.uint8)
RGB = np.random.RandomState(1).randint(0, 256, [8, 8, 3]).astype(np.uint8)


def encoded(kind):
  """The bytes of an image file."""
  stream = io.BytesIO()
  Image.fromarray(RGB.repeat(9, 0)).save(stream, kind)
  return stream.getvalue()


@pytest.fixture(name='folder')
def fixture_folder(tmp_path):
  """Two classes, with three images each to train on and one to test on."""
  for split, count in (('train', 3), ('val', 1)):
    for k, name in enumerate(('cat', 'dog')):
      directory = tmp_path / split / name
      directory.mkdir(parents=True)
      for i in range(count):
        Image.fromarray(np.full([8, 8, 3], 100 * k + i, np.uint8)).save(
            str(directory / f'{i}.png'))
  return tmp_path


def read(folder, image_size=8):
  return image_folders.read(image_folders.find(str(folder)), image_size)


def decoded(folder, image, name='x.png', image_size=8, **kwargs):
  """What a Pillow image is read as, after being saved."""
  path = str(folder / 'train' / 'cat' / name)
  image.save(path, **kwargs)
  images = read(folder, image_size)
  return images.train_images[images.train_ids.index('train/cat/' + name)]


def refused(folder, words):
  with pytest.raises(UserError, match=words) as caught:
    read(folder)
  assert str(folder) in str(caught.value)


def test_classes_and_order(folder):
  (folder / 'train' / 'cat' / '.hidden').write_text('x')
  (folder / 'val' / '.DS_Store').write_text('x')
  images = read(folder)
  assert images.class_names == ('cat', 'dog') and images.superclass is None
  assert images.train_ids == [f'train/{name}/{i}.png'
                              for name in ('cat', 'dog') for i in range(3)]
  assert images.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
  assert images.train_labels.dtype == np.int64
  assert images.train_images.shape == (6, 8, 8, 3)
  assert images.train_images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
  assert images.test_ids == ['val/cat/0.png', 'val/dog/0.png']
  assert images.test_labels.tolist() == [0, 1]
  assert images.test_images[:, 0, 0, 0].tolist() == [0, 100]


def test_fingerprint_is_of_paths_and_bytes(folder):
  find = lambda: image_folders.find(str(folder)).md5
  first = find()
  (folder / 'train' / 'cat' / '.hidden').write_text('x')
  assert find() == first
  (folder / 'val' / 'dog' / '0.png').rename(folder / 'val' / 'dog' / '1.png')
  renamed = find()
  with open(str(folder / 'val' / 'dog' / '1.png'), 'ab') as stream:
    stream.write(b'x')
  assert len({first, renamed, find()}) == 3


# What an image becomes.


def as_rgb(grey):
  return np.repeat(grey[..., None], 3, axis=2)


def test_modes_without_colour(folder):
  grey = Image.fromarray(GREY)
  assert np.array_equal(decoded(folder, grey), as_rgb(GREY))
  sixteen = Image.fromarray(GREY.astype(np.uint16) * 256 + 77)
  assert np.array_equal(decoded(folder, sixteen), as_rgb(GREY))
  black_and_white = decoded(folder, grey.convert('1'))
  assert set(black_and_white.flat) == {0, 255}


def test_modes_with_colour(folder):
  image = Image.fromarray(RGB)
  assert np.array_equal(decoded(folder, image), RGB)
  palette = image.quantize(64)
  assert np.array_equal(decoded(folder, palette),
                        np.asarray(palette.convert('RGB')))
  smooth = np.add.outer(np.arange(8), np.arange(8))[..., None] * [5, 10, 15]
  image = Image.fromarray(smooth.astype(np.uint8))
  for mode in ('RGB', 'CMYK', 'L'):
    found = decoded(folder, image.convert(mode), 'x.jpg', quality=95)
    expected = np.asarray(image.convert(mode).convert('RGB')).astype(int)
    np.testing.assert_allclose(found, expected, atol=25)


def test_transparent_parts_become_black(folder):
  alpha = np.zeros([8, 8], np.uint8)
  alpha[:4], alpha[4] = 255, 128
  expected = np.where(np.arange(8)[:, None, None] < 4, RGB, 0)
  rgba = Image.fromarray(np.dstack([RGB, alpha]))
  found = decoded(folder, rgba)
  np.testing.assert_allclose(found[4], RGB[4] * (128 / 255), atol=1)
  found = np.array(found)
  found[4] = expected[4]
  assert np.array_equal(found, expected)
  grey = decoded(folder, rgba.convert('LA'))
  assert not grey[5:].any() and grey[:4].any()
  palette = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8), 'P')
  palette.putpalette([200] * 768)
  found = decoded(folder, palette, transparency=9)
  assert not found[1, 1].any() and (found[0] == 200).all()


def test_orientation_is_respected(folder):
  exif = Image.Exif()
  exif[0x0112] = 6  # To be turned clockwise.
  smooth = np.repeat(np.arange(0, 256, 32), 8).reshape(8, 8).astype(np.uint8)
  found = decoded(folder, Image.fromarray(smooth), 'x.jpg', exif=exif,
                  quality=95)
  np.testing.assert_allclose(found[..., 0].astype(int), np.rot90(smooth, -1),
                             atol=10)


def test_resizing_is_antialiased_and_fills_the_square(folder):
  stripes = np.zeros([64, 32], np.uint8)
  stripes[:, ::2] = 255
  found = decoded(folder, Image.fromarray(stripes), image_size=8)
  assert found.shape == (8, 8, 3)
  np.testing.assert_allclose(found, 127, atol=12)
  halves = np.repeat([[0, 255]], 16, axis=0).repeat([10, 30], axis=1)
  found = decoded(folder, Image.fromarray(halves.astype(np.uint8)))
  assert found[:, 0].max() < 20 and found[:, 3:].min() > 235


# What is refused.


def test_layout(folder):
  refused(folder / 'none', "No such file.*none/train'")
  (folder / 'train' / 'emu').mkdir()
  refused(folder, 'needs two classes or more, and images in each folder')
  (folder / 'val' / 'gnu').mkdir()
  refused(folder, 'val/gnu is not a class of train')
  (folder / 'val' / 'gnu').rmdir()
  (folder / 'train' / 'emu').rmdir()
  (folder / 'train' / 'emu').write_text('x')
  refused(folder, "Not a directory: '.*train/emu'")


@pytest.mark.parametrize('data', [
    b'', b'GIF89a', b'text', b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff',
    encoded('BMP'), encoded('PNG')[:200], encoded('JPEG')[:800]])
def test_files_that_are_not_images(folder, data):
  (folder / 'val' / 'dog' / 'x.png').write_bytes(data)
  refused(folder, 'val/dog/x.png cannot be read as PNG or JPEG')


@pytest.mark.parametrize('size', [30000, 2000000])
def test_bombs(folder, size):
  """A few bytes that claim to be a large image."""
  path = folder / 'train' / 'cat' / '0.png'
  data = path.read_bytes()
  header = b'IHDR' + struct.pack('>II', size, size) + data[24:29]
  path.write_bytes(data[:12] + header + struct.pack('>I', zlib.crc32(header))
                   + data[33:])
  refused(folder, 'cat/0.png cannot be read .*pixels. exceeds limit of')


def test_a_file_that_is_too_large(folder, monkeypatch):
  monkeypatch.setattr(image_folders, '_MAX_BYTES', 20)
  refused(folder, 'cat/0.png cannot be read .*has more than 0 MiB')


def test_links(folder):
  cat = folder / 'train' / 'cat'
  (cat / 'link.png').symlink_to(cat / '0.png')
  (folder / 'train' / 'dog2').symlink_to(folder / 'train' / 'dog')
  images = read(folder)
  assert images.class_names == ('cat', 'dog', 'dog2')
  assert len(images.train_labels) == 10
  (cat / 'bad.png').symlink_to(folder)
  refused(folder, "Is a directory: '.*bad.png'")


def test_names_that_are_not_utf8(folder):
  try:
    os.mkdir(os.fsencode(str(folder / 'train')) + b'/\xff')
  except OSError:
    pytest.skip('this file system has only names in UTF-8')
  (folder / 'train' / os.fsdecode(b'\xff') / '0.png').write_bytes(b'x')
  refused(folder, 'cannot be read .*utf-8')
