"""Feeds damaged files to what reads files: a clean error or a right result.

    python code/fuzz.py --output_dir=runs/fuzz --inputs=100000
    python code/fuzz.py --output_dir=runs/fuzz --parsers=labels,images --seed=7

For developers. Each input is a file of the project's own making, with bytes or
parts of it changed at random; checksums are made right again, so that the
damage gets past them. A parser fails by any exception but UserError (for the
checkpoints of a run, RunError, too), by a result of another type than it
promises, a line without end, more than 1 GiB or 5 seconds of computing, or by
ending the process. Prints a line per parser, and writes what made it fail to
--output_dir: the input, and how it failed as .txt.
A seed gives the same inputs on the same Python.

Exit codes: 0 no parser failed, 1 some did, 2 bad input.
"""
import collections
import contextlib
import copy
import functools
import gzip
import io
import json
import multiprocessing
import os
import pickle
import random as random_lib
import resource
import shutil
import signal
import struct
import tarfile
import tempfile
import time
import traceback
import zipfile
import zlib

from absl import flags
import numpy as np
from PIL import Image

from mentormix import archives
from mentormix import command
from mentormix import config as config_lib
from mentormix import files
from mentormix import image_folders
from mentormix import label_files
from mentormix import loss_traces
from mentormix import noise
from mentormix import pickles
from mentormix import records
from mentormix import results
from mentormix.command import RunError
from mentormix.command import UserError

_MEMORY = 1 << 30  # Bytes above what the process has before the first input.
_SECONDS = 5  # Of computing, for one input.
_STALLED = 120  # Seconds without progress after which a process is ended.
_MAX_LINE = 4000  # Characters of an error, and those of the input.
_MAX_FAILURES = 50  # Of one parser; then it is given up.

_INTEGERS = [0, 1, 2, 3, 4, 127, 128, 255, 256, 32767, 32768, 65535, 65536,
             2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63,
             2**64 - 1]
_TOKENS = [b'NaN', b'1e999', b'-1', b'9' * 30, b'9' * 5000, b'[', b'[]', b'{',
           b'{}', b'null', b'true', b'""', b'"', b',', b',,', b'\n', b'\r',
           b'\0', b'\xff', b'\xef\xbb\xbf', b'\\u0000', b'"\\ud800"', b'1_0',
           b'0x1', b' ', b'-0', b'.5', b'[' * 2000, b'inf', b'index,label\n']
_ODD_VALUES = [None, True, False, -1, 0, 1, 0.5, 2**31, 10**18, 10**40, 1e300,
               float('nan'), float('inf'), '', 'x', '\0', '\ud800', 'x' * 3000,
               [], [1], [[]], {}, {'a': 1}, ['x'], '../x', 'v_star:x']


class Parser(collections.namedtuple('Parser', 'corpus mutate parse')):
  """What is fed with what.

  Attributes:
    corpus: () -> good inputs, a list of bytes.
    mutate: (random, corpus) -> an input, bytes.
    parse: (input, path of a directory for files) -> None. Raises UserError
      for a clean error, AssertionError for a wrong result.
  """
  __slots__ = ()


class _Slow(BaseException):
  """No Exception, since parsers catch these."""


# Changes.


def damage(random, data, others):
  """`data` after one to three changes at random places, and parts of `others`.

  Args:
    random: a random.Random.
    data: bytes.
    others: a list of bytes.
  """
  data = bytearray(data)
  for _ in range(random.choice([1, 1, 1, 2, 3])):
    i, j = sorted(_place(random, len(data)) for _ in range(2))
    kind = random.randrange(10)
    if kind == 0 and data:
      data[min(i, len(data) - 1)] ^= 1 << random.randrange(8)
    elif kind == 1:
      data[i:i + 1] = bytes([random.randrange(256)])
    elif kind == 2:
      del data[j:]
    elif kind == 3:
      del data[i:min(j, i + random.choice([1, 4, 100]))]
    elif kind == 4:
      data[i:i] = random.choice(_TOKENS)
    elif kind == 5:
      data[i:i] = data[i:j][:1000] * random.choice([1, 2, 20])
    elif kind == 6:
      middle = (i + j) // 2
      data[i:j] = data[middle:j] + data[i:middle]
    elif kind == 7:
      size = random.choice([1, 2, 4, 8])
      number = random.choice(_INTEGERS) % 256 ** size
      data[i:i + size] = number.to_bytes(
          size, random.choice(['little', 'big']))
    elif kind == 8:
      data[i:j] = random.choice(_TOKENS)
    else:
      other = random.choice(others)
      data[i:] = other[_place(random, len(other)):]
  return bytes(data)


def _place(random, size):
  """A position, often near one of the ends, where the headers are."""
  reach = random.choice([32, 300, size])
  place = random.randint(0, min(size, reach))
  return random.choice([place, size - place])


def _damaged(random, corpus):
  return damage(random, random.choice(corpus), corpus)


def _damaged_json(random, corpus):
  """One of the corpus with values changed, or with bytes."""
  if random.random() < 0.4:
    return _damaged(random, corpus)
  value = json.loads(random.choice(corpus).decode('utf-8'))
  for _ in range(random.choice([1, 1, 2, 5])):
    holder = value
    keys = list(holder)
    key = random.choice(keys)
    if isinstance(holder[key], (list, dict)) and holder[key] and (
        random.random() < 0.5):
      holder = holder[key]
      key = random.choice(list(holder) if isinstance(holder, dict)
                          else range(len(holder)))
    holder[key] = copy.deepcopy(random.choice(_ODD_VALUES))
  return json.dumps(value).encode('ascii')


# Pickles.


