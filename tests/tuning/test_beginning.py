"""A study that is killed, refused or met by another while it begins."""

import os
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from recflow.errors import RecflowError
from recflow.runs import Run
from recflow.tuning.plan import make_plan, sign_beginning
from recflow.tuning.storage import open_storage, quiet_optuna
from recflow.tuning.study import Study, begin_study, open_study

SMALL = "--data=sample:ratings=3000"


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_optuna():
        yield


def interrupted(*_):
    raise KeyboardInterrupt


def die_at(step):
    """Let this process be killed instead of its next write but so many."""
    left = step

    def dying(write):
        def call(*args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)
            return write(*args, **kwargs)

        return call

    for kind in (JournalStorage, optuna.storages._CachedStorage):  # the latter is of all databases
        for name in ("create_new_study", "create_new_trial", "set_study_user_attr", "set_study_system_attr"):
            setattr(kind, name, dying(getattr(kind, name)))
    Run.write_text = dying(Run.write_text)
    Path.rename = dying(Path.rename)


class TestBeginning:
    def test_a_study_that_was_killed_at_its_beginning_can_be_begun(self, tmp_path, monkeypatch):
        plan, _ = make_plan(["--plugin=ease", SMALL, f"--runs_dir={tmp_path}"])
        folder = tmp_path / "tune" / plan.name
        folder.mkdir(parents=True)
        with monkeypatch.context() as killed:
            killed.setattr(Study, "more", interrupted)
            killed.setattr("recflow.tuning.study.shutil.rmtree", lambda *_, **__: None)
            with pytest.raises(KeyboardInterrupt):
                begin_study(plan, tmp_path, None, 3)
        assert len(list((tmp_path / "tune").glob(f".{plan.name}-*/study.json"))) == 1
        with pytest.raises(RecflowError, match="recflow tune --plugin NAME begins one"):
            open_study(plan.name, tmp_path)
        study = begin_study(plan, tmp_path, None, 3)
        assert study.folder == folder
        assert open_study(plan.name, tmp_path).queue.unfinished() == study.queue.unfinished() == 3

    def test_of_two_that_begin_a_study_one_is_told_so(self, tmp_path, monkeypatch):
        plan, _ = make_plan(["--plugin=ease", SMALL, f"--runs_dir={tmp_path}"])
        more = Study.more

        def another_is_first(study, trials):
            monkeypatch.setattr(Study, "more", more)
            begin_study(plan, tmp_path, None, 2)
            more(study, trials)

        monkeypatch.setattr(Study, "more", another_is_first)
        with pytest.raises(RecflowError, match=f"--resume {plan.name}"):
            begin_study(plan, tmp_path, None, 3)
        assert [path.name for path in (tmp_path / "tune").iterdir()] == [plan.name]
        assert open_study(plan.name, tmp_path).queue.unfinished() == 2

    @pytest.mark.parametrize("kind", ["journal", "postgresql"])
    def test_a_study_that_is_killed_at_any_step_of_its_beginning_can_be_begun_or_gone_on_with(
        self, kind, tmp_path, request, monkeypatch
    ):
        where = str(tmp_path / "journal.log") if kind == "journal" else request.getfixturevalue("database")
        plan, _ = make_plan(["--plugin=ease", SMALL, f"--runs_dir={tmp_path}"])
        storage = open_storage(where)
        for step in range(50):
            killed = replace(plan, name=f"killed-at-{step}")
            child = os.fork()
            if child == 0:
                die_at(step)
                begin_study(killed, tmp_path, where, 2)
                os._exit(0)
            done = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            monkeypatch.setattr("recflow.tuning.study.open_storage", lambda _: storage)
            said = ""
            try:
                begin_study(killed, tmp_path, where, 2)
            except RecflowError as error:
                said = str(error)
            if step == 1:  # there is a name alone, which somebody else may have given
                assert "it says nothing of a model; choose another --name" in said
            else:
                assert not said or f"recflow tune --resume {killed.name}" in said
                states = [trial.state for trial in open_study(killed.name, tmp_path, where).trials]
                assert states == [TrialState.WAITING] * 2
            monkeypatch.undo()
            if done:
                return
        pytest.fail("it never ends")

    def test_a_beginning_that_fails_leaves_nothing(self, where, tmp_path, monkeypatch):
        plan, _ = make_plan(["--plugin=ease", SMALL, f"--runs_dir={tmp_path}"])
        with monkeypatch.context() as broken_off:
            broken_off.setattr(Study, "more", interrupted)
            with pytest.raises(KeyboardInterrupt):
                begin_study(replace(plan, name="fails"), tmp_path, where, 3)
        assert list((tmp_path / "tune").iterdir()) == []
        assert "fails" not in [study.study_name for study in open_storage(where).get_all_studies()]

    def test_a_full_disk_is_told_and_leaves_nothing(self, tmp_path, monkeypatch):
        plan, _ = make_plan(["--plugin=ease", SMALL, f"--runs_dir={tmp_path}"])

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Study, "more", full)
        with pytest.raises(RecflowError, match=r"folder .*/tune/ease-sample cannot be made: No space left on device"):
            begin_study(plan, tmp_path, None, 3)
        assert list((tmp_path / "tune").iterdir()) == []

    def test_a_study_that_somebody_is_beginning_is_left_to_them(self, where, tmp_path):
        plan, _ = make_plan(["--plugin=ease", SMALL, f"--runs_dir={tmp_path}"])
        plan = replace(plan, name="theirs")
        sign_beginning(optuna.create_study(study_name="theirs", storage=open_storage(where)))
        with pytest.raises(RecflowError, match=f"is being begun by process {os.getpid()} on .* choose another --name"):
            begin_study(plan, tmp_path, where, 3)
        with pytest.raises(RecflowError, match="is being begun"):
            open_study("theirs", tmp_path, where)
