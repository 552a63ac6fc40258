"""For all tests: what they start can be signalled, even under nohup."""
import signal

for number in (signal.SIGHUP, signal.SIGINT):
  if signal.getsignal(number) is signal.SIG_IGN:
    # Programs inherit that a signal is ignored, but not a handler.
    signal.signal(number, lambda *_: None)