def _pickles():
  values = [{'data': np.zeros([2, 3], np.uint8), 'labels': [1, 2]},
            np.array({'x': np.arange(4)}), np.arange(5), [1, -2, 2**40, 'x'],
            {b'a': (None, True, 70000), 'b': b'x' * 300}]
  return [pickle.dumps(value, protocol=protocol) for value in values
          for protocol in (2, 3, 4)] + [_torch_tensors()]


def _torch_tensors():
  """The pickle of two torch tensors of three numbers each, in storage 0."""
  text = lambda x: b'X' + struct.pack('<I', len(x)) + x.encode('ascii')
  tensor = (
      b'ctorch._utils\n_rebuild_tensor_v2\n((' + text('storage')
      + b'ctorch\nLongStorage\n' + text('0') + text('cpu')
      + b'K\x03tQK\x00K\x03\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR')
  return (b'\x80\x02}(' + text('clean_label') + tensor + text('worse_label')
          + tensor + b'u.')


def _parse_pickle(data, _):
  try:
    value = pickles.Reader(data).read()
  except MemoryError:
    raise
  except Exception as error:
    raise UserError(str(error)[:_MAX_LINE])
  values = list(value.values()) if isinstance(value, dict) else [value]
  for value in values:
    pickles.array(value)
    vector = pickles.tensor(value, {'0': bytes(24)})
    assert vector is None or vector.ndim == 1 and vector.dtype.kind in 'iu'


# Archives.


def _archives():
  from mentormix import testing  # pylint: disable=g-import-not-at-top
  found = []
  with tempfile.TemporaryDirectory() as directory:
    path = os.path.join(directory, 'archive.tar.gz')
    for dumps in (None, lambda x: pickle.dumps(x, protocol=4)):
      testing.write_cifar_archive(path, images_per_batch=1, dumps=dumps)
      found.append(_contents(path))
  return found


def _contents(path):
  with open(path, 'rb') as f:
    return f.read()


def _damaged_archive(random, corpus):
  """Changes in the compressed file, the tar, a header or a member."""
  kind = random.randrange(5)
  if kind == 0:
    return _damaged(random, corpus)
  tar = gzip.decompress(random.choice(corpus))
  if kind == 1:
    return gzip.compress(damage(random, tar, [tar]), 1)
  members = []
  with tarfile.open(fileobj=io.BytesIO(tar)) as source:
    for info in source:
      members.append([info, source.extractfile(info).read()])
  info, data = chosen = random.choice(members)
  if kind == 2:
    for _ in range(random.randint(1, 2)):
      name, value = random.choice([
          ('name', '../../x'), ('name', random.choice(members)[0].name),
          ('name', 'x' * 99), ('size', random.choice(_INTEGERS)),
          ('type', random.choice([bytes([k]) for k in range(48, 60)]
                                 + [b'x', b'g', b'L', b'K', b'S'])),
          ('linkname', '/etc/passwd'), ('mtime', 2**33 - 1)])
      setattr(info, name, value)
  else:
    chosen[1] = damage(random, data, [other for _, other in members])
    info.size = len(chosen[1])
  out = b''.join(
      info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)
      for info, data in members)
  return gzip.compress(out + bytes(1024), 1)


def _parse_archive(data, directory):
  found = archives.read(_file(directory, 'archive.tar.gz', data), 'cifar10')
  for images, labels in ((found.train_images, found.train_labels),
                         (found.test_images, found.test_labels)):
    assert images.shape == (len(labels), 32, 32, 3) and len(labels)
    assert images.dtype == np.uint8 and labels.dtype == np.int64
    assert 0 <= labels.min() and labels.max() < 10
  assert len(found.class_names) == 10
  assert ''.join(found.class_names).encode('utf-8')


def _file(directory, name, data):
  """Writes a file, and returns its path."""
  path = os.path.join(directory, name)
  with open(path, 'wb') as f:
    f.write(data)
  return path


# Label files.


def _labels():
  clean, worse = np.arange(20) % 3, np.arange(20) % 4 % 3
  entries = {'clean_label': clean, 'worse_label': worse}
  npz, npy, lists = io.BytesIO(), io.BytesIO(), {}
  np.savez(npz, **entries)
  np.save(npy, entries)
  for name, labels in entries.items():
    lists[name] = labels.tolist()
  found = [npz.getvalue(), npy.getvalue(), json.dumps(lists).encode('ascii')]
  found += [pickle.dumps(value, protocol=protocol)
            for value in (entries, lists) for protocol in (2, 4)]
  for name, dtype in (('x', 'i8'), ('y', 'u1')):
    stream = io.BytesIO()
    np.savez_compressed(stream, **{name: clean.astype(dtype)})
    found.append(stream.getvalue())
    stream = io.BytesIO()
    np.save(stream, worse.astype(dtype))
    found.append(stream.getvalue())
  with tempfile.TemporaryDirectory() as directory:
    label_files.write(directory, worse, clean, ['image %d' % i
                                                for i in range(20)])
    found += [_contents(os.path.join(directory, name))
              for name in (label_files.JSON_FILE, label_files.CSV_FILE)]
  storage = np.array([0, 1, 2], '<i8').tobytes()
  for pickled in (_torch_tensors(), pickle.dumps(entries, protocol=2)):
    found.append(_zip([('n/data.pkl', pickled), ('n/data/0', storage)]))
  found.append(b''.join(pickle.dumps(part, protocol=2) for part in (
      0x1950a86a20f9469cfc6c, 1001, {}, entries, [])))  # torch before 1.6.
  return found


def _zip(members, method=zipfile.ZIP_STORED):
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w', method) as out:
    for name, data in members:
      out.writestr(name, data)
  return stream.getvalue()


