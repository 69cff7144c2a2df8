# SPDX-License-Identifier: MIT
"""Ctrl-C in commands that have no node, whose loop would otherwise wait without ever looking up."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.networks import PATIENCE

INTERRUPTED = 130

LATE = """
import _thread, signal, sys, threading, time

def interrupt():
    time.sleep(1.0)
    # To this thread: the main one begins to wait, and is not interrupted in it.
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

_thread.start_new_thread(interrupt, ())
from aemp_command.group import run_command
sys.exit(run_command(["dump", "127.0.0.1:1"]))
"""


@pytest.mark.slow
def test_ctrl_c_just_before_the_loop_waits_ends_the_command() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == INTERRUPTED, done.stderr
    assert "Traceback" not in done.stderr
