"""Lets tests import from this folder and share the cores."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

if 'PYTEST_XDIST_WORKER' in os.environ:
  # One busy thread per test process. Read when TensorFlow loads.
  os.environ.setdefault('OMP_NUM_THREADS', '1')
  os.environ.setdefault('TF_NUM_INTRAOP_THREADS', '1')
