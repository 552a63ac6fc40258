"""The CSV files of a report."""
import csv
import io

from mentormix.reports import page


def group_rows(groups, last_k):
  """The rows of report.csv, dicts; '' stands where there is no figure."""
  rows = []
  for group in groups:
    row = dict(_task_columns(group.task), method=group.method,
               group=group.label, runs=len(group.runs),
               left_out=group.left_out)
    for name, figure in (('last', group.last), ('peak', group.peak),
                         (f'median_of_{last_k}', group.median(last_k))):
      row[f'{name}_mean'] = _number(figure.mean)
      row[f'{name}_deviation'] = _number(figure.deviation)
    row['paper'], row['published_code'] = map(
        _number, group.task.published(group.task.noise.level, group.method))
    rows.append(row)
  return rows


def run_rows(runs, last_k):
  """The rows of runs.csv: the state of each run and all its settings."""
  rows = []
  for run in runs:
    row = {'path': run.path, **_task_columns(run.task),
           'method': run.config.method, 'seed': run.config.seed,
           'state': run.state, 'step': run.step,
           'checkpoints': len(run.eval_results), 'last': _number(run.last),
           'peak': _number(run.peak),
           f'median_of_{last_k}': _number(run.median(last_k)),
           'message': run.message}
    rows.append({**row, **run.config._asdict(), **row})
  return rows


def _task_columns(task):
  return {'dataset_name': task.dataset, 'noise': task.noise.name,
          'noise_type': task.noise.kind, 'noise_level': task.noise.level,
          'studentnet': task.student, 'max_number_of_steps': task.steps}


def _number(value):
  return page.number(value, '.4f', missing='')


def to_csv(rows):
  """The text of a CSV file of dicts with the same keys; '' without rows."""
  text = io.StringIO()
  if rows:
    writer = csv.DictWriter(text, rows[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
  return text.getvalue()
