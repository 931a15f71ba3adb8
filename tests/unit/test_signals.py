"""A signal whose exception was lost comes again; one that has arrived does not."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, time
from ferrox.cli import signals

class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(0.01)

signals.AGAIN_SECONDS = 0.05
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs this may ignore it
signals.install()
sys.unraisablehook = lambda _: None
try:
    Swallows()
    time.sleep(60)
except BaseException as error:
    signals.leaving()
    time.sleep(0.2)
    print(type(error).__name__)
"""


@pytest.mark.parametrize(("name", "error"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "SystemExit")])
def test_a_signal_that_a_destructor_swallows_comes_again(name, error):
    program = PROGRAM.format(name=name)

    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert (run.stdout, run.stderr) == (f"{error}\n", "")
