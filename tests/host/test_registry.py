"""The host, tried with real distributions: a folder on sys.path with a module and its ``dist-info``."""

import json
import subprocess
import sys
import textwrap
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from recflow import ModelSpec, RecflowError, registry

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = sorted(path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py"))

GOOD = """
    from recflow import ModelSpec, hookimpl

    @hookimpl
    def recflow_model():
        return ModelSpec(name="NAME", task="ranking", summary="A fake", module="fake_code:Model")
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution of one module on sys.path: ``install("fake", {"fake": "fake_module"}, source)``."""

    def install(distribution: str, entry_points: dict[str, str], source: str) -> None:
        folder = tmp_path / distribution
        info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[recflow]", *lines, ""]))
        module = next(iter(entry_points.values())).partition(":")[0]
        (folder / f"{module}.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(folder)

    yield install
    for name in [name for name in sys.modules if name.startswith("fake_")]:
        del sys.modules[name]


def fresh(code: str) -> object:
    """What a new interpreter prints, as JSON."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


class TestLoading:
    def test_an_installed_plugin_is_listed_with_its_owner_and_loaded(self, install):
        install("fake-dist", {"fake": "fake_module"}, GOOD.replace("NAME", "fake"))
        assert "fake" in registry.names()
        spec = registry.load("fake")
        assert spec == ModelSpec(name="fake", task="ranking", summary="A fake", module="fake_code:Model")
        listed = {line.name: line for line in registry.listing()}
        assert listed["fake"] == registry.Listed("fake", "fake-dist 1.0", spec=spec)

    def test_one_module_may_hold_several_models(self, install):
        source = """
            from recflow import ModelSpec, Plugin
            one = Plugin(ModelSpec(name="fake-one", task="ranking", summary="One", module="fake_code:One"))
            two = Plugin(ModelSpec(name="fake-two", task="rating", summary="Two", module="fake_code:Two"))
        """
        install("fake-dist", {"fake-one": "fake_module:one", "fake-two": "fake_module:two"}, source)
        assert [registry.load(name).summary for name in ("fake-one", "fake-two")] == ["One", "Two"]

    def test_all_of_our_own_plugins_load_and_name_code_that_exists(self):
        listed = [line for line in registry.listing() if line.owner.startswith("recflow ")]
        assert [line.problem for line in listed if line.problem] == []
        assert {"lightgcn", "bias-mf", "ease", "popularity", "random"} <= {line.name for line in listed}
        assert [line.name for line in listed] == sorted(line.name for line in listed)
        for line in listed:
            assert registry.load_target(line.spec, "module").__name__

    def test_a_spec_that_names_code_which_is_not_there_is_one_line(self, install):
        install("fake-dist", {"fake": "fake_module"}, GOOD.replace("NAME", "fake"))
        spec = registry.load("fake")
        with pytest.raises(RecflowError, match="Plugin 'fake': its module 'fake_code:Model' cannot be imported"):
            registry.load_target(spec, "module")
        with pytest.raises(RecflowError, match="Plugin 'fake' names no search_space"):
            registry.load_target(spec, "search_space")


class TestRefusing:
    def test_a_typo_is_answered_with_the_close_name_on_one_line(self):
        with pytest.raises(RecflowError, match=r"There is no plugin 'lightgnc'.*did you mean 'lightgcn'") as refused:
            registry.load("lightgnc")
        assert "\n" not in str(refused.value)

    def test_a_name_like_no_other_is_answered_with_all_names(self):
        with pytest.raises(RecflowError, match=r"pip install.*bias-mf.*lightgcn") as refused:
            registry.load("zzzzzz")
        assert "did you mean" not in str(refused.value)

    def test_two_owners_of_one_name_are_refused_and_both_are_named(self, install):
        install("fake-first", {"fake": "fake_first"}, GOOD.replace("NAME", "fake"))
        install("fake-second", {"fake": "fake_second"}, GOOD.replace("NAME", "fake"))
        with pytest.raises(RecflowError, match="Plugin 'fake' has 2 owners") as refused:
            registry.load("fake")
        assert "fake-first 1.0" in str(refused.value)
        assert "fake-second 1.0" in str(refused.value)
        assert "fake_first" not in sys.modules
        line = next(line for line in registry.listing() if line.name == "fake")
        assert (line.owner, line.spec) == ("fake-first 1.0 and fake-second 1.0", None)

    def test_a_stranger_cannot_take_one_of_our_names(self, install):
        install("fake-thief", {"lightgcn": "fake_thief"}, GOOD.replace("NAME", "lightgcn"))
        with pytest.raises(RecflowError, match="Plugin 'lightgcn' has 2 owners") as refused:
            registry.load("lightgcn")
        assert "recflow_lightgcn:lightgcn from recflow 0" in str(refused.value)
        assert "fake_thief from fake-thief 1.0" in str(refused.value)


BROKEN = {
    "import error": ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
    "syntax error": ("def", "SyntaxError"),
    "exit on import": ("raise SystemExit('bye')", "SystemExit: bye"),
    "exception in the hook": (
        """
        from recflow import hookimpl
        @hookimpl
        def recflow_model():
            raise RuntimeError("first line\\n   second line")
        """,
        "RuntimeError: first line second line",
    ),
    "a spec out of form": (
        GOOD.replace("NAME", "Fake_One"),
        "ValueError: name must be lower-case words joined by hyphens, such as 'bias-mf', got 'Fake_One'",
    ),
    "wrong return type": (
        """
        from recflow import hookimpl
        class Odd:
            def __repr__(self):
                return "two\\nlines"
        @hookimpl
        def recflow_model():
            return Odd()
        """,
        "must return one ModelSpec from recflow_model(), got Odd",
    ),
    "returns nothing": (
        """
        from recflow import hookimpl
        @hookimpl
        def recflow_model():
            return None
        """,
        "must return one ModelSpec from recflow_model(), got nothing",
    ),
    "no hook": ("answer = 42", "must return one ModelSpec from recflow_model(), got nothing"),
    "name mismatch": (GOOD.replace("NAME", "another"), "calls its model 'another'; the entry point and the ModelSpec"),
    "a hook with an argument that recflow never gives": (
        """
        from recflow import hookimpl
        @hookimpl
        def recflow_model(volume):
            return None
        """,
        "volume",
    ),
    "a hook that recflow does not know": (
        """
        from recflow import hookimpl
        @hookimpl
        def recflow_modle():
            return None
        """,
        "recflow_modle",
    ),
}


class TestBrokenPlugins:
    @pytest.mark.parametrize(("source", "reason"), BROKEN.values(), ids=BROKEN.keys())
    def test_a_broken_plugin_is_one_clear_line_and_hurts_no_other(self, install, source, reason):
        healthy = registry.listing()
        install("fake-dist", {"fake": "fake_module"}, source)
        with pytest.raises(RecflowError) as refused:
            registry.load("fake")
        message = str(refused.value)
        assert message.startswith("Plugin 'fake' (fake_module from fake-dist 1.0) ")
        assert reason in message
        assert "\n" not in message

        lines = {line.name: line for line in registry.listing()}
        assert lines.pop("fake") == registry.Listed("fake", "fake-dist 1.0", problem=message)
        assert list(lines.values()) == healthy
        assert registry.load("lightgcn").name == "lightgcn"

    def test_an_entry_point_to_nothing_is_one_line(self, install):
        install("fake-dist", {"fake": "fake_module:nothing"}, GOOD.replace("NAME", "fake"))
        with pytest.raises(RecflowError, match=r"fake_module:nothing from fake-dist 1.0\) cannot be loaded: Attribute"):
            registry.load("fake")


class TestWhatIsImported:
    def test_listing_imports_no_torch(self):
        heavy = fresh("""
            import json, sys
            from recflow import registry
            assert all(line.spec for line in registry.listing() if line.owner.startswith("recflow "))
            print(json.dumps(sorted({"torch", "lightning", "numpy", "polars", "optuna"} & set(sys.modules))))
        """)
        assert heavy == []

    @pytest.mark.parametrize("name", ["lightgcn", "ease", "popularity", "bias-mf"])
    def test_loading_one_imports_no_other(self, name):
        imported = fresh(f"""
            import json, sys
            from recflow import registry
            registry.load({name!r})
            print(json.dumps(sorted(module for module in sys.modules if module.startswith("recflow_"))))
        """)
        (entry,) = metadata.entry_points(group="recflow", name=name)
        assert imported == [entry.module]

    def test_names_are_known_without_importing_any(self):
        imported = fresh("""
            import json, sys
            from recflow import registry
            assert registry.names()
            print(json.dumps([module for module in sys.modules if module.startswith("recflow_")]))
        """)
        assert imported == []


class TestOurPyproject:
    """A folder under plugins/ that one of these lists has forgotten would be missing from the wheel or go unchecked."""

    entry_points = PYPROJECT["project"]["entry-points"]["recflow"]
    linter = PYPROJECT["tool"]["importlinter"]

    def test_every_plugin_folder_is_packed_into_the_wheel(self):
        packages = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
        assert sorted(packages) == ["plugins/" + folder for folder in FOLDERS] + ["recflow"]

    def test_every_plugin_folder_has_an_entry_point_and_the_other_way_round(self):
        assert sorted({value.partition(":")[0] for value in self.entry_points.values()}) == FOLDERS

    def test_every_plugin_folder_is_known_to_the_import_linter(self):
        assert sorted(self.linter["root_packages"]) == ["recflow", *FOLDERS]

    def test_every_contract_about_plugins_names_all_of_them(self):
        layers = [
            {name.strip() for name in layer.split("|")}
            for contract in self.linter["contracts"]
            if contract["type"] == "layers"
            for layer in contract["layers"]
        ]
        siblings = [names for names in layers if any(name in FOLDERS for name in names)]
        assert siblings == [set(FOLDERS)]
        sources = [
            set(contract["source_modules"]) for contract in self.linter["contracts"] if "source_modules" in contract
        ]
        assert [names for names in sources if names & set(FOLDERS)] == [set(FOLDERS)]

    def test_the_plugins_folder_is_no_package(self):
        assert not (ROOT / "plugins" / "__init__.py").exists()

    def test_the_installed_entry_points_are_those_of_the_file(self):
        ours = {
            entry.name: entry.value for entry in metadata.distribution("recflow").entry_points.select(group="recflow")
        }
        assert ours == self.entry_points, "pyproject.toml has changed: pip install -e . again"
