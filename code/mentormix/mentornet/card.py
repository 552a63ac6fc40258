"""The card of a learned MentorNet: its curriculum, its errors, its making."""
import os
import shlex
import textwrap

from mentormix.mentornet import learning
from mentormix.mentornet import lesson as lesson_lib

_CARD = """\
# {lesson.name}

A frozen MentorNet: it gives every example of a batch a weight v from 0 to 1. It
has learned this curriculum:

> v\\* = {lesson.about}

Here *loss* is the loss of the example, *d* is the loss minus its moving average
and *e* is how far training is, in percent.

![v* and the learned weight]({picture})

{legend}

![The same over the whole training]({animation})

## Distance from v\\*

Absolute error on {rows:,} points that it has not learned from:

| e | points | mean | mean of the worst 1% |
|---|---|---|---|
{table}
{judged}
## How it was learned

{how}

{departures}

Make it again, with `--overwrite` to replace it:

    {remake}

## Use

    python code/cifar_train_mentormix.py --trained_mentornet_dir={path} ...

`{network}` loads on TensorFlow 1.15 and 2.x; `{metrics}` has the numbers above.
"""

_LEGEND = (
    'From top to bottom: v\\* by d and loss; what the network learned; and '
    'both where the loss is a fixed moving average plus d. The hatched corner '
    'cannot occur, because the moving average is never negative.')
_LEGEND_DATA = (
    'Top: the learned weight by d and loss. The hatched corner cannot occur, '
    'because the moving average is never negative. Bottom: the weight for '
    'losses as they were at that time of the training, and which share of '
    'their labels was right (points; the more losses, the larger).')
_JUDGED = (
    'These errors cannot be 0, since a right and a wrong label may have the '
    'same loss. To take the labels of weight 0.5 and more for right, the '
    'others for wrong, holds for {accuracy:.1%} of the points; to go by '
    'd <= 0, as the self-paced curriculum does, for {self_paced:.1%}; to take '
    'all for {most}, for {constant:.1%}. The area under the ROC curve is '
    '{auc:.3f}.')

_POINTS = (
    '{rows:,} points drawn from the published grid (loss 0 to 30, d -5 to 5, e '
    '0 to 99), {held_out_share:.0%} of them held out')
_POINTS_DATA = (
    '{source[rows]:,} losses of {source[samples]:,} examples, '
    '{source[right]:.1%} of their labels right; each loss compared with the '
    'percentiles {source[loss_p_percentiles]} of its time; '
    '{held_out_share:.0%} of the examples held out')
_HOW = (
    '; {loss}; Adam with a rate of {settings[learning_rate]:g}, {schedule}; '
    'gradient norm clipped at {settings[clip_norm]:g}; batches of '
    '{settings[batch_size]}; {settings[max_number_of_steps]:,} steps; '
    '{settings[restarts]} starts, of which the closest was taken; seed '
    '{settings[seed]}; TensorFlow {tensorflow}.')


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
  settings, in_words = metrics['settings'], learning.IN_WORDS
  judged = ''
  if 'judged' in metrics:
    judged = f'\n{textwrap.fill(_JUDGED.format(**metrics["judged"]), 80)}\n'
  how = (_POINTS_DATA if lesson.traces else _POINTS) + _HOW
  return _CARD.format(
      lesson=lesson, rows=metrics['held_out']['rows'],
      table='\n'.join(_table(metrics['held_out'])),
      legend=textwrap.fill(_LEGEND_DATA if lesson.traces else _LEGEND, 80),
      judged=judged, how=textwrap.fill(how.format(
          schedule=in_words[settings['schedule']],
          loss=in_words[settings['loss']], **metrics), 80),
      departures=textwrap.fill(_departures(settings), 80),
      remake=' \\\n      '.join(_command(lesson, metrics, standard, path)),
      path=shlex.quote(path), picture=lesson_lib.PICTURE,
      animation=lesson_lib.ANIMATION, network=lesson_lib.NETWORK,
      metrics=lesson_lib.METRICS)


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


def _table(held_out):
  """The rows of the table of errors: all points, then each phase of several."""
  phases = held_out['phases'] if len(held_out['phases']) > 1 else []
  for part in [held_out] + phases:
    name = ' to '.join(map(str, part.get('epoch_percent', ['all'])))
    yield (f'| {name} | {part["rows"]:,} | {part["mean_absolute_error"]:.6f} | '
           f'{part["worst_1_percent"]:.5f} |')
