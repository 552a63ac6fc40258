"""What every script does with its command line and with a user's mistakes.

Exit codes: 0 finished; 1 failed while running (the line says why); 2 bad input,
nothing was started; 128 + n stopped by signal n after saving (129 SIGHUP, 130
Ctrl-C, 143 SIGTERM), or because the reader of its output has gone (141).
"""
import os
import signal
import sys

from absl import app
from absl import flags

from mentormix import config as config_lib
from mentormix import messages
from mentormix import noise_level
from mentormix import presets
from mentormix import settings as settings_lib

flags.disclaim_key_flags()  # --help lists a script's flags as its own.


def run(define_flags, main, operand=''):
  """Parses flags strictly, calls `main`, turns its errors into one line.

  Args:
    define_flags: defines the flags of the command.
    main: a callable without arguments, or one that takes the operand; its
      result, if any, is the exit code.
    operand: what the command needs besides flags, in a word; '' for nothing.
  """
  _open_standard_streams()
  define_flags()
  # An installed command is not the main module, but its --help has to explain
  # it and list its flags, too.
  sys.modules['__main__'].__doc__ = sys.modules[main.__module__].__doc__
  for flag in flags.FLAGS.get_flags_for_module(main.__module__):
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
  try:
    try:
      app.run(lambda argv: _call(main, argv[1:]),
              flags_parser=lambda argv: _parse_flags(argv, operand))
    finally:  # The command may have ended before its output was written.
      sys.stdout.flush()
  except BrokenPipeError:  # As in `| head`, which is not an error.
    messages.discard(sys.stdout)
    sys.exit(messages.CLOSED)


def _open_standard_streams():
  """Lets stdin, stdout and stderr lead nowhere where they are closed (>&-).

  Otherwise Python has None there, and the next file would get their number.
  """
  number = 0
  while number <= 2:
    number = os.open(os.devnull, os.O_RDWR)
  os.close(number)
  sys.stdout = sys.stdout or open(1, 'w', closefd=False)
  sys.stderr = sys.stderr or open(2, 'w', closefd=False)
  if sys.stdout.errors == 'strict':  # A locale may lack some characters.
    sys.stdout.reconfigure(errors='backslashreplace')


def define_settings(settings):
  """Defines one flag per setting.

  Args:
    settings: a tuple of `settings.Setting`s.
  """
  define = {bool: flags.DEFINE_boolean, int: flags.DEFINE_integer,
            float: flags.DEFINE_float}
  for setting in settings:
    if setting.words:
      flags.DEFINE(_NumberOrWord(setting.words), setting.name, setting.default,
                   setting.help, serializer=flags.ArgumentSerializer())
      continue
    define.get(type(setting.default), flags.DEFINE_string)(
        setting.name, setting.default, setting.help)


class _NumberOrWord(flags.FloatParser):
  """Parses a float, or keeps one of some words."""

  def __init__(self, words):
    super().__init__()
    self.syntactic_help = f'a number or {" or ".join(words)}'
    self._words = words

  def parse(self, argument):
    """A float or a word; ValueError for anything else."""
    return argument if argument in self._words else super().parse(argument)


def define_train_flags():
  """Defines the flags of a training run."""
  define_settings(settings_lib.TRAIN_SETTINGS)
  flags.DEFINE_enum(
      'preset', None, presets.NAMES,
      'Fills in what the command line does not say, and prints it. published: '
      'the settings of the published code for this data set and noise level, '
      'which come from noise.json or the name of the directory. cpu: settings '
      'for a thin student on a CPU. fast: a student and a schedule that learn '
      'small images in few steps. ncr, mini_webvision, webvision: recipes of '
      'others for larger images, as far as they are known. finetune: our '
      'settings to start from a pretrained net. The last four leave the '
      'student to --studentnet.')


def from_flags(config_type):
  """Returns the config that the command line describes."""
  return config_type(**{name: flags.FLAGS[name].value
                        for name in config_type._fields})


def train_config():
  """Returns the `config.TrainConfig` of the flags, with --preset filled in."""
  config = from_flags(config_lib.TrainConfig)
  given = {name for name in config._fields if flags.FLAGS[name].present}
  if flags.FLAGS.preset:
    config_lib.require_given(config, 'data_dir')
    config, filled = presets.fill(config, flags.FLAGS.preset, given)
    messages.log(filled)
  if config.loss_p_percentile == noise_level.AUTO:
    config_lib.require_given(config, 'data_dir')
    config, filled = noise_level.fill(config, given)
    messages.log(filled)
  return config


def _parse_flags(argv, operand):
  try:
    for text in argv + [os.getcwd()]:
      _check_encoding(text)
  except OSError as error:
    _exit(f'the working directory cannot be used ({error.strerror}); change to '
          'another', messages.BAD_INPUT)
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    _exit(f'{error}; see --help', messages.BAD_INPUT)
  expected = 2 if operand else 1
  if len(rest) > expected:
    _exit(f'unexpected argument {rest[expected]!r} (flags start with --); see '
          '--help', messages.BAD_INPUT)
  if len(rest) < expected:
    _exit(f'{operand} is missing; see --help', messages.BAD_INPUT)
  return rest


def _check_encoding(text):
  """Ends the command unless Python and TensorFlow, by UTF-8, see one path."""
  encoding = sys.getfilesystemencoding()
  if os.fsencode(text) != text.encode('utf-8', 'replace'):
    fault = ('is not valid UTF-8; rename that file or directory'
             if encoding == 'utf-8' else
             f'cannot be used in this locale, whose encoding is {encoding}; '
             'set LC_ALL=C.UTF-8')
    _exit(f'{text!a} {fault}', messages.BAD_INPUT)


def _call(main, operands):
  try:
    return main(*operands)
  except messages.UserError as error:
    _exit(error, messages.BAD_INPUT)
  except messages.RunError as error:
    _exit(error, messages.FAILED)
  except BrokenPipeError:  # `run` handles it.
    raise
  except OSError as error:  # A full disk is not a bug.
    _exit(f'{error}; fix that, then rerun the same command', messages.FAILED)
  except KeyboardInterrupt:
    _exit('stopped by Ctrl-C', 128 + signal.SIGINT)


def _exit(message, code):
  messages.print_error(message)
  sys.exit(code)
