"""What several tests share."""
import contextlib
import io
import os
import struct
import subprocess
import sys
import tarfile
import tempfile

from hypothesis import strategies
import numpy as np
import pytest

from mentormix import archives
from mentormix import datasets
from mentormix.runtime import tf


def golden():
  """Numbers that the published code produced, name -> array."""
  path = os.path.join(os.path.dirname(__file__), 'testdata', 'published.npz')
  with np.load(path) as arrays:
    return dict(arrays)


def write_cifar_archive(path, dataset_name='cifar10', images_per_batch=40,
                        seed=0, dumps=None):
  """Writes an archive laid out like the official one, but small.

  Images of one class look alike, so that a network can learn them.

  Args:
    path: of the .tar.gz to write.
    dataset_name: cifar10 or cifar100.
    images_per_batch: of each of the five parts of the training set, and of the
      test set; cifar100 has its five parts in one.
    seed: for the labels and the images.
    dumps: object -> bytes; by default as the official archives were pickled.

  Returns:
    What the archive holds, an `archives.ImageSet`.
  """
  dumps = dumps or python2_pickle
  official = archives.OFFICIAL[dataset_name]
  random = np.random.RandomState(seed)
  names = ['class %d' % k for k in range(official.num_classes)]
  superclass = np.arange(official.num_classes) % 20
  folder = '%s-%s' % (dataset_name[:5], dataset_name[5:])
  members, parts = [], []
  for name in official.train + (official.test,):
    count = images_per_batch
    if len(official.train) == 1 and name != official.test:
      count *= 5
    labels = random.permutation(np.arange(count) % official.num_classes)
    images = _images_of(labels, random)
    parts.append((images, labels))
    content = {
        'batch_label': name, 'filenames': ['%d.png' % i for i in range(count)],
        'data': images.transpose(0, 3, 1, 2).reshape(count, -1),
        official.labels: labels.tolist()}
    if official.coarse:
      content[official.coarse] = superclass[labels].tolist()
    members.append(('%s/%s' % (folder, name), dumps(content)))
  members.append(('%s/%s' % (folder, official.meta),
                  dumps({official.names: names, 'num_vis': 3072})))
  write_tar_gz(path, members)
  return archives.ImageSet(
      train_images=np.concatenate([images for images, _ in parts[:-1]]),
      train_labels=np.concatenate([labels for _, labels in parts[:-1]]),
      test_images=parts[-1][0], test_labels=parts[-1][1],
      superclass=superclass if official.coarse else None,
      class_names=tuple(names))


def _images_of(labels, random):
  """Coarse colour patterns, one per class, under noise: [N, 32, 32, 3]."""
  patterns = np.stack([
      np.random.RandomState(k).randint(0, 256, size=[4, 4, 3])
      for k in range(labels.max() + 1)])
  images = patterns[labels].repeat(8, axis=1).repeat(8, axis=2)
  images = images + random.randint(-20, 21, size=images.shape)
  return np.clip(images, 0, 255).astype(np.uint8)


def write_tar_gz(path, members):
  """Writes a .tar.gz; `members` are pairs (name or TarInfo, bytes)."""
  with tarfile.open(path, 'w:gz', compresslevel=1) as tar:
    for info, data in members:
      if not isinstance(info, tarfile.TarInfo):
        info = tarfile.TarInfo(info)
        info.size = len(data)
      tar.addfile(info, io.BytesIO(data))


