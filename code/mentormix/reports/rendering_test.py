"""The files of a report."""
import re

PICTURES = ['accuracy_vs_noise.png', 'accuracy_vs_step.png', 'selection.png',
            'weights.png']


def test_files(written):
  assert sorted(p.name for p in written.iterdir()) == sorted(PICTURES + [
      'mine.txt', 'report.csv', 'report.html', 'report.md', 'runs.csv'])
  for name in PICTURES:
    assert (written / name).read_bytes().startswith(b'\x89PNG')


def test_the_page_is_one_file(written):
  text = (written / 'report.html').read_text(encoding='utf-8')
  assert text.count('src="data:image/png;base64,') == len(PICTURES)
  assert text.count('src=') == len(PICTURES)
  assert not re.search(r'href|https?://|<script|<link|@import|url\(', text)
  assert '<title>Noise &lt;b&gt; &amp; more</title>' in text
  assert 'error: a | b &lt;i&gt;' in text
  assert text.count('<tr>') == text.count('</tr>') > 10
