"""Tests of downloading web images, from a server of this machine."""
import csv
import http.server
import socketserver
import threading
import time

import pytest

from mentormix.data.photos import fetching
from mentormix.data.photos.testing import (
    facts, jpeg, mini_rows, prepare, put, records, red_rows, refused, val_rows,
    WEB, write_annotations, write_images)

PLACEHOLDER = jpeg(99)


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
  daemon_threads = True


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers /<what>/<id> as its first part says; counts what is asked."""

  def do_GET(self):
    self.server.asked.append(self.path)
    what = self.server.answers.get(self.path.rpartition('/')[2], 'image')
    if what == 'moved':
      self.send_response(302)
      self.send_header('Location', '/other/01')
      self.end_headers()
      return
    if what == 'slow':
      time.sleep(2)
    code = {'dead': 404, 'broken': 500}.get(what, 200)
    body = {'page': b'<html>sorry</html>', 'same': PLACEHOLDER,
            'cut': jpeg(5)[:200]}.get(
                what, jpeg(int(self.path[-2:], 16) + 1))
    self.send_response(code)
    self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def log_message(self, *args):
    pass


@pytest.fixture(name='server')
def fixture_server():
  with _Server(('127.0.0.1', 0), _Handler) as server:
    server.answers, server.asked = {}, []
    server.url = f'http://127.0.0.1:{server.server_port}/x'
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def missing(directory):
  with open(str(directory / 'missing.csv'), newline='') as f:
    return {row['id']: row['reason'] for row in csv.DictReader(f)}


def test_dead_are_listed_and_the_rest_is_kept(tmp_path, server, monkeypatch):
  monkeypatch.setattr(fetching, '_READ_SECS', .5)
  server.answers = dict(zip(WEB, ('dead', 'page', 'cut', 'broken', 'slow',
                                  'moved')))
  urls = dict({name: f'{server.url}/{name}' for name in WEB},
              **{'f' * 16: '', 'e' * 16: 'ftp://x/y', 'd' * 16: 'http://[x'})
  fetching.fetch(urls, str(tmp_path))
  found = missing(tmp_path)
  assert found[WEB[0]] == 'gone: HTTP 404 Not Found'
  assert found[WEB[1]] == 'gone: no image: it is a web page'
  assert found[WEB[2]].startswith('gone: no image: ')
  assert found[WEB[3]].startswith('HTTP 500') and 'Time' in found[WEB[4]]
  assert found['f' * 16] == 'gone: the annotations have no URL'
  assert found['e' * 16].startswith('gone') and found['d' * 16]
  assert {path.stem for path in tmp_path.glob('*.jpg')} == set(WEB[5:])
  assert (tmp_path / f'{WEB[7]}.jpg').read_bytes() == jpeg(8)
  # Started again, it asks only for what may have come back.
  server.asked.clear()
  server.answers = {}
  fetching.fetch(urls, str(tmp_path))
  assert sorted(path[-16:] for path in server.asked) == WEB[3:5]
  assert {path.stem for path in tmp_path.glob('*.jpg')} == set(WEB[3:])


def test_a_picture_of_many_urls_is_a_placeholder(tmp_path, server):
  server.answers = dict.fromkeys(WEB[:5], 'same')
  server.answers.update(dict.fromkeys(WEB[5:6], 'image'))
  fetching.fetch({name: f'{server.url}/{name}' for name in WEB}, str(tmp_path))
  assert {path.stem for path in tmp_path.glob('*.jpg')} == set(WEB[5:])
  assert missing(tmp_path)[WEB[0]].startswith('gone: 5 URLs give this picture')


def test_no_server(tmp_path):
  fetching.fetch({WEB[0]: 'http://127.0.0.1:1/x'}, str(tmp_path))
  assert missing(tmp_path) == {WEB[0]: 'ConnectionError'}


def test_command_makes_the_set_of_what_exists(tmp_path, server):
  write_annotations(tmp_path / 'a', url=server.url)
  write_images(tmp_path / 'images', mini_rows() + val_rows())
  server.answers = dict.fromkeys(WEB[:3], 'dead')
  code, out, err = prepare(
      tmp_path, '--fetch_images', dataset_name='mini_imagenet_red',
      noise_levels='0.4', annotations='a', image_root='images')
  assert code == 0, err
  assert '7 of 10 web images are there' in out
  assert '15 photographs, red noise, 0.4 asked, 0.4667 realised' in out
  assert len(records(tmp_path / 'out' / '0.4')) == 15
  assert facts(tmp_path / 'out' / '0.4')['num_missing'] == 3
  assert {name for name, _ in red_rows()} - set(
      records(tmp_path / 'out' / '0.4')) == set(WEB[:3])


def test_nothing_is_left_after_dead_urls(tmp_path, server):
  write_annotations(tmp_path / 'a', url=server.url)
  put(tmp_path / 'a' / 'mini-imagenet' / 'split' / 'red_noise_nl_0.4',
      ''.join(f'{name}.jpg {k % 6}\n' for k, name in enumerate(WEB)))
  flags = dict(dataset_name='mini_imagenet_red', noise_levels='0.4',
               annotations='a', image_root='images')
  # First the test images, without which the others are of no use.
  refused(prepare(tmp_path, '--fetch_images', **flags), 'val: none of its 12')
  assert not server.asked
  write_images(tmp_path / 'images', val_rows())
  server.answers = dict.fromkeys(WEB, 'dead')
  code, out, err = prepare(tmp_path, '--fetch_images', **flags)
  assert code == 2 and '0 of 10 web images are there' in out
  assert '0.4: none of its 10 images' in err and err.count('\n') == 1, err


@pytest.mark.parametrize('text, words', [
    ('x', 'annotations.json does not hold'), ('{"data": [{}]}', None),
    ('{"data": [1]}', 'annotations.json does not hold')])
def test_bad_annotations(tmp_path, text, words):
  write_annotations(tmp_path / 'a')
  write_images(tmp_path / 'images', mini_rows() + val_rows())
  put(tmp_path / 'a' / 'mini-imagenet-annotations.json', text)
  code, _, err = prepare(
      tmp_path, '--fetch_images', dataset_name='mini_imagenet_red',
      noise_levels='0.4', annotations='a', image_root='images')
  assert code == (2 if words else 0)
  assert not words or words in err and err.count('\n') == 1


def test_bad_list_of_missing_images(tmp_path):
  put(tmp_path / 'missing.csv', 'a,b\n1,2\n')
  with pytest.raises(Exception, match='missing.csv cannot be read.*remove it'):
    fetching.fetch({}, str(tmp_path))
