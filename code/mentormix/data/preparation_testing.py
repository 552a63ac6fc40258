"""What the tests of preparing data sets share."""
import json
import os

import numpy as np
from PIL import Image

from mentormix import testing
from mentormix.data import png
from mentormix.data import preparation_settings


def settings(tmp_path, **changes):
  """Settings for a small archive of 200 + 40 images, made if need be."""
  archive = str(tmp_path / 'a.tar.gz')
  if not os.path.exists(archive):
    testing.write_cifar_archive(archive)
  values = preparation_settings.Settings(
      dataset_name='cifar10', archive=archive, output_dir=str(tmp_path / 'out'),
      noise_levels=(0.4,), num_shards=3)
  return values._replace(**changes)


def contents(directory):
  """{path relative to `directory`: bytes} of all files below it."""
  found = {}
  for folder, _, names in os.walk(str(directory)):
    for name in names:
      path = os.path.join(folder, name)
      with open(path, 'rb') as stream:
        found[os.path.relpath(path, str(directory))] = stream.read()
  return found


def facts(tmp_path, level='0.4'):
  return json.loads((tmp_path / 'out' / level / 'noise.json').read_text())


def image_folder(directory, num_classes=2, count=20, size=40):
  """Writes images of a colour per class, 10 per class for val."""
  for split, images in (('train', count), ('val', 10)):
    for k in range(num_classes):
      folder = directory / split / (f'class {k}')
      folder.mkdir(parents=True)
      for i in range(images):
        pixels = np.full([size, size + i, 3], [50 * k, i, 99], np.uint8)
        Image.fromarray(pixels).save(str(folder / (f'{i:03d}.png')))
  return str(directory)


def fail_after(monkeypatch, count, fail):
  """Calls `fail` when record number `count` is about to be encoded."""
  original, calls = png.encode_png, []

  def encode_png(image):
    calls.append(None)
    if len(calls) == count:
      fail()
    return original(image)

  monkeypatch.setattr(png, 'encode_png', encode_png)
