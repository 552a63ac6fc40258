"""The card of a learned MentorNet: what it follows, how closely, how it was made."""
import os
import shlex
import textwrap
import typing

from mentormix.mentornet import loss_traces

NETWORK, METRICS = 'mentornet.pb', 'metrics.json'
PICTURE, ANIMATION, CARD = 'curriculum.png', 'curriculum.gif', 'README.md'
FILES = {NETWORK, METRICS, PICTURE, ANIMATION, CARD}
MODELS_DIR = 'mentornet_models'


class Lesson(typing.NamedTuple):
  """What a MentorNet is to learn."""
  name: str  # Of the curriculum.
  about: str  # v* in words, for the card.
  phases: tuple  # (first, last) epoch percentages to report separately.
  v_star: typing.Callable  # The formula (see `curriculum`), or None.
  traces: loss_traces.Traces  # The source if there is no formula, or None.
  learn_from: tuple  # (features [N, 4], v_star [N]).
  held_out: tuple  # The same, to test on.
  facts: dict  # The source, for metrics.json.


ABOUT_DATA = '1 where the label is right, else 0; learned from losses.'

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
  """The README.md of a model.

  Args:
    lesson: the `Lesson`.
    metrics: the content of metrics.json.
    standard: the settings without further flags, name -> value.
    path: where the model will be.

  Returns:
    A Markdown text.
  """
  # pylint: disable=g-import-not-at-top
  from mentormix.mentornet import learning
  in_words = learning.IN_WORDS
  held_out, settings = metrics['held_out'], metrics['settings']
  source = metrics['source'].get('file', lesson.name)
  words = [f'--curriculum={source}']
  words += ['--published'] * metrics['published']
  words += [f'--{name}={settings[name]}' for name in sorted(standard)
            if settings[name] != standard[name]]
  if lesson.traces:
    percentiles = metrics['source']['loss_p_percentiles']
    words.append(f'--loss_p_percentiles={",".join(map(str, percentiles))}')
  if path != os.path.join(MODELS_DIR, lesson.name):
    words.append(f'--output_dir={path}')
  words = ['python code/train_mentornet.py'] + list(map(shlex.quote, words))
  judged = ''
  if 'judged' in metrics:
    judged = f'\n{textwrap.fill(_JUDGED.format(**metrics["judged"]), 80)}\n'
  how = (_POINTS_DATA if lesson.traces else _POINTS) + _HOW
  return _CARD.format(
      lesson=lesson, rows=held_out['rows'], table='\n'.join(_table(held_out)),
      legend=textwrap.fill(_LEGEND_DATA if lesson.traces else _LEGEND, 80),
      judged=judged, how=textwrap.fill(how.format(
          schedule=in_words[settings['schedule']],
          loss=in_words[settings['loss']], **metrics), 80),
      departures=textwrap.fill(_departures(
          settings, learning.PUBLISHED._asdict()), 80),
      remake=' \\\n      '.join(words), path=shlex.quote(path), picture=PICTURE,
      animation=ANIMATION, network=NETWORK, metrics=METRICS)


def _departures(settings, published):
  """Which settings are not the published ones, in words."""
  changed = [f'{name} is {settings[name]} instead of {published[name]}'
             for name in sorted(published)
             if name != 'seed' and settings[name] != published[name]]
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
