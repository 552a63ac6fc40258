"""The command as users run it, and what it writes."""
import os

import export_mentornet
import numpy as np
import pytest

from mentormix import testing
from mentormix.mentornet import frozen_graph
from mentormix.mentornet import loading
from mentormix.mentornet import network
from mentormix.mentornet import weights as weights_lib
from mentormix.runtime import tf

SCRIPT = os.path.abspath(export_mentornet.__file__)
OTHER_PYTHON = os.environ.get('MENTORMIX_OTHER_PYTHON')
CHECKPOINT = {'checkpoint', 'model.ckpt.index',
              'model.ckpt.data-00000-of-00001'}


def _run(cwd, *args, python=None):
  if python:
    return testing.run(SCRIPT, cwd, *args, python=python)
  return testing.run_command(export_mentornet, *args, cwd=cwd)


def _freeze(directory, **sizes):
  """Freezes random weights; returns them."""
  sizes = dict(dict(label=(2, 2), epoch=(100, 5), lstm=1, hidden=20), **sizes)
  random = np.random.RandomState(1)
  weights = {name: random.normal(size=shape).astype(np.float32)
             for name, shape in weights_lib.shapes(**sizes)}
  directory.mkdir()
  frozen_graph.freeze(weights, str(directory))
  return weights


def _weigh(path):
  return loading.apply_network(
      loading.load(str(path)), frozen_graph.probe_points())


def _names(path):
  return {p.name for p in path.iterdir()}


@pytest.mark.parametrize('sizes,python', [
    (dict(label=(10, 3), epoch=(50, 2), lstm=5, hidden=7), None),
    pytest.param({}, OTHER_PYTHON, marks=pytest.mark.skipif(
        not OTHER_PYTHON, reason='this machine has one runtime')),
], ids=['here', 'there'])
def test_there_and_back(sizes, python, tmp_path):
  weights = _freeze(tmp_path / 'ours', **sizes)
  code, out, err = _run(tmp_path, '--trained_mentornet_dir=ours',
                        '--output_dir=new/exported', python=python)
  assert code == 0, err
  assert out.startswith('new/exported: checkpoint; largest difference')
  exported = tmp_path / 'new' / 'exported'
  assert _names(exported) == CHECKPOINT
  assert _names(exported.parent) == {'exported'}
  reader = tf.train.load_checkpoint(str(exported))
  assert set(reader.get_variable_to_shape_map()) == set(weights)
  for name, value in weights.items():
    np.testing.assert_array_equal(reader.get_tensor(name), value)

  code, out, err = _run(
      tmp_path, '--trained_mentornet_dir=new/exported/model.ckpt',
      '--output_dir=back', '--form=frozen', python=python)
  assert code == 0, err
  assert _names(tmp_path / 'back') == {frozen_graph.FROZEN_GRAPH}
  v = _weigh(tmp_path / 'ours')
  for path in (exported, tmp_path / 'back'):
    np.testing.assert_allclose(_weigh(path), v, rtol=0, atol=1e-6)


def test_nothing_is_overwritten_silently(tmp_path):
  _freeze(tmp_path / 'ours')
  _freeze(tmp_path / 'out', lstm=2)
  before = (tmp_path / 'out' / frozen_graph.FROZEN_GRAPH).read_bytes()
  args = '--trained_mentornet_dir=ours', '--output_dir=out'
  code, _, err = _run(tmp_path, *args)
  assert code == 2 and '--overwrite' in err and len(err.splitlines()) == 1
  (tmp_path / 'out' / 'thesis.tex').write_text('years of work')
  code, _, err = _run(tmp_path, '--overwrite', *args)
  assert code == 2 and 'thesis.tex' in err and len(err.splitlines()) == 1
  assert (tmp_path / 'out' / frozen_graph.FROZEN_GRAPH).read_bytes() == before
  (tmp_path / 'out' / 'thesis.tex').unlink()
  code, _, err = _run(tmp_path, '--overwrite', *args)
  assert code == 0, err
  assert _names(tmp_path / 'out') == CHECKPOINT
  assert _names(tmp_path) == {'ours', 'out'}


def test_a_graph_that_is_more_than_its_weights(tmp_path):
  """Constants with the right names, but another formula."""
  weights = _freeze(tmp_path / 'ours')
  with tf.Graph().as_default() as graph:
    features = tf.placeholder(tf.float32, [None, 4], name=frozen_graph.INPUT)
    v = tf.sigmoid(network.network(features, network.constants(weights)))
    tf.multiply(v, 0.999, name=frozen_graph.OUTPUT)
    data = graph.as_graph_def().SerializeToString()
  (tmp_path / 'ours' / frozen_graph.FROZEN_GRAPH).write_bytes(data)
  code, out, err = _run(tmp_path, '--trained_mentornet_dir=ours',
                        '--output_dir=out')
  assert code == 1 and not out and len(err.splitlines()) == 1
  assert 'ours does not compute' in err
  assert _names(tmp_path) == {'ours'}


@pytest.mark.parametrize('source,output,more,named', [
    ('', 'out', '--form=frozen', ['trained_mentornet_dir', 'must be given']),
    ('threshold', '', '--form=frozen', ['output_dir', 'must be given']),
    ('threshold', 'out', '--form=pickle', ['form', 'pickle']),
    ('threshold', '/dev/null', '--overwrite', ['--output_dir=/dev/null']),
    ('threshold', '/dev/null/x', '--overwrite', ['--output_dir=/dev/null']),
    ('threshold', 'out', '--overwrite', ['=threshold is not a network']),
])
def test_mistakes_are_one_line(source, output, more, named, tmp_path):
  code, out, err = _run(tmp_path, '--trained_mentornet_dir=' + source,
                        '--output_dir=' + output, more)
  assert code == 2 and not out
  assert len(err.splitlines()) == 1
  for text in named:
    assert text in err
  assert not list(tmp_path.iterdir())
