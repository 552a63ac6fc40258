"""Small sets of photographs in the layouts that are published."""
import io
import json
import re
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

# 1000 sorted ids, with those of the validation images that are known.
IDS = sorted([f'n{k:08d}' for k in range(1000000, 1000995)] + [
    'n01751748', 'n09193705', 'n02105855', 'n04263257', 'n03125729'])


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


def write_webvision(web):
  """A WebVision of few images: original files, three queries, two sites."""
  put(web / 'info' / 'synsets.txt', ''.join(
      f'{wnid} thing {k}, something\n' for k, wnid in enumerate(IDS)))
  google = [('google/q0001/a.jpg', 0), ('google/q0001/b.jpg', 49),
            ('google/q0002/a.jpg', 1), ('google/q0003/c.jpg', 50)]
  flickr = [('flickr/q0001/a.jpg', 0), ('flickr/q0002/d.jpg', 999)]
  for site, rows in (('google', google), ('flickr', flickr)):
    put(web / 'info' / f'train_filelist_{site}.txt', ''.join(
        f'{name} {label}\n' for name, label in rows))
    for name, label in rows:
      put(web / name, jpeg(label + ord(name[0])))
  put(web / 'info' / 'val_filelist.txt', ''.join(
      f'val{k:06d}.jpg {k - 1}\n' for k in range(1, 61)))
  # Counted from 1, unlike the lists; it is not read.
  put(web / 'info' / 'queries_synsets_map.txt', '1 1\n2 2\n3 51\n')
  for k in range(1, 61):
    put(web / 'val_images_256' / f'val{k:06d}.jpg', jpeg(k))


def prepare(cwd, *args, **flags):
  """Runs prepare_data.py; `flags` as of `testing.to_flags`."""
  return testing.run_command(prepare_data, *testing.to_flags(
      **dict(dict(output_dir='out', num_workers=1), **flags)), *args, cwd=cwd)


def ok(finished):
  assert finished.code == 0, finished.err
  return finished.out


def refused(finished, words):
  """Asserts that a command refused its input in one line with a pattern."""
  assert finished.code == 2, finished.err + finished.out
  assert finished.err.count('\n') == 1
  assert re.search(words, finished.err), finished.err


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
