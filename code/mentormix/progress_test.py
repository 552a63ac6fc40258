"""Progress as log lines; hooks_test.py has the bar on a terminal."""
import re

import pytest

from mentormix import progress


def test_a_line_has_figures_rate_and_remaining_time(capsys):
  shown = progress.Progress(4, 10)
  assert shown.is_due()
  shown.show(7, loss='0.5', speed=lambda rate: f'{2 * rate:.3g}')
  assert not shown.is_due()  # For a while.
  shown.close(10)
  line, = capsys.readouterr().out.splitlines()
  found = re.search(r'step 7/10 \(70.0%\)  loss 0.5  speed (\S+)  (\S+) step/s'
                    r'  0:00:00 left$', line)
  assert float(found.group(1)) == pytest.approx(2 * float(found.group(2)), 0.01)


@pytest.mark.parametrize('seconds,text', [
    (0, '0:00:00'), (61.4, '0:01:01'), (3599.6, '1:00:00'),
    (100 * 3600 + 5, '100:00:05')])
def test_duration(seconds, text):
  assert progress._duration(seconds) == text
