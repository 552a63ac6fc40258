"""Installs the package and its commands.

TensorFlow is left to the extras, since which one is right depends on the
machine: `pip install '.[tf1]'` (Python 3.7 with a GPU), `.[tf1_cpu]`,
`.[tf2_gpu]` or `.[tf2]` (Python 3.9 to 3.13). Exact pins: requirements.txt and
scripts/requirements/.
"""
import os

import setuptools

HERE = os.path.dirname(os.path.abspath(__file__))


def _read(name):
  """Returns the text of a file beside this one, '' if there is none."""
  path = os.path.join(HERE, name)
  if not os.path.exists(path):
    return ''
  with open(path, encoding='utf-8') as f:
    return f.read()


TF1_NEEDS = ['numpy<1.20', 'protobuf<3.21']

setuptools.setup(
    name='mentormix',
    version='1.0.0',
    description='MentorMix: training deep networks on noisy labels',
    long_description=_read('README.md'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.7',
    # The MentorNets that the presets name are installed inside the package.
    package_dir={'': 'code', 'mentormix.mentornet_models': 'mentornet_models'},
    packages=['mentormix'] + ['mentormix.' + wing for wing in (
        'accelerator', 'cluster', 'data', 'data.photos', 'evaluation',
        'mentornet', 'mentornet_models', 'reports', 'students', 'training')],
    py_modules=['cifar_train_mentormix', 'cifar_eval', 'prepare_data',
                'train_mentornet', 'show_mentornet', 'export_mentornet',
                'export_step', 'run_exported', 'report', 'score_labels',
                'estimate_noise', 'fetch_pretrained'],
    package_data={'mentormix': ['templates/*'],
                  'mentormix.data': ['digits.npz'],
                  'mentormix.mentornet': ['templates/*'],
                  'mentormix.mentornet_models': ['*/mentornet.pb'],
                  'mentormix.reports': ['templates/*']},
    install_requires=['absl-py', 'jinja2', 'matplotlib', 'numpy', 'pillow',
                      'pooch>=1.8', 'tf-slim==1.1.0', 'tqdm'],
    extras_require={
        'tf1': ['tensorflow-gpu==1.15.0'] + TF1_NEEDS,
        'tf1_cpu': ['intel-tensorflow==1.15.2'] + TF1_NEEDS,
        'tf2': ['tensorflow>=2.14,<3'],
        'tf2_gpu': ['tensorflow[and-cuda]>=2.14,<3'],
        'jax': ['jax>=0.6'],
        'estimate': ['scikit-learn'],  # For code/estimate_noise.py.
        'photos': ['scipy'],  # Reads the meta.mat of ILSVRC12's devkit.
        'test': ['hypothesis', 'pytest', 'pytest-xdist'],
    },
    entry_points={
        'console_scripts': [
            'mentormix-train=cifar_train_mentormix:cli',
            'mentormix-eval=cifar_eval:cli',
            'mentormix-prepare-data=prepare_data:cli',
            'mentormix-train-mentornet=train_mentornet:cli',
            'mentormix-show-mentornet=show_mentornet:cli',
            'mentormix-export-mentornet=export_mentornet:cli',
            'mentormix-export-step=export_step:cli',
            'mentormix-run-exported=run_exported:cli',
            'mentormix-report=report:cli',
            'mentormix-score-labels=score_labels:cli',
            'mentormix-estimate-noise=estimate_noise:cli',
            'mentormix-fetch-pretrained=fetch_pretrained:cli',
        ],
    },
)
