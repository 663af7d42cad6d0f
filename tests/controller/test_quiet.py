"""A solver's own words stay out of standard output, whoever reads it and whenever they are written."""

from __future__ import annotations

import subprocess
import sys

SAY = "import ctypes, sys; say = lambda text: ctypes.CDLL(None).printf(text); "


def printed(code: str) -> str:
    """What a process writes into a pipe, where C's output waits until somebody flushes it."""
    return subprocess.run([sys.executable, "-c", SAY + code], check=True, capture_output=True, text=True).stdout


def test_words_that_c_keeps_until_later_are_dropped_too() -> None:
    quiet = "from wattzoo.cli.quiet import without_native_output\nwith without_native_output(): say(b'HiGHS\\n')\n"
    assert printed(quiet + "print('answer')") == "answer\n"


def test_a_process_that_drops_native_output_still_prints_its_own() -> None:
    quiet = "from wattzoo.cli.quiet import drop_native_output; drop_native_output(); "
    assert printed(quiet + "say(b'HiGHS\\n'); print('answer'); say(b'HiGHS\\n')") == "answer\n"


def test_without_either_it_is_heard() -> None:
    assert printed("say(b'HiGHS\\n')") == "HiGHS\n"