def _damaged_labels(random, corpus):
  """Changes in a file, or in a member of a zip."""
  data = random.choice(corpus)
  if not data.startswith(b'PK') or random.random() < 0.3:
    return damage(random, data, corpus)
  with zipfile.ZipFile(io.BytesIO(data)) as source:
    members = [[name, source.read(name)] for name in source.namelist()]
  chosen = random.choice(members)
  if random.random() < 0.2:
    chosen[0] = random.choice(['x.npy', '../x.npy', 'data.pkl', '/data/0'])
  chosen[1] = damage(random, chosen[1], [data for _, data in members])
  data = _zip(members, random.choice([zipfile.ZIP_STORED,
                                      zipfile.ZIP_DEFLATED]))
  if random.random() < 0.3:  # In the table of contents: sizes, names, kinds.
    place = random.randrange(data.index(b'PK\1\2'), len(data))
    number = random.choice(_INTEGERS) % 2**32
    data = data[:place] + struct.pack('<I', number) + data[place + 4:]
  return data


def _parse_labels(data, directory):
  path = _file(directory, 'labels', data)
  good = _file(directory, 'index', b'[0, 1, 2]')
  errors = []
  for arguments in ((path,), (path, 'worse'), (good, None, path)):
    try:
      found = label_files.read(*arguments)
    except UserError as error:
      errors.append(error)
      continue
    for labels in (found.labels, found.clean, found.index):
      assert labels is None or (labels.dtype == np.int64 and labels.ndim == 1)
    for count in (3, 20):
      try:
        fitted = label_files.fit(found, np.arange(count) % 3, 3)
        assert fitted.shape == (count,) and fitted.dtype == np.int64
        assert 0 <= fitted.min() and fitted.max() < 3
      except UserError as error:
        _check_line(error, data)
  if len(errors) == 3:
    raise errors[0]


# Images.


def _images():
  rgb = np.random.RandomState(0).randint(0, 256, [9, 7, 3]).astype(np.uint8)
  image = Image.fromarray(rgb)
  exif = Image.Exif()
  exif[0x0112] = 6
  found = []
  for made, kwargs in (
      (image, {}), (image.convert('L'), {}), (image.convert('1'), {}),
      (image.convert('LA'), {}), (image.convert('RGBA'), {'exif': exif}),
      (image.quantize(16), {'transparency': 3}),
      (Image.fromarray(rgb[..., 0].astype(np.uint16) * 257), {})):
    found.append(_saved(made, 'PNG', **kwargs))
  for mode in ('RGB', 'L', 'CMYK'):
    for kwargs in ({'exif': exif}, {'progressive': True}):
      found.append(_saved(image.convert(mode), 'JPEG', **kwargs))
  return found


def _saved(image, kind, **kwargs):
  stream = io.BytesIO()
  image.save(stream, kind, **kwargs)
  return stream.getvalue()


def _damaged_image(random, corpus):
  """Changes in a file, or in a chunk of a PNG."""
  data = random.choice(corpus)
  if not data.startswith(archives.PNG_SIGNATURE) or random.random() < 0.3:
    return damage(random, data, corpus)
  chunks, place = [], 8
  while place < len(data):
    size, = struct.unpack('>I', data[place:place + 4])
    chunks.append([data[place + 4:place + 8], data[place + 8:place + 8 + size]])
    place += 12 + size
  for chunk in chunks:
    if chunk[0] == b'IDAT' and random.random() < 0.2:
      chunk[1] = zlib.compress(damage(random, zlib.decompress(chunk[1]), [b'']))
  for _ in range(random.randint(0, 2)):
    chosen = random.choice(chunks)
    kind = random.randrange(4)
    if kind == 0:
      chosen[0] = random.choice([
          b'PLTE', b'tRNS', b'zTXt', b'iTXt', b'tEXt', b'iCCP', b'eXIf',
          b'gAMA', b'acTL', b'fcTL', b'fdAT', b'IEND', b'IHDR'])
    elif kind == 1:
      chunks.insert(random.randrange(len(chunks)), [
          random.choice([b'zTXt', b'iCCP']),
          b'key\0\0' + zlib.compress(bytes(random.choice([9, 9, 9, 2**24])))])
    elif kind == 2:
      chunks.insert(random.randrange(len(chunks)), list(chosen))
    else:
      chosen[1] = damage(random, chosen[1], [b for _, b in chunks])
  return _png(chunks)


def _png(chunks):
  """A PNG file of pairs (name, content), each with its checksum."""
  return archives.PNG_SIGNATURE + b''.join(
      struct.pack('>I', len(content)) + name + content
      + struct.pack('>I', zlib.crc32(name + content) & 0xffffffff)
      for name, content in chunks)


def _parse_image(data, directory):
  for split in ('train', 'val'):
    for name in ('a', 'b'):
      folder = os.path.join(directory, split, name)
      os.makedirs(folder, exist_ok=True)
      _file(folder, '0', _BLACK)
  _file(os.path.join(directory, 'train', 'a'), '0', data)
  found = image_folders.read(image_folders.find(directory), 8)
  assert found.train_images.shape == (2, 8, 8, 3)
  assert found.train_images.dtype == np.uint8
  assert not found.train_images[1].any()


_BLACK = _png([(b'IHDR', struct.pack('>IIBBBBB', 1, 1, 8, 0, 0, 0, 0)),
               (b'IDAT', zlib.compress(b'\0\0')), (b'IEND', b'')])


# Tables.


def _traces():
  with tempfile.TemporaryDirectory() as directory:
    path = os.path.join(directory, 'traces.csv')
    writer = loss_traces.Writer(path, False)
    for percent in (0, 50):
      writer.add([b'%d' % i for i in range(12)], percent, [1, 2] * 6, [1] * 12,
                 np.arange(12) / 7.)
    writer.flush()
    whole = _contents(path)
  more = b''.join(line.replace(b',', b',"x",', 1)
                  for line in whole.splitlines(True))
  return [whole, whole.replace(b'\n', b'\r\n'), b'\xef\xbb\xbf' + more]


