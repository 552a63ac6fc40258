"""A report that several tests read."""
import pytest


@pytest.fixture(scope='package')
def written(tmp_path_factory):
  """The directory of a report on eight runs. Only read it."""
  # TensorFlow loads only for the tests that use this.
  from mentormix.reports import rendering
  from mentormix.reports.testing import NOISE, SCORES, WEIGHTS, write_run
  runs = tmp_path_factory.mktemp('runs')
  for seed, last in enumerate((0.7, 0.8, 0.9)):
    write_run(runs / f'mix{seed}', (0.1, 0.95, last), seed=seed,
              events=WEIGHTS, scores=dict(SCORES, auc=None))
  for seed, last in enumerate((0.5, 0.6)):
    write_run(runs / f'plain{seed}', (0.1, last), seed=seed,
              method='cross_entropy', learning_rate=0.2)
  write_run(runs / 'stopped', (0.1, 0.3), max_number_of_steps=101)
  write_run(runs / 'broken', ())
  (runs / 'broken' / 'train.txt').write_text('x.py: error: a | b <i>\n')
  write_run(runs / 'other', noise=dict(NOISE, rate_asked=0.2))
  directory = tmp_path_factory.mktemp('report')
  (directory / 'mine.txt').write_text('stays')
  count = rendering.write([str(runs / 'mix0'), str(runs)], str(directory),
                          title='Noise <b> & more', last_k=2)
  assert count == ('8 runs, 6 finished. Left out of all figures: 1 failed, 1 '
                   'unfinished.')
  return directory
