"""What every entry script does with its command line and its user's slips.

A slip of the user (a flag, a file, a value) is a `UserError`: one line that
names it and says what to do. Anything else is a bug and keeps its traceback.

Exit codes: 0 finished; 1 failed while running (the line says why); 2 bad input,
nothing was started; 128 + n stopped by signal n after saving (129 SIGHUP, 130
Ctrl-C, 143 SIGTERM).
"""
import os
import signal
import sys

from absl import app
from absl import flags

from mentormix import messages

flags.disclaim_key_flags()  # --help lists a script's flags as its own.


def run(main):
  """Parses flags strictly, calls `main()`, turns its errors into one line.

  Args:
    main: a callable without arguments; its result, if any, is the exit code.
  """
  # Run as an installed command, the script is not the main module; --help is
  # to list its flags all the same.
  for flag in flags.FLAGS.get_flags_for_module(main.__module__):
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
  app.run(lambda argv: _call(main), flags_parser=_parse_flags)


def define_flags(defaults, about):
  """Defines one flag for each field of a config.

  Args:
    defaults: a namedtuple of default values, which also give the types; None
      makes a string flag that may be left open.
    about: field -> help text, for every field.
  """
  define = {bool: flags.DEFINE_boolean, int: flags.DEFINE_integer,
            float: flags.DEFINE_float}
  for name, default in defaults._asdict().items():
    define.get(type(default), flags.DEFINE_string)(name, default, about[name])


def from_flags(config_type):
  """The config that the command line describes."""
  return config_type(**{name: flags.FLAGS[name].value
                        for name in config_type._fields})


def given_flags(config_type):
  """Names of the fields of `config_type` that the command line gives."""
  return {name for name in config_type._fields if flags.FLAGS[name].present}


def _parse_flags(argv):
  program = os.path.basename(argv[0])
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    _die(program, '%s; see --help' % error, messages.BAD_INPUT)
  if len(rest) > 1:
    _die(program, 'unexpected argument %r (flags start with --); see --help'
         % rest[1], messages.BAD_INPUT)
  return rest


def _call(main):
  program = os.path.basename(sys.argv[0])
  try:
    return main()
  except messages.UserError as error:
    _die(program, error, messages.BAD_INPUT)
  except messages.RunError as error:
    _die(program, error, messages.FAILED)
  except OSError as error:  # A full disk is no bug of ours.
    _die(program, '%s; mend that, then the same command goes on' % error,
         messages.FAILED)
  except KeyboardInterrupt:
    _die(program, 'stopped by Ctrl-C', 128 + signal.SIGINT)


def _die(program, message, code):
  messages.print_error(program, message)
  sys.exit(code)