def _parse_traces(data, directory):
  found = loss_traces.read(_file(directory, 'traces.csv', data))
  count = len(found.loss)
  assert all(len(column) == count for column in found)
  assert found.loss.dtype == np.float64 and np.isfinite(found.loss).all()
  assert found.epoch_percent.min() >= 0 and found.epoch_percent.max() <= 99
  assert found.noisy_label.min() >= 0 and found.clean_label.min() >= 0
  loss_traces.training_set(found, [0.5])


def _results():
  with tempfile.TemporaryDirectory() as directory:
    path = os.path.join(directory, results.FILE)
    results.write(path, [results.Result(step, 0.5, 0.75, 1.25, 40, 1e9 + step)
                         for step in (5, 10, 15)])
    return [_contents(path)]


def _parse_results(data, directory):
  path = _file(directory, results.FILE, data)
  rows = results.read(path)
  for row in rows:
    assert 0 <= row.top1 <= 1 and 0 <= row.step < 10**18 and row.count >= 0
    assert time.gmtime(row.wall_time) and str(row)
  own, moved = results.of_run(path, 1e9 + 10)
  before = results.read(moved) if moved else []
  if moved:
    os.remove(moved)  # Those of the next input would join them.
  assert len(results.read(path)) == len(own)
  assert set(map(str, rows)) == set(map(str, own + before))


def _dropout():
  return [b'0.0,100', b'0.5,17,0.05,78,1.0,5', b'0.1,50,0.2,50']


def _parse_dropout(data, _):
  from mentormix import schedules  # pylint: disable=g-import-not-at-top
  table = schedules.dropout_table(data.decode('utf-8', 'surrogateescape'))
  assert len(table) == 100 and all(0 <= rate <= 1 for rate in table)


# Settings and facts.


def _facts():
  return [json.dumps(facts).encode('ascii') for facts in (
      {'dataset_name': 'mine', 'num_classes': 2, 'image_size': 8,
       'class_names': ['a', 'b'], 'noise_type': 'symmetric', 'rate_asked': 0.2,
       'rate_realised': 0.19, 'seed': 7}, {'format_version': 2, 'x': [[1]]})]


def _parse_facts(data, directory):
  _file(directory, noise.FACTS_FILE, data)
  facts = noise.read_facts(directory)
  assert isinstance(facts, dict)
  assert noise.read_facts(directory) == facts  # No NaN.


def _settings():
  config = config_lib.TrainConfig(
      data_dir='data', train_log_dir='log', trained_mentornet_dir='mentor')
  facts = {config_lib.STARTED: 1e9, config_lib.MENTORNET_MD5: 'x' * 32}
  return [json.dumps(dict(c._asdict(), **f)).encode('ascii') for c, f in (
      (config, facts),
      (config._replace(method='mixup', seed=2**31, mixup_alpha=1), {}))]


def _parse_settings(data, directory):
  _file(directory, config_lib.CONFIG_FILE, data)
  default = config_lib.TrainConfig()

  def restore():
    config = config_lib.restore(directory)
    for value, expected in zip(config, default):
      assert (isinstance(value, type(expected))
              or isinstance(expected, float) and isinstance(value, int))
    config_lib.validate(config)
    config_lib.save(config, directory)
    assert config_lib.restore(directory) == config

  def resolve():
    config, saved = config_lib.resolve_eval(
        config_lib.EvalConfig(checkpoint_dir=directory))
    assert isinstance(config.dataset_name, str)
    assert isinstance(config.studentnet, str)
    assert abs(saved.get('max_number_of_steps', 0)) < 10**18
    assert time.gmtime(saved.get(config_lib.STARTED, 0))

  def resume():
    for line in config_lib.check_resume(
        default._replace(train_log_dir=directory)):
      assert isinstance(line, str)

  _any_of(data, UserError, resume, resolve, restore)


def _any_of(data, clean, *functions):
  """Calls all functions; UserError if all raise a clean error.

  Args:
    data: the input.
    clean: class of error, or classes.
    *functions: without arguments.
  """
  errors = []
  for function in functions:
    try:
      function()
    except clean as error:
      _check_line(error, data)
      errors.append(str(error))
  if len(errors) == len(functions):
    raise UserError(errors[0])


# MentorNets.


def _graphs():
  # pylint: disable=g-import-not-at-top
  from mentormix import mentornet
  from mentormix import mentornet_weights
  from mentormix.runtime import tf
  random = np.random.RandomState(0)
  found = []
  with tempfile.TemporaryDirectory() as directory:
    mentornet.freeze(
        {name: random.randn(*shape).astype(np.float32)
         for name, shape in mentornet_weights.SHAPES}, directory)
    found.append(_contents(os.path.join(directory, mentornet.FROZEN_GRAPH)))
  for build in (
      lambda x: tf.sigmoid(x[:, 1]),
      lambda x: tf.squeeze(tf.sigmoid(tf.matmul(x, tf.ones([4, 1]))), 1),
      lambda x: tf.maximum(0.0, tf.minimum(1.0, tf.split(x, 4, 1)[1])),
      lambda x: tf.gather(tf.constant([0.25, 1] * 50),
                          tf.cast(tf.clip_by_value(x[:, 3], 0, 99), tf.int32)),
      lambda x: tf.where(x[:, 0] > 1, tf.sigmoid(x[:, 0]),
                         tf.reshape(tf.sigmoid(x[:, 1:2]), [-1]))):
    with tf.Graph().as_default() as graph:
      features = tf.placeholder(tf.float32, [None, 4], name=mentornet.INPUT)
      tf.identity(build(features), name=mentornet.OUTPUT)
    found.append(graph.as_graph_def().SerializeToString())
  return found


