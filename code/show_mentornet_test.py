"""The command on every kind of MentorNet and of target."""
import json
import os

from PIL import Image
import pytest
import show_mentornet

from mentormix import testing

COMMITTED = testing.MENTOR
TRACES = 'sample_id,epoch_percent,noisy_label,clean_label,loss\n' + ''.join(
    f'{k},{epoch},{int(k % 3 == 0)},0,{0.1 * k + 2 * (k % 3 == 0):.1f}\n'
    for k in range(20) for epoch in (0, 50))


def _run(cwd, *args):
  return testing.run_command(show_mentornet, *args, cwd=cwd)


def _draw(cwd, output, path=COMMITTED, *args):
  """The picture that a command makes."""
  code, out, err = _run(cwd, f'--trained_mentornet_dir={path}',
                        f'--output_file={output}', *args)
  assert code == 0, err
  assert out == f'{output}\n'
  assert not [name for name in os.listdir(str(cwd)) if name.startswith('tmp')]
  return Image.open(str(cwd / output))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  """The prefix of a checkpoint in the published naming."""
  return testing.save_published_mentornet(
      tmp_path_factory.mktemp('published') / 'mentornet.ckpt-7')


def test_what_it_has_learned_is_shown_beside_it(checkpoint, tmp_path):
  known = _draw(tmp_path, 'known.png', COMMITTED, '--epochs=50')
  unknown = _draw(tmp_path, 'unknown.png', checkpoint, '--epochs=50')
  told = _draw(tmp_path, 'told.png', checkpoint, '--epochs=50',
               '--curriculum=focal')
  assert known.height > unknown.height + 100  # A row more, for v*.
  assert abs(known.height - told.height) < 20


def test_stages_of_training(tmp_path):
  widths = [_draw(tmp_path, f'a{len(args)}.png', COMMITTED, *args).width
            for args in (['--epochs=7,50,7'], [])]
  assert widths[0] < widths[1] - 500  # Two stages; the ends of three phases.


def test_traces_and_animation(tmp_path):
  (tmp_path / 'losses.csv').write_text(TRACES)
  image = _draw(tmp_path, 'a.gif', COMMITTED, '--curriculum=losses.csv',
                '--epochs=0,20,50')
  assert (image.format, image.n_frames) == ('GIF', 3)


def test_a_custom_curriculum_and_a_formula(tmp_path):
  (tmp_path / 'mine.py').write_text(
      'def v_star(loss, difference, label, epoch): return 0 * loss + 0.5\n')
  _draw(tmp_path, 'a.png', 'v_star:focal', '--curriculum=mine.py')


def test_the_predefined_curriculum_of_a_model(tmp_path):
  known = lambda: show_mentornet.learned_curriculum(str(tmp_path))
  assert show_mentornet.learned_curriculum(COMMITTED) == 'mentornet_pd'
  assert known() == ''
  for content, name in (
      ({'curriculum': 'focal'}, 'focal'), ({'curriculum': 'losses'}, ''),
      ({'curriculum': 'focal', 'source': {'file': 'focal.py'}}, ''),
      ({'curriculum': ['focal']}, ''), ([], '')):
    (tmp_path / 'metrics.json').write_text(json.dumps(content))
    assert known() == name, content
  (tmp_path / 'metrics.json').write_text('{')
  assert known() == ''


def test_nothing_is_overwritten_silently(tmp_path):
  (tmp_path / 'a.png').write_text('mine')
  args = (f'--trained_mentornet_dir={COMMITTED}', '--output_file=a.png',
          '--epochs=0')
  code, _, err = _run(tmp_path, *args)
  assert code == 2 and 'add --overwrite' in err and err.count('\n') == 1
  assert (tmp_path / 'a.png').read_text() == 'mine'
  code, _, err = _run(tmp_path, '--overwrite', *args)
  assert code == 0, err
  assert (tmp_path / 'a.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize('args,message', [
    (['--trained_mentornet_dir='], '--trained_mentornet_dir=: must be given'),
    (['--trained_mentornet_dir=threshold'], 'trained_mentornet_dir=threshold'),
    (['--trained_mentornet_dir=/nowhere'], '--trained_mentornet_dir=/nowhere'),
    (['--output_file='], '--output_file=: must be given and end in .png or'),
    (['--output_file=a.jpg'], '--output_file=a.jpg: must be given and end in'),
    (['--output_file=/dev/null/a.png'], '--output_file=/dev/null cannot be'),
    (['--output_file=d.png'], '--output_file=d.png is a directory'),
    (['--epochs=100'], 'must be whole numbers from 0 to 99'),
    (['--epochs=1,x'], 'must be whole numbers from 0 to 99'),
    (['--epochs=-1'], 'must be whole numbers from 0 to 99'),
    (['--curriculum=nothing'], '--curriculum: nothing is not a curriculum'),
    (['--curriculum=no.csv'], '--curriculum: no.csv cannot be read'),
    (['--curriculum=no.py'], '--curriculum: no.py is not a file'),
    (['--epoch=1'], "Unknown command line flag 'epoch'"),
])
def test_bad_inputs_are_one_line(args, message, tmp_path):
  (tmp_path / 'd.png').mkdir()
  code, out, err = _run(tmp_path, f'--trained_mentornet_dir={COMMITTED}',
                        '--output_file=a.png', '--overwrite', *args)
  assert code == 2 and not out
  assert err.count('\n') == 1 and message in err, err
  assert os.listdir(str(tmp_path)) == ['d.png']
