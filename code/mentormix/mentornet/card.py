"""The card of a learned MentorNet: its curriculum, its errors, its making.

The text is in templates/card.md.
"""
import os
import shlex
import textwrap

import jinja2

from mentormix.mentornet import learning
from mentormix.mentornet import lesson as lesson_lib


def card(lesson, metrics, standard, path):
  """Makes the README.md of a model.

  Args:
    lesson: the `Lesson`.
    metrics: the content of metrics.json.
    standard: the settings without further flags, a `learning.Settings`.
    path: where the model will be.

  Returns:
    A Markdown text.
  """
  environment = jinja2.Environment(
      loader=jinja2.PackageLoader('mentormix.mentornet'), trim_blocks=True,
      keep_trailing_newline=True)
  environment.filters['fill'] = lambda text: textwrap.fill(
      ' '.join(text.split()), 80)
  held_out = metrics['held_out']
  phases = held_out['phases'] if len(held_out['phases']) > 1 else []
  return environment.get_template('card.md').render(
      metrics, lesson=lesson, files=lesson_lib, in_words=learning.IN_WORDS,
      table=[held_out] + phases, departures=_departures(metrics['settings']),
      command=_command(lesson, metrics, standard, path),
      path=shlex.quote(path))


def _command(lesson, metrics, standard, path):
  """The words of the command that makes the model."""
  source, settings = metrics['source'], metrics['settings']
  words = [f'--curriculum={source.get("file", lesson.name)}']
  words += ['--published'] * metrics['published']
  words += [f'--{name}={settings[name]}'
            for name, value in sorted(standard._asdict().items())
            if settings[name] != value]
  if lesson.traces:
    percentiles = ','.join(map(str, source['loss_p_percentiles']))
    words.append(f'--loss_p_percentiles={percentiles}')
  if path != os.path.join(lesson_lib.MODELS_DIR, lesson.name):
    words.append(f'--output_dir={path}')
  return ['python code/train_mentornet.py'] + list(map(shlex.quote, words))


def _departures(settings):
  """Which settings are not the published ones, in words."""
  changed = [f'{name} is {settings[name]} instead of {value}'
             for name, value in sorted(learning.PUBLISHED._asdict().items())
             if name != 'seed' and settings[name] != value]
  if not changed:
    return 'All as published; the initial weights are small random numbers.'
  return f'Not as published: {"; ".join(changed)}.'