def _damaged_graph(random, corpus):
  """Changes in the bytes of a graph, or in its nodes."""
  # pylint: disable=g-import-not-at-top
  from mentormix import mentornet
  from mentormix.runtime import tf
  # The published network takes ten times as long as one of the small ones.
  data = random.choice(corpus if random.random() < 0.4 else corpus[1:])
  if random.random() < 0.2:
    return damage(random, data, corpus)
  graph = tf.GraphDef.FromString(data)
  nodes = list(graph.node)
  for _ in range(random.choice([1, 1, 2, 3])):
    node, other = random.choice(nodes), random.choice(nodes)
    kind = random.randrange(7)
    if kind == 0:
      node.op = random.choice(sorted(mentornet.ALLOWED_OPS))
    elif kind == 1 and node.input:
      node.input[random.randrange(len(node.input))] = random.choice(
          ['', '^', '%s:%d' % (other.name, random.choice([0, 1, 9]))]) or (
              other.name)
    elif kind == 2 and node.attr:
      key = random.choice(sorted(node.attr))
      _damage_attribute(random, node.attr[key])
    elif kind == 3 and node.attr and other.attr:
      node.attr[random.choice(sorted(node.attr))].CopyFrom(
          other.attr[random.choice(sorted(other.attr))])
    elif kind == 4:
      node.name = random.choice([other.name, 'x', '', '/', 'weight'])
    elif kind == 5:
      graph.node.add().CopyFrom(node)
    else:
      constant = random.choice([n for n in nodes if n.op == 'Const'] or nodes)
      _damage_tensor(random, constant.attr['value'].tensor)
      constant.attr['dtype'].type = random.choice(
          [constant.attr['dtype'].type, constant.attr['value'].tensor.dtype])
  return graph.SerializeToString()


def _damage_attribute(random, attribute):
  """Changes the value of an attribute, in its kind."""
  kind = attribute.WhichOneof('value')
  if kind == 'i':
    attribute.i = _signed(random)
  elif kind == 'type':
    attribute.type = random.choice([0, 1, 2, 3, 7, 9, 10, 14, 19, 20, 21, 23])
  elif kind == 'b':
    attribute.b = not attribute.b
  elif kind == 'tensor':
    _damage_tensor(random, attribute.tensor)
  elif kind == 'shape':
    attribute.shape.dim.add().size = _signed(random)
  elif kind == 'list' and attribute.list.i:
    attribute.list.i[0] = _signed(random)
  elif kind == 'list' and attribute.list.shape:
    attribute.list.shape[0].dim.add().size = _signed(random)
  else:
    attribute.s = b'x'


def _damage_tensor(random, tensor):
  """Changes type, shape or elements of a TensorProto."""
  kind = random.randrange(6)
  dims = tensor.tensor_shape.dim
  if kind == 0:
    tensor.dtype = random.choice([0, 1, 2, 3, 7, 9, 10, 14, 19, 20, 21, 23])
  elif kind == 1:
    dims.add().size = _signed(random)
  elif kind == 2 and dims:
    random.choice(list(dims)).size = _signed(random)
  elif kind == 3:
    tensor.tensor_content = damage(random, tensor.tensor_content, [b'\xff' * 8])
  elif kind == 4:
    tensor.tensor_shape.unknown_rank = True
  elif tensor.dtype == 3:
    tensor.int_val[:] = [random.choice([-2**31, -1, 0, 1, 2, 3, 2**31 - 1])
                         for _ in range(max(1, len(tensor.int_val)))]
  else:
    tensor.float_val.extend([random.choice([float('nan'), -1, 1e30])])


def _signed(random):
  number = random.choice(_INTEGERS + [0, 1, 1, 2, 3, 1000, 2500, 10**6])
  return max(-2**63, min(2**63 - 1, random.choice([number, number, -number])))


def _parse_graph(data, directory):
  from mentormix import mentornet  # pylint: disable=g-import-not-at-top
  _file(directory, mentornet.FROZEN_GRAPH, data)
  if b'mentornet/label_embedding' in data:
    assert len(mentornet.weights_of(directory)) == 10
  else:
    assert callable(mentornet.load(directory))


def _checkpoints():
  """Of each the .index, its length before it, and the .data."""
  from mentormix import mentornet_weights  # pylint: disable=g-import-not-at-top
  random = np.random.RandomState(0)
  weights = {name: random.randn(*shape).astype(np.float32)
             for name, shape in mentornet_weights.SHAPES}
  with tempfile.TemporaryDirectory() as directory:
    prefix = os.path.join(directory, 'x')
    mentornet_weights.write_checkpoint(weights, prefix)
    return [_pair(_contents(prefix + '.index'),
                  _contents(prefix + '.data-00000-of-00001'))]


def _pair(index, content):
  return struct.pack('<I', len(index)) + index + content


def _split_pair(data):
  end = 4 + struct.unpack('<I', data[:4])[0]
  return data[4:end], data[end:]


def _damaged_checkpoint(random, corpus):
  """Changes in one of the files, or in the index with its checksum right."""
  index, content = _split_pair(random.choice(corpus))
  kind = random.randrange(4)
  if kind == 0:
    return _pair(index, damage(random, content, [index]))
  if kind == 1:
    return _pair(damage(random, index, [content]), content)
  blocks = _blocks(index)
  start, size = random.choice(blocks[:1] * 2 + blocks)  # The first: variables.
  block = bytearray(index[start:start + size])
  for _ in range(random.randint(1, 2)):
    place = random.randrange(size)
    block[place] = random.choice([0, 1, 2, 127, 128, 255,
                                  random.randrange(256)])
  block = bytes(block) + b'\0'
  checksum = struct.pack('<I', records.masked_crc32c(block))
  return _pair(index[:start] + block + checksum + index[start + size + 5:],
               content)


@functools.lru_cache(maxsize=None)
def _blocks(index):
  """Place and size of each block of an index: its checksum tells."""
  found, start = [], 0
  for end in range(len(index) - 4):
    if index[end + 1:end + 5] == struct.pack(
        '<I', records.masked_crc32c(index[start:end + 1])):
      found.append((start, end - start))
      start = end + 5
  return found


