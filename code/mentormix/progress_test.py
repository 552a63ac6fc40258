"""Progress as log lines; hooks_test.py has the bar on a terminal."""
import re

import pytest

from mentormix import progress


def test_a_line_has_figures_rate_and_remaining_time(capsys):
  shown = progress.Progress(4, 10)
  assert shown.is_due()
  shown.show(7, loss='0.5', selected='50%')
  assert not shown.is_due()  # For a while.
  shown.close(10)
  line, = capsys.readouterr().out.splitlines()
  assert re.search(r'step 7/10 \(70.0%\)  loss 0.5  selected 50%  \S+ step/s  '
                   r'0:00:00 left$', line)


@pytest.mark.parametrize('seconds,text', [
    (0, '0:00:00'), (61.4, '0:01:01'), (3599.6, '1:00:00'),
    (100 * 3600 + 5, '100:00:05')])
def test_duration(seconds, text):
  assert progress._duration(seconds) == text
