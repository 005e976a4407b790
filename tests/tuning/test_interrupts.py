"""Ctrl-C."""

import os
import signal

import pytest

from recflow.tuning.interrupts import noticed_interrupts, stop_if_interrupted


class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass


def test_an_interrupt_is_raised_at_once():
    before = signal.getsignal(signal.SIGINT)
    with noticed_interrupts(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_inside_a_finaliser_is_not_lost(capsys):
    with noticed_interrupts():
        Finalised()
        with pytest.raises(KeyboardInterrupt):
            stop_if_interrupted()
    stop_if_interrupted()
    assert capsys.readouterr().err == ""
