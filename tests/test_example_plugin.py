"""The example plugin, installed for real into a fresh folder, and the tutorial that is made of it."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "recflow_toppop"
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
RECFLOW = Path(sys.executable).with_name("recflow")

FILES = sorted(str(path.relative_to(EXAMPLE)) for path in EXAMPLE.rglob("*") if path.suffix in {".py", ".toml"})

#: A code block and, for a piece of a file, the file's name on the line above.
BLOCKS = re.findall(r"(?:^`([^`\n]+)`\n\n)?^```(\w+)\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder that holds the example, as pip installs it, and nothing else."""
    scratch = tmp_path_factory.mktemp("toppop")
    shutil.copytree(EXAMPLE, scratch / "source", ignore=shutil.ignore_patterns("__pycache__", ".*", "build", "dist"))
    # pip fetches hatchling, the example's build tool, unless it is here
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *isolation]
    run([*pip, "--target", str(scratch / "site"), str(scratch / "source")], cwd=scratch)
    return scratch / "site"


def run(command: list[str | Path], cwd: Path, site: Path | None = None) -> str:
    """Run a command that must succeed; its output."""
    environment = dict(os.environ) | {"COLUMNS": "160"} | ({"PYTHONPATH": str(site)} if site else {})
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow  # together, and pip may have to fetch the build tool
class TestInstalled:
    def test_only_the_package_and_its_metadata_are_installed(self, site):
        assert sorted(path.name for path in site.iterdir()) == ["recflow_toppop", "recflow_toppop-0.1.0.dist-info"]

    def test_recflow_plugins_lists_it_with_its_owner(self, site, tmp_path):
        (row,) = [line for line in run([RECFLOW, "plugins"], tmp_path, site).splitlines() if line.startswith("toppop")]
        assert re.split(r"  +", row.strip()) == [
            "toppop",
            "ranking",
            "The items with the most training interactions, recent ones counting more",
            "recflow-toppop 0.1.0",
        ]

    def test_the_tutorial_ends_with_that_very_line(self, site, tmp_path):
        lines = run([RECFLOW, "plugins"], tmp_path, site).splitlines()
        shown = next(text for name, _, text in BLOCKS if "recflow-toppop 0.1.0" in text)
        (row,) = [line for line in lines if line.startswith("toppop")]
        assert re.split(r"  +", shown.strip()) == re.split(r"  +", row.strip())

    def test_recflow_plugins_toppop_shows_its_hyper_parameter(self, site, tmp_path):
        shown = run([RECFLOW, "plugins", "toppop"], tmp_path, site)
        place, (row,) = zip(
            *[(n, row) for n, row in enumerate(shown.splitlines()) if row.startswith("--model.")], strict=True
        )
        assert re.split(r"  +", row.strip()) == ["--model.half_life = 90.0", "1 … 3650 (log)"]
        told = " ".join(" ".join(shown.splitlines()[place[0] + 1 : place[0] + 3]).split())
        assert told == "After how many days an interaction counts half, above 0; infinity is plain popularity."

    def test_its_own_tests_pass(self, site, tmp_path):
        shutil.copy(EXAMPLE / "test_toppop.py", tmp_path)
        told = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_toppop.py"], tmp_path, site)
        count = re.search(r"^(\d+) passed", told, re.MULTILINE)
        assert count, told
        assert int(count[1]) >= 15
        assert "skipped" not in told

    @pytest.mark.parametrize("relevant_from", [None, 4.0])
    @pytest.mark.parametrize("half_life", [30.0, 1e12])
    def test_it_computes_what_it_says(self, site, monkeypatch, relevant_from, half_life):
        from recflow.data.dataset import DataConfig, prepare

        monkeypatch.syspath_prepend(site)
        from recflow_toppop.model import TopPop

        data = prepare(DataConfig(relevant_from=relevant_from))
        model = TopPop(data.num_users, data.num_items, half_life)
        model.attach(data)
        model.sweep()
        liked = [row for row in data.parts.train.iter_rows(named=True) if row["rating"] >= (relevant_from or 0)]
        last = max(row["time"] for row in liked)
        expected = torch.zeros(data.num_items, dtype=torch.float64)
        for row in liked:
            expected[row["item"]] += 2 ** (-(last - row["time"]) / 86_400 / half_life)
        torch.testing.assert_close(model.ranker().score(torch.tensor([0, 5])), expected.float().repeat(2, 1))
        if half_life == 1e12:  # as good as infinite: plain popularity
            counts = torch.bincount(data.positives.items, minlength=data.num_items).float()
            torch.testing.assert_close(model.weights, counts)

    def test_a_half_life_that_is_not_above_0_is_refused(self, site, monkeypatch):
        monkeypatch.syspath_prepend(site)
        from recflow_toppop.model import TopPop

        with pytest.raises(ValueError, match="half_life must be above 0 days, got 0"):
            TopPop(2, 3, half_life=0)


class TestTutorial:
    def test_every_piece_of_code_is_taken_from_the_file_that_it_names(self):
        pieces = [(name, text) for name, kind, text in BLOCKS if kind in {"python", "toml"}]
        assert len(pieces) >= 9
        for name, text in pieces:
            assert name, f"this block names no file:\n{text}"
            assert text.rstrip("\n") in (EXAMPLE / name).read_text(encoding="utf-8"), (
                f"{name} has no such lines:\n{text}"
            )

    def test_every_block_is_of_a_kind_that_is_checked(self):
        assert len(BLOCKS) == len(re.findall(r"^```\w+$", TUTORIAL, re.MULTILINE))
        assert {kind for _, kind, _ in BLOCKS} == {"python", "toml", "console", "text"}

    @pytest.mark.parametrize("name", FILES)
    def test_every_line_of_the_example_is_in_the_tutorial(self, name):
        shown = "\n".join(text for block, _, text in BLOCKS if block == name)
        missing = [line for line in (EXAMPLE / name).read_text(encoding="utf-8").splitlines() if line not in shown]
        assert missing == []

    def test_every_file_of_the_tree_is_there(self):
        (tree,) = [text for _, _, text in BLOCKS if text.startswith("recflow_toppop/")]
        for name in re.findall(r"^ +(\S+)", tree, re.MULTILINE):
            assert list(EXAMPLE.glob(f"**/{name}")), name

    def test_every_command_exists(self):
        from recflow.cli.main import COMMANDS

        commands = [line.split() for _, kind, text in BLOCKS if kind == "console" for line in text.splitlines()]
        for prompt, program, *rest in commands:
            assert prompt == "$"
            assert program in {"pip", "python", "recflow"}
            assert program != "recflow" or rest[0] in COMMANDS
            assert all((ROOT / word).exists() for word in rest if "docs/" in word)


def test_the_example_is_a_whole_distribution():
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["entry-points"]["recflow"] == {"toppop": "recflow_toppop"}
    assert not {"readme", "license-files"} & project["project"].keys(), (
        "files that the tutorial does not have one write"
    )
