"""Small sets of photographs in the layouts that are published."""
import io
import json
import tarfile

import numpy as np
from PIL import Image

import prepare_data

from mentormix import testing
from mentormix.data import datasets
from mentormix.data.photos import wnids
from mentormix.runtime import tf

LEVEL = 0.4
WEB = [f'{k:016x}' for k in range(10)]  # Ids of web images.


def jpeg(value, size=(24, 16), **kwargs):
  """The bytes of a JPEG of noise, different for each value."""
  stream = io.BytesIO()
  pixels = np.random.RandomState(value).randint(0, 256, [size[1], size[0], 3])
  Image.fromarray(pixels.astype(np.uint8)).save(stream, 'JPEG', **kwargs)
  return stream.getvalue()


def put(path, data=b''):
  """Writes a file and the folders above it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(data if isinstance(data, bytes) else data.encode('utf-8'))
  return path


def put_tar(path, members):
  """Writes an uncompressed tar of name -> bytes."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(str(path), 'w:') as archive:
    for name, data in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))


def mini_name(label, rank):
  """The name of an image of Mini-ImageNet."""
  return f'{wnids.MINI_IMAGENET[label]}{rank:08d}'


def mini_rows():
  """Rows (name, label) of clean images: three of each of the first classes."""
  return [(mini_name(label, rank), label)
          for label in range(6) for rank in (1, 3, 4)]


def val_rows():
  return [(f'ILSVRC2012_val_{k + 1:08d}', k % 6) for k in range(12)]


def red_rows():
  """Rows of which ten of eighteen are of the web."""
  clean = mini_rows()
  return clean[:8] + [(WEB[k], label) for k, (_, label) in enumerate(clean[8:])]


def blue_rows():
  """The rows in the same order with seven of eighteen labels changed."""
  return [(name, (label + (k < 7)) % 6) for k, (name, label) in enumerate(
      mini_rows())]


def write_annotations(folder, images='mini_imagenet', hyphen='mini-imagenet',
                      classes='class_names.txt', url=None):
  """Writes annotations as they are in dataset_no_images; returns the folder."""
  count = {'mini_imagenet': 100, 'stanford_cars': 196}[images]
  put(folder / hyphen / classes, ''.join(f'class {k}\n' for k in range(count)))
  for name, rows in (('red_noise_nl_0.4', red_rows()),
                     ('blue_noise_nl_0.0', mini_rows()),
                     ('blue_noise_nl_0.4', blue_rows()),
                     ('clean_validation', val_rows())):
    put(folder / hyphen / 'split' / name,
        ''.join(f'{image}.jpg {label}\n' for image, label in rows))
  put(folder / f'{images.replace("_", "-")}-annotations.json', json.dumps({
      'name': 'image-search noisy labels', 'version': '1.0', 'data': [
          [{'image/id': name, 'image/uri': f'{url}/{name}',
            'image/class/label': 1, 'image/class/label/is_clean': 0}]
          for name in WEB]}))
  return folder


def write_images(folder, rows, extension='.jpg'):
  """Writes an image for each row, flat."""
  for name, _ in rows:
    put(folder / f'{name}{extension}', jpeg(value_of(name)))
  return folder


def value_of(name):
  """The seed of the pixels of a name."""
  return sum(map(ord, name)) * 7 + int(name[-4:], 16)


def prepare(cwd, *args, **flags):
  """Runs prepare_data.py; `flags` as of `testing.to_flags`."""
  return testing.run_command(prepare_data, *testing.to_flags(
      **dict(dict(output_dir='out', num_workers=1), **flags)), *args, cwd=cwd)


def records(directory):
  """Source id -> tf.Example features, of all records of a directory."""
  found = {}
  for path in sorted(directory.glob('*-of-*')):
    for record in tf.python_io.tf_record_iterator(str(path)):
      feature = tf.train.Example.FromString(record).features.feature
      name = feature[datasets.SOURCE_ID].bytes_list.value[0].decode('utf-8')
      assert name not in found
      found[name] = {
          key: (list(value.int64_list.value)
                or list(value.bytes_list.value))[0]
          for key, value in feature.items()}
  return found


def facts(directory):
  return json.loads((directory / 'noise.json').read_text())