def _parse_checkpoint(data, directory):
  from mentormix import mentornet_weights  # pylint: disable=g-import-not-at-top
  index, content = _split_pair(data)
  _file(directory, 'x.index', index)
  _file(directory, 'x.data-00000-of-00001', content)
  weights = mentornet_weights.read_checkpoint(os.path.join(directory, 'x'))
  assert len(weights) == 10
  for value in weights.values():
    assert value.dtype == np.float32 and np.isfinite(value).all()


# Records.


def _records():
  """TFRecords of three small images each."""
  # pylint: disable=g-import-not-at-top
  from mentormix import datasets
  rgb = np.random.RandomState(0).randint(0, 256, [8, 8, 3]).astype(np.uint8)
  image = Image.fromarray(rgb)
  good = [_saved(image, 'PNG'), _saved(image.convert('L'), 'PNG'),
          _saved(image.quantize(16), 'PNG'), _saved(image, 'JPEG'),
          _saved(image.convert('L'), 'JPEG', progressive=True)]
  return [_frames([datasets.encode_example(
      encoded, label, clean_label, source_id=str(label))
                   for label, encoded in enumerate(chosen)])
          for chosen, clean_label in ((good[:3], 1), (good[2:], None))]


@functools.lru_cache(maxsize=None)
def _other_images():
  """In formats that no data set has."""
  image = Image.new('RGB', [8, 8])
  return [_saved(image, 'GIF'), _saved(image, 'BMP'), _saved(
      image, 'GIF', save_all=True, append_images=[Image.new('RGB', [8, 8], 9)])]


def _frames(contents):
  return b''.join(_frame(struct.pack('<Q', len(data)), data)
                  for data in contents)


def _frame(length, data):
  """A frame of a TFRecord with right checksums."""
  checksum = lambda x: struct.pack('<I', records.masked_crc32c(x))
  return length + checksum(length) + data + checksum(data)


def _contents_of_frames(data):
  found, at = [], 0
  while at < len(data):
    size, = struct.unpack('<Q', data[at:at + 8])
    found.append(data[at + 12:at + 12 + size])
    at += 16 + size
  return found


