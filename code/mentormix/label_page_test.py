"""The page of suspicious labels, read as HTML."""
import base64
from html import parser
import io

import numpy as np
from PIL import Image
import pytest

from mentormix import label_page


class _Page(parser.HTMLParser):
  """The pictures and the texts of a page."""

  def __init__(self, text):
    super().__init__()
    self.pictures, self.texts = [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    assert not attrs.get('href')
    if tag == 'img':
      head, _, data = attrs['src'].partition(',')
      assert head in ('data:image/png;base64', 'data:image/jpeg;base64')
      self.pictures.append((attrs['alt'], Image.open(
          io.BytesIO(base64.b64decode(data)))))

  def handle_data(self, data):
    self.texts.append(' '.join(data.split()))


def _example(name, **changes):
  return label_page.Example(name, 'cat', 'dog', 0.012, 0.95, None)._replace(
      **changes)


def _page(tmp_path, examples, **settings):
  images = np.arange(len(examples), dtype=np.uint8)[:, None, None, None] * (
      np.ones([1, 8, 8, 3], np.uint8))
  path = tmp_path / 'page.html'
  label_page.write(str(path), examples, images, 'Suspicious labels of pets', 90,
                   7, 'scores.csv', **settings)
  return _Page(path.read_text(encoding='utf-8'))


def test_it_has_given_and_proposed_class(tmp_path):
  page = _page(tmp_path, [_example('a/1.png'), _example(
      '<b>', given='K\u00e4fer & Co', clean='fox')])
  text = ' '.join(' '.join(page.texts).split())
  assert '2 of 90 images' in text and '7 labels are suspected' in text
  assert 'given cat 1.2% proposed dog 95.0% 1. a/1.png' in text
  assert 'K\u00e4fer & Co' in text and 'right: fox' in text and '2. <b>' in text
  assert text.count('right:') == 1
  assert [name for name, _ in page.pictures] == ['a/1.png', '<b>']
  for n, (_, picture) in enumerate(page.pictures):  # As the student saw them.
    np.testing.assert_array_equal(np.asarray(picture), np.full([8, 8, 3], n))


@pytest.mark.parametrize('bad', [None, b'', b'text'])
def test_it_shows_the_images_of_a_folder(tmp_path, bad):
  """A file that is not there or bad is shown as the student saw it."""
  folder = tmp_path / 'images'
  (folder / 'cat').mkdir(parents=True)
  Image.new('RGB', (480, 120), 'red').save(str(folder / 'cat' / '1.png'))
  if bad is not None:
    (folder / 'cat' / '2.png').write_bytes(bad)
  page = _page(tmp_path, [_example('cat/1.png'), _example('cat/2.png')],
               image_dir=str(folder))
  (_, first), (_, second) = page.pictures
  assert first.size == (240, 60) and first.format == 'JPEG'
  assert np.abs(np.asarray(first)[30, 100] - [254, 0, 0]).max() < 3
  assert second.size == (8, 8)
