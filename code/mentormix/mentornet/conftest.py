"""Fixtures for the tests of MentorNets."""
import numpy as np
import pytest

from mentormix import testing
from mentormix.mentornet import weights as weights_lib
from mentormix.runtime import tf


@pytest.fixture(scope='session')
def golden():
  """Numbers that the published code produced, name -> array."""
  return testing.golden()


@pytest.fixture(scope='session')
def weights(golden):
  """Weights of a published MentorNet."""
  return {name: golden['mn/random/' + name] for name, _ in weights_lib.SHAPES}


@pytest.fixture(scope='session')
def random_weights():
  """A function that draws the weights of a network of these sizes."""
  def draw(label=(2, 2), epoch=(100, 5), lstm=1, hidden=20):
    random = np.random.RandomState(1)
    return {name: random.normal(size=shape).astype(np.float32)
            for name, shape in weights_lib.shapes(label, epoch, lstm, hidden)}
  return draw


@pytest.fixture(autouse=True)
def fresh_graph():
  """An empty graph with a seed."""
  tf.reset_default_graph()
  tf.set_random_seed(1)
