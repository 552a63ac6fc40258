"""What several tests share."""
import os

import numpy as np


def golden():
  """Numbers that the published code produced, name -> array."""
  path = os.path.join(os.path.dirname(__file__), 'testdata', 'published.npz')
  with np.load(path) as arrays:
    return dict(arrays)