def python2_pickle(value):
  """A pickle of plain data and uint8 matrices as Python 2 wrote it."""
  memo = []

  def put():
    memo.append(None)
    return (b'q' + struct.pack('<B', len(memo)) if len(memo) < 256
            else b'r' + struct.pack('<I', len(memo)))

  def encode(x):
    if isinstance(x, dict):
      start = b'}' + put() + b'('
      return start + b''.join(encode(k) + encode(x[k]) for k in x) + b'u'
    if isinstance(x, list):
      start = b']' + put() + b'('
      return start + b''.join(encode(item) for item in x) + b'e'
    if isinstance(x, str):
      return encode(x.encode('ascii'))
    if isinstance(x, bytes):
      length = (b'U' + struct.pack('<B', len(x)) if len(x) < 256
                else b'T' + struct.pack('<i', len(x)))
      return length + x + put()
    if isinstance(x, int):
      return (b'K' + struct.pack('<B', x) if x < 256
              else b'M' + struct.pack('<H', x))
    return b''.join([
        b'cnumpy.core.multiarray\n_reconstruct\n', put(), b'cnumpy\nndarray\n',
        put(), b'K\x00\x85', put(), encode(b'b'), b'\x87', put(), b'R', put(),
        b'(K\x01', encode(x.shape[0]), encode(x.shape[1]), b'\x86', put(),
        b'cnumpy\ndtype\n', put(), encode(b'u1'), b'K\x00K\x01\x87', put(),
        b'R', put(), b'(K\x03', encode(b'|'), b'NNN', b'J\xff\xff\xff\xff' * 2,
        b'K\x00t', put(), b'b\x89', encode(x.tobytes()), b't', put(), b'b'])

  return b'\x80\x02' + encode(value) + b'.'


def run(script, cwd, *args, **kwargs):
  """(exit code, stdout, stderr) of a script, run in a directory.

  Args:
    script: its path.
    cwd: the directory.
    *args: its command line.
    **kwargs: `python`, another interpreter.
  """
  process = subprocess.Popen(
      [kwargs.get('python', sys.executable), script] + list(args),
      cwd=str(cwd), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      universal_newlines=True)
  out, err = process.communicate()
  return process.returncode, out, err


def write_records(path, images, labels, clean_labels=None):
  """Writes a TFRecord file as prepare_data.py does.

  Args:
    path: of the file.
    images: [N, H, W, 3], whole numbers from 0 to 255.
    labels: [N].
    clean_labels: [N]; None where they are not known.
  """
  import prepare_data  # pylint: disable=g-import-not-at-top
  with tf.python_io.TFRecordWriter(str(path)) as writer:
    for n, image in enumerate(images):
      png = prepare_data.encode_png(np.asarray(image, np.uint8))
      clean = None if clean_labels is None else clean_labels[n]
      writer.write(datasets.encode_example(png, labels[n], clean,
                                           source_id=str(n)))


def replace_record(path, index, record):
  """Replaces a record of a TFRecord file.

  Args:
    path: of the file.
    index: of the record.
    record: bytes, the new one.
  """
  records = list(tf.python_io.tf_record_iterator(str(path)))
  records[index] = record
  with tf.python_io.TFRecordWriter(str(path)) as writer:
    for each in records:
      writer.write(each)


@contextlib.contextmanager
def small_disk(size='4m'):
  """Yields a directory on a disk of its own; skips the test if it may not.

  Args:
    size: of the disk, as for mount.
  """
  with tempfile.TemporaryDirectory() as directory:
    if subprocess.call(['mount', '-t', 'tmpfs', '-o', 'size=' + size, 'tmpfs',
                        directory], stderr=subprocess.DEVNULL):
      pytest.skip('only root can mount a disk')
    try:
      yield directory
    finally:
      subprocess.check_call(['umount', '-l', directory])


def fill_disk(directory):
  """Leaves no byte on the disk of a directory."""
  with open(os.path.join(directory, 'filler'), 'wb', buffering=0) as f:
    for size in (1 << 16, 1):
      with contextlib.suppress(OSError):
        while True:
          f.write(bytes(size))


def weights(directory):
  """Name -> value of all variables in the last checkpoint of a directory."""
  reader = tf.train.load_checkpoint(str(directory))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


def assert_same_run(one, other):
  """Two runs end with the same variables, up to how threads add."""
  assert sorted(one) == sorted(other)
  for name in one:
    np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=1e-4,
                               err_msg=name)


@strategies.composite
def damaged(draw, data):
  """Strategy for `data`, bytes, with some bits flipped and perhaps truncated.

  It also draws `data` itself.
  """
  changed = bytearray(data)
  bits = strategies.integers(0, 8 * len(data) - 1)
  for bit in draw(strategies.lists(bits, max_size=3, unique=True)):
    changed[bit // 8] ^= 1 << bit % 8
  length = draw(strategies.just(len(data))
                | strategies.integers(0, len(data) - 1))
  return bytes(changed[:length])
