"""Ctrl-C."""

import contextlib
import os
import signal

import lightning.pytorch as pl
import pytest

import recflow
from recflow.training.interrupts import noticed_interrupts, stop_if_interrupted


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


def test_a_fit_ends_even_where_the_interrupt_is_caught_by_somebody(tmp_path):
    class Swallow(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                with contextlib.suppress(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        recflow.fit("bpr-mf", "sample:ratings=2000", runs_dir=str(tmp_path), callbacks=[Swallow()])
    assert len(list(tmp_path.glob("*/*/*/checkpoints/last.ckpt"))) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_watches_already_goes_on_to(tmp_path):
    with noticed_interrupts():
        Finalised()
        with noticed_interrupts():
            pass
        with pytest.raises(KeyboardInterrupt):
            stop_if_interrupted()