def _damaged_records(random, corpus, copies=1):
  """Changes in the file, or in some of the records."""
  contents = _contents_of_frames(random.choice(corpus)) * copies
  if random.random() < 0.1:
    return damage(random, _frames(contents), corpus)
  frames = [_frames([data]) for data in contents]
  for _ in range(random.choice([1, len(contents) // 6 + 1])):
    place = random.randrange(len(contents))
    data = contents[place]
    kind = random.randrange(6)
    if kind == 0:
      number = random.choice(_INTEGERS + [2**60, len(data) + 16])
      frames[place] = _frame(struct.pack('<Q', number), data)
    elif kind == 1:
      frames[place] = _frames([damage(random, data, contents)])
    else:
      frames[place] = _frames([_damaged_example(random, data, kind < 4)])
  return b''.join(frames)


def _damaged_example(random, data, in_image):
  """A tf.Example with another image, or with other features."""
  # pylint: disable=g-import-not-at-top
  from mentormix import datasets
  from mentormix.runtime import tf
  example = tf.train.Example.FromString(data)
  feature = example.features.feature
  image = feature[datasets.IMAGE].bytes_list.value
  if in_image:
    image[0] = _damaged_image(random, [image[0]] * 5 + _other_images())
    return example.SerializeToString(deterministic=True)
  for _ in range(random.randint(1, 2)):
    chosen = feature[random.choice(sorted(feature))]
    kind = random.randrange(6)
    if kind == 0:
      chosen.Clear()
    elif kind == 1:
      chosen.int64_list.value[:] = [_signed(random)] * random.choice([1, 1, 2])
    elif kind == 2:
      chosen.bytes_list.value[:] = random.choice(
          [[], [b''], [b'raw'], [b'\xff'], [b'x' * 70000], list(image) * 2])
    elif kind == 3:
      chosen.float_list.value[:] = random.choice([[], [1], [float('nan')]])
    elif kind == 4:
      feature[random.choice(['x', '', 'image/height', datasets.CLEAN_LABEL,
                             datasets.FINE_LABEL])].CopyFrom(chosen)
    else:
      chosen.CopyFrom(feature[random.choice(sorted(feature))])
  return example.SerializeToString(deterministic=True)


def _parse_frames(data, directory):
  """What `_parse_records` does before TensorFlow decodes an image."""
  from mentormix import datasets  # pylint: disable=g-import-not-at-top
  path = _file(directory, 'mine_train-00000-of-00001', data)
  dataset = datasets.Dataset('mine', 3, 8, datasets.LABEL)
  end = 0
  with open(path, 'rb') as f:
    for frame in records.walk(path, check_data=True):
      assert frame.offset == end
      end += frame.size
      if not frame.fault:
        fault = datasets._fault(  # pylint: disable=protected-access
            dataset, 'train', records.read(f, frame))
        assert fault is None or len(fault) < _MAX_LINE
  assert end == len(data)


def _parse_records(data, directory):
  from mentormix import datasets  # pylint: disable=g-import-not-at-top
  path = _file(directory, 'mine_train-00000-of-00001', data)
  dataset = datasets.Dataset('mine', 3, 8, datasets.LABEL)

  def check(paths, count):
    assert count
    found = datasets.decode(dataset, 'train', paths, count)
    assert found['image'].shape == (count, 8, 8, 3)
    assert found['image'].dtype == np.uint8
    for item, least in (('label', 0), ('clean_label', datasets.UNKNOWN_LABEL)):
      assert found[item].shape == (count,) and found[item].dtype == np.int64
      assert least <= found[item].min() and found[item].max() < 3
    assert all(isinstance(x, bytes) for x in found['source_id'])

  def all_good():
    check(*datasets.check_files(dataset, 'train', [path]))

  def without_the_bad():
    with contextlib.redirect_stdout(io.StringIO()):  # Which they are.
      good = datasets.check_files(dataset, 'train', [path], len(data),
                                  os.path.join(directory, 'good'))
    try:
      check(*good)
    except UserError as error:
      raise AssertionError('a bad record was left: %s' % error)

  _any_of(data, UserError, all_good, without_the_bad)


# Students.


_STUDENT = {'net/w': [3, 3, 2, 4], 'net/b': [4], 'net/average': []}


def _students():
  """Checkpoints of both forms, as of `_pair`; arrays have no .index."""
  from mentormix.runtime import tf  # pylint: disable=g-import-not-at-top
  random = np.random.RandomState(0)
  values = {name: random.standard_normal(shape).astype(np.float32)
            for name, shape in _STUDENT.items()}
  found = []
  with tempfile.TemporaryDirectory() as directory:
    prefix = os.path.join(directory, 'x')
    with tf.Graph().as_default(), tf.Session() as session:
      for name, value in values.items():
        tf.get_variable(name, initializer=tf.constant(value))
      tf.train.create_global_step()
      session.run(tf.global_variables_initializer())
      tf.train.Saver().save(session, prefix, write_meta_graph=False)
    found.append(_pair(_contents(prefix + '.index'),
                       _contents(prefix + '.data-00000-of-00001')))
  for save in (np.savez, np.savez_compressed):
    stream = io.BytesIO()
    save(stream, **values)
    found.append(_pair(b'', stream.getvalue()))
  return found


def _damaged_student(random, corpus):
  data = random.choice(corpus[:1] * 2 + corpus[1:])
  index, content = _split_pair(data)
  if index:
    return _damaged_checkpoint(random, [data])
  return _pair(b'', _damaged_labels(random, [content]))


def _parse_student(data, directory):
  from mentormix import checkpoints  # pylint: disable=g-import-not-at-top
  directory = os.path.join(directory, 'train')
  shutil.rmtree(directory, ignore_errors=True)
  os.mkdir(directory)
  index, content = _split_pair(data)
  path = os.path.join(directory, 'model.ckpt-7')
  if index:
    _file(directory, 'model.ckpt-7.index', index)
    _file(directory, 'model.ckpt-7.data-00000-of-00001', content)
  else:
    path = _file(directory, 'model.ckpt-7.npz', content)

  def read():
    values = checkpoints.read(path, _STUDENT, 'it')
    assert sorted(values) == sorted(_STUDENT)
    for name, value in values.items():
      assert list(value.shape) == _STUDENT[name]
      assert value.dtype == np.float32

  def recover():
    assert checkpoints.recover(directory)[0] == 7

  _any_of(data, (UserError, RunError), read, recover)


# The list of checkpoints.


def _lists():
  """As TensorFlow writes it, in a directory that stayed or was moved."""
  return [('model_checkpoint_path: "%smodel.ckpt-7"\n' % before + ''.join(
      'all_model_checkpoint_paths: "%smodel.ckpt-%d"\n' % (before, step)
      for step in (5, 7)) + 'last_preserved_timestamp: 1.5e+09\n').encode(
          'ascii') for before in ('', '/elsewhere/', '../')]


def _damaged_list(random, corpus):
  """Changes of bytes, or of a path."""
  data = random.choice(corpus)
  if random.random() < 0.5:
    return damage(random, data, corpus)
  parts = data.split(b'"')
  parts[random.choice(range(1, len(parts), 2))] = random.choice([
      b'../model.ckpt-7', b'../outside/model.ckpt-7', b'/etc/passwd', b'', b'.',
      b'..', b'/', b'model.ckpt-5', b'model.ckpt-9', b'model.ckpt-*', b'*',
      b'model.ckpt-7.index', b'./model.ckpt-7', b'sub/model.ckpt-5', b'\\000',
      b'model.ckpt-' + b'7' * 4000, b'\xff', b'~/x-7', b'x' * 300, b'\\n'])
  return b'"'.join(parts)


def _parse_list(data, directory):
  """Nothing is taken from the directories around it."""
  # pylint: disable=g-import-not-at-top
  from mentormix import checkpoints
  from mentormix import mentornet
  from mentormix import mentornet_weights
  from mentormix.runtime import tf
  inside = os.path.join(directory, 'lists', 'inside')
  around = [os.path.join(directory, 'lists'),
            os.path.join(directory, 'lists', 'outside')]
  for folder, value in [(f, 9) for f in around] + [(inside, 1)]:
    if not os.path.isdir(folder):
      os.makedirs(folder)
      for step in (5, 7):
        mentornet_weights.write_checkpoint(
            {name: np.full(shape, value, np.float32)
             for name, shape in mentornet_weights.SHAPES},
            os.path.join(folder, 'model.ckpt-%d' % step))
  _file(inside, checkpoints.STATE, data)

  def mentor():
    for weights in mentornet.weights_of(inside).values():
      assert (weights == 1).all()

  def training():
    prefixes = {step: os.path.join(inside, 'model.ckpt-%d' % step)
                for step in (5, 7)}
    for step, prefix in checkpoints.find(inside).items():
      assert prefix == prefixes[step]
    try:
      step, lines = checkpoints.recover(inside)
    except (UserError, RunError) as error:
      raise AssertionError('sound checkpoints are refused: %s' % error)
    assert step == 7 and all(isinstance(line, str) for line in lines)
    state = tf.train.get_checkpoint_state(inside)
    assert state.model_checkpoint_path == prefixes[7]
    assert set(state.all_model_checkpoint_paths) <= set(prefixes.values())
    for prefix in prefixes.values():
      assert os.path.isfile(prefix + '.index')

  _any_of(data, UserError, mentor, training)


PARSERS = collections.OrderedDict((
    ('pickles', Parser(_pickles, _damaged, _parse_pickle)),
    ('archives', Parser(_archives, _damaged_archive, _parse_archive)),
    ('labels', Parser(_labels, _damaged_labels, _parse_labels)),
    ('images', Parser(_images, _damaged_image, _parse_image)),
    ('traces', Parser(_traces, _damaged, _parse_traces)),
    ('results', Parser(_results, _damaged, _parse_results)),
    ('dropout', Parser(_dropout, _damaged, _parse_dropout)),
    ('facts', Parser(_facts, _damaged_json, _parse_facts)),
    ('settings', Parser(_settings, _damaged_json, _parse_settings)),
    ('graphs', Parser(_graphs, _damaged_graph, _parse_graph)),
    ('checkpoints', Parser(_checkpoints, _damaged_checkpoint,
                           _parse_checkpoint)),
    ('frames', Parser(_records, _damaged_records, _parse_frames)),
    # Many in a file: starting a session costs most.
    ('records', Parser(_records, functools.partial(_damaged_records, copies=8),
                       _parse_records)),
    ('students', Parser(_students, _damaged_student, _parse_student)),
    ('lists', Parser(_lists, _damaged_list, _parse_list)),
))


# The loop.


def _check_line(error, data):
  """Refuses a UserError that is no clean line."""
  assert len(str(error)) <= _MAX_LINE + len(data), 'a line without end'
  cause = error
  while cause:
    assert not isinstance(cause, MemoryError), 'out of memory'
    cause = cause.__context__


def _on_time(*_):
  raise _Slow('more than %d seconds' % _SECONDS)


def work(name, seed, stop, directory, counts):
  """Feeds a parser; runs in a process of its own, which may end.

  Args:
    name: a key of `PARSERS`.
    seed: of the changes.
    stop: number of inputs.
    directory: for files; `current` in it is the input at hand.
    counts: shared [next input, errors, results, failures]; goes on from there.
  """
  parser = PARSERS[name]
  corpus = parser.corpus()
  folder = os.path.join(directory, 'files')
  os.makedirs(folder, exist_ok=True)
  for data in corpus:
    parser.parse(data, folder)
  with open('/proc/self/statm') as f:
    used = int(f.read().split()[0]) * resource.getpagesize()
  resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
  signal.signal(signal.SIGPROF, _on_time)
  while counts[0] < stop:
    number = counts[0]
    data = parser.mutate(
        random_lib.Random('%s %d %d' % (name, seed, number)), corpus)
    _file(directory, 'current', data)
    failure = None
    try:
      signal.setitimer(signal.ITIMER_PROF, _SECONDS)
      try:
        parser.parse(data, folder)
      finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
      counts[2] += 1
    except UserError as error:
      try:
        _check_line(error, data)
        counts[1] += 1
      except AssertionError:
        failure = traceback.format_exc()
    except (Exception, _Slow):  # pylint: disable=broad-except
      failure = traceback.format_exc()
    if failure:
      counts[3] += 1
      keep(directory, name, seed, number, failure)
      if counts[3] >= _MAX_FAILURES:
        return
    counts[0] = number + 1


def keep(directory, name, seed, number, failure):
  """Copies the input at hand beside `directory`, and says how it failed."""
  path = os.path.join(os.path.dirname(directory),
                      '%s-%d-%d' % (name, seed, number))
  shutil.copyfile(os.path.join(directory, 'current'), path)
  with open(path + '.txt', 'w', errors='backslashreplace') as f:
    f.write(failure)


def fuzz(name, inputs, seed, output_dir):
  """Feeds a parser with damaged files.

  Args:
    name: a key of `PARSERS`.
    inputs: how many.
    seed: of the changes.
    output_dir: where inputs go that make it fail.

  Returns:
    Numbers of inputs, clean errors, results and failures.
  """
  context = multiprocessing.get_context('spawn')
  counts = context.Array('q', 4, lock=False)
  with tempfile.TemporaryDirectory(dir=output_dir) as directory:
    while counts[0] < inputs and counts[3] < _MAX_FAILURES:
      process = context.Process(
          target=work, args=(name, seed, inputs, directory, counts))
      process.start()
      seen, since = None, time.time()
      while process.is_alive() and time.time() - since < _STALLED:
        process.join(1)
        if counts[0] != seen:
          seen, since = counts[0], time.time()
      process.kill()
      process.join()
      if process.exitcode == 0:
        break
      if not os.path.exists(os.path.join(directory, 'current')):
        raise RunError('%s cannot read what is undamaged' % name)
      counts[3] += 1
      keep(directory, name, seed, counts[0],
           'the process ended with exit code %d\n' % process.exitcode)
      counts[0] += 1
  return list(counts)


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_list('parsers', list(PARSERS), 'Which.')
  flags.DEFINE_integer('inputs', 1000, 'For each.', lower_bound=1)
  flags.DEFINE_integer('seed', 0, 'Of the changes.', lower_bound=0)
  flags.DEFINE_string('output_dir', '', 'Where inputs go that make one fail.')
  flags.register_validator('output_dir', bool, 'must be given')


def main():
  """Flags -> a line per parser."""
  args = flags.FLAGS
  for name in args.parsers:
    if name not in PARSERS:
      raise UserError('--parsers: %s is unknown; known are %s'
                      % (name, ', '.join(PARSERS)))
  files.writable_directory(args.output_dir, 'output_dir')
  failed = 0
  for name in args.parsers:
    start = time.time()
    inputs, errors, found, failures = fuzz(
        name, args.inputs, args.seed, args.output_dir)
    print('%-12s %d inputs: %d errors, %d results, %d failures, %d s'
          % (name, inputs, errors, found, failures, time.time() - start),
          flush=True)
    failed += failures
  return command.FAILED if failed else 0


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


if __name__ == '__main__':
  cli()
