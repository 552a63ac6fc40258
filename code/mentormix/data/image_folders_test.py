"""Tests of reading custom images."""
import hashlib
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
  Image.fromarray(RGB.repeat(9, 0)).save(stream, kind, lossless=True)
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


def test_classes_without_a_test_set(folder):
  """They are in the folder itself; the labels are the same."""
  both = read(folder)
  alone = read(folder / 'train')
  assert alone.class_names == both.class_names and not alone.test_ids
  assert alone.test_images.shape == (0, 8, 8, 3)
  assert ['train/' + name for name in alone.train_ids] == both.train_ids
  np.testing.assert_array_equal(alone.train_labels, both.train_labels)
  (folder / 'train' / 'val').mkdir()  # Then train is missing.
  refused(folder / 'train', "No such file.*train/train'")


@pytest.mark.parametrize('data,words', [
    (b'', 'it is an empty file'), (b'GIF89a', 'GIF'),
    (b'text', 'it is no known kind of image'),
    (b'<!doctype html><html>', 'it is a web page'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'is a Git LFS pointer'),
    (b'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1', 'a Windows file such as Thumbs.db'),
    (bytes(4) + b'ftypavif' + bytes(8), 'a HEIF or AVIF image'),
    (b'PK\x03\x04' + bytes(30), 'it is a zip archive'),
    (b'<?xml version="1.0"?><svg>', 'an XML file, such as an SVG drawing'),
    (bytes(4) + b'ftypisom' + bytes(8), 'it is a video'),
    (b'\x89PNG\r\n\x1a\n', ''), (b'\xff\xd8\xff', ''),
    (encoded('PNG')[:200], ''), (encoded('JPEG')[:800], '')])
def test_files_that_are_not_images(folder, data, words):
  (folder / 'val' / 'dog' / 'x.jpg').write_bytes(data)
  refused(folder, f'val/dog/x.jpg cannot be read as an image .*{words}.*'
                  'replace or remove it, or pass --max_bad_records=1')
  with pytest.raises(UserError) as caught:
    read(folder)
  assert '0x' not in str(caught.value)


@pytest.mark.parametrize('kind', ['BMP', 'GIF', 'WEBP', 'TIFF', 'PPM'])
def test_other_kinds_of_images_are_read(folder, kind):
  (folder / 'val' / 'dog' / 'x.jpg').write_bytes(encoded(kind))
  images = read(folder)
  found = images.test_images[images.test_ids.index('val/dog/x.jpg')]
  expected = np.asarray(Image.fromarray(RGB.repeat(9, 0)).resize(
      [8, 8], Image.BICUBIC)).astype(int)
  difference = np.abs(found - expected)
  assert difference.mean() < (15 if kind == 'GIF' else 0.2)  # 256 colours.


def test_all_bad_images_are_named_at_once_or_left_out(folder, capsys):
  bad = ['train/cat/1.png', 'train/dog/0.png', 'val/cat/0.png']
  for name in bad:
    (folder / name).write_bytes(b'bad')
  refused(folder, r'3 bad images, with --max_bad_records=0; .*the first: ')
  said = capsys.readouterr().out
  assert said.count('bad: ') == 3 and all(name in said for name in bad)
  found = image_folders.find(str(folder))
  with pytest.raises(UserError, match='3 bad images, with --max_bad_records=2'):
    image_folders.read(found, 8, 2)
  capsys.readouterr()
  images = image_folders.read(found, 8, 3)
  said = capsys.readouterr().out
  assert all(name in said for name in bad) and '3 bad images are left' in said
  assert images.usable.tolist() == [True, False, True, False, True, True]
  assert len(images.train_ids) == 6 and images.test_ids == ['val/dog/0.png']
  assert images.test_labels.tolist() == [1]
  assert images.test_images[:, 0, 0, 0].tolist() == [100]


def test_folders_named_by_numbers_sort_by_number(tmp_path):
  for k in range(12):
    for split in ('train', 'val'):
      (tmp_path / split / str(k)).mkdir(parents=True)
      Image.fromarray(np.full([8, 8, 3], k, np.uint8)).save(
          str(tmp_path / split / str(k) / 'x.png'))
  images = read(tmp_path)
  assert images.class_names == tuple(map(str, range(12)))
  for labels, pixels in ((images.train_labels, images.train_images),
                         (images.test_labels, images.test_images)):
    assert labels.tolist() == pixels[:, 0, 0, 0].tolist() == list(range(12))
  (tmp_path / 'train' / '3').rename(tmp_path / 'train' / 'three')
  (tmp_path / 'val' / '3').rename(tmp_path / 'val' / 'three')
  assert read(tmp_path).class_names[:3] == ('0', '1', '10')


def test_one_class_in_two_unicode_forms(folder):
  composed, decomposed = 'caf\u00e9', 'cafe\u0301'
  (folder / 'train' / 'cat').rename(folder / 'train' / composed)
  (folder / 'val' / 'cat').rename(folder / 'val' / decomposed)
  images = read(folder)
  assert images.class_names == (composed, 'dog')
  assert images.train_ids[0] == f'train/{composed}/0.png'
  assert images.test_ids[0] == f'val/{decomposed}/0.png'
  (folder / 'train' / decomposed).mkdir()
  refused(folder, 'has the class .* twice, in two Unicode forms')


def test_files_of_windows_are_ignored(folder):
  for name in ('train/cat/Thumbs.db', 'train/desktop.ini'):
    (folder / name).write_bytes(b'x')
  assert len(read(folder).train_ids) == 6


@pytest.mark.parametrize('shape,expected', [
    ((100, 140), '05d18843'), ((300, 20), '4df155df'),
    ((20, 100), 'db5e7d06'), ((20, 20), '97d4224d')])
def test_resizing_is_the_same_with_every_pillow(folder, shape, expected):
  """Pillow 9.5 resizes the width first, newer versions what is cheaper."""
  pixels = np.random.RandomState(0).randint(0, 256, shape + (3,))
  found = decoded(folder, Image.fromarray(pixels.astype(np.uint8)),
                  image_size=32)
  assert hashlib.md5(found.tobytes()).hexdigest()[:8] == expected


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
  monkeypatch.setattr(image_folders, 'MAX_BYTES', 20)
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
  refused(folder, 'encoding of the locale; set LC_ALL=C.UTF-8, or rename')
