import hashlib
import json
import shutil
import stat
import sys
import textwrap

import pytest
import torch

from recflow.errors import RecflowError
from recflow.ranking import bundle as bundle_module
from recflow.ranking.bundle import load_bundle, save_bundle
from recflow.ranking.catalog import Item
from recflow.ranking.histories import Histories
from recflow.ranking.kinds import BUILT_IN
from recflow.ranking.rankers import FactorRanker, ItemItemRanker, Ranker

NUM_USERS, NUM_ITEMS = 4, 6
HISTORY, STARS = torch.tensor([1, 4]), torch.tensor([5.0, 2.0])
HISTORIES = Histories.from_pairs(
    torch.tensor([0, 0, 2, 3]), torch.tensor([1, 3, 5, 0]), NUM_USERS, NUM_ITEMS, torch.tensor([5.0, 3.0, 1.0, 4.0])
)
ABOUT = {"task": "ranking", "rating_scale": [1.0, 5.0], "relevant_from": 4.0, "metrics": {"ndcg@10": 0.25}, "ü": None}


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def random_ranker() -> Ranker:
    from recflow_basics.ranker import RandomRanker

    return RandomRanker(NUM_USERS, NUM_ITEMS, seed=7)


ONE_TABLE = draw(NUM_USERS + NUM_ITEMS, 3)
RANKERS = {
    "factor, bare": ("lightgcn", lambda: FactorRanker(draw(NUM_USERS, 3), draw(NUM_ITEMS, 3))),
    "factor, all settings": (
        "bias-mf",
        lambda: FactorRanker(
            *(draw(NUM_USERS, 3), draw(NUM_ITEMS, 3), draw(NUM_USERS), draw(NUM_ITEMS)),
            mean=3.25,
            reg=0.125,
            reg_bias=0.0,
            reg_exponent=1.0,
            rating_scale=(0.5, 5.0),
        ),
    ),
    "factor, propagated": (
        "lightgcn",
        lambda: FactorRanker(
            draw(NUM_USERS, 3), draw(NUM_ITEMS, 3), fold_in="propagate", fold_in_factors=draw(NUM_ITEMS, 3)
        ),
    ),
    "factor, one table cut in two and one tensor used twice": (
        "lightgcn",
        lambda: FactorRanker(
            ONE_TABLE[:NUM_USERS], ONE_TABLE[NUM_USERS:], fold_in="propagate", fold_in_factors=ONE_TABLE[NUM_USERS:]
        ),
    ),
    "factor, transposed": ("lightgcn", lambda: FactorRanker(draw(3, NUM_USERS).T, draw(3, NUM_ITEMS).T)),
    "factor, of no dimension": (
        "popularity",
        lambda: FactorRanker(torch.empty(NUM_USERS, 0), torch.empty(NUM_ITEMS, 0), item_bias=draw(NUM_ITEMS)),
    ),
    "item-item": ("ease", lambda: ItemItemRanker(draw(NUM_ITEMS, NUM_ITEMS), HISTORIES.indptr, HISTORIES.items)),
    "a plugin's own": ("random", random_ranker),
}


def save(folder, ranker=None, plugin="lightgcn", **changes):
    items = [Item(i, 10 + i, f"Film {i} (2000)", 2000, ("Drama",), 5 - i) for i in range(NUM_ITEMS)]
    ranker = ranker or FactorRanker(draw(NUM_USERS, 3), draw(NUM_ITEMS, 3))
    given = {"histories": HISTORIES, "items": items, "user_ids": ["ann", "bob", "cy", "di"], "about": ABOUT}
    save_bundle(folder, plugin=plugin, ranker=ranker, **given | changes)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class TestRoundTrip:
    @pytest.mark.parametrize(("plugin", "make"), RANKERS.values(), ids=RANKERS.keys())
    def test_scores_settings_and_type_come_back(self, tmp_path, plugin, make):
        ranker = make()
        loaded = load_bundle(save(tmp_path / "bundle", ranker, plugin)).ranker
        assert (type(loaded), loaded.settings()) == (type(ranker), ranker.settings())
        assert (loaded.num_users, loaded.num_items) == (NUM_USERS, NUM_ITEMS)
        assert not loaded.training
        users = torch.arange(NUM_USERS)
        torch.testing.assert_close(loaded.score(users), ranker.score(users), atol=1e-6, rtol=0)
        torch.testing.assert_close(
            loaded.score_history(HISTORY, STARS), ranker.score_history(HISTORY, STARS), atol=1e-6, rtol=0
        )

    def test_every_built_in_ranker_is_tried_above(self):
        assert {type(make()) for _, make in RANKERS.values()} >= set(BUILT_IN.values()) - _tried_by_their_plugin()

    def test_histories_titles_and_what_is_said_about_it_come_back(self, tmp_path):
        loaded = load_bundle(save(tmp_path / "bundle"))
        assert all(torch.equal(a, b) for a, b in zip(loaded.histories, HISTORIES, strict=True))
        assert loaded.about == {"plugin": "lightgcn", **ABOUT}
        assert (loaded.catalog.user("cy"), loaded.catalog.find("film 3").item_id) == (2, 13)

    def test_histories_may_be_left_out(self, tmp_path):
        folder = save(tmp_path / "bundle", histories=None)
        assert load_bundle(folder).histories is None
        assert sorted(contents(folder)) == ["bundle.json", "catalog.sqlite", "weights.safetensors"]

    def test_histories_without_ratings_come_back_without(self, tmp_path):
        bare = Histories.from_pairs(torch.tensor([2]), torch.tensor([5]), NUM_USERS, NUM_ITEMS)
        items, ratings = load_bundle(save(tmp_path / "bundle", histories=bare)).histories.of(2)
        assert (items.tolist(), ratings) == ([5], None)

    def test_a_bundle_may_be_moved_and_is_read_by_others(self, tmp_path):
        folder = save(tmp_path / "deep" / "er" / "bundle")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
        assert {file.name for file in folder.iterdir() if not file.stat().st_mode & stat.S_IROTH} == set()
        load_bundle(folder.rename(tmp_path / "elsewhere"))

    def test_nothing_in_it_is_a_pickle(self, tmp_path):
        folder = save(tmp_path / "bundle", random_ranker(), "random")
        assert {path.suffix for path in folder.iterdir()} == {".json", ".sqlite", ".safetensors"}


def _tried_by_their_plugin() -> set[type]:
    """Built-in rankers whose round trip the conformance kit tries: all but the two closed forms."""
    return {ranker for ranker in BUILT_IN.values() if ranker not in (FactorRanker, ItemItemRanker)}


class TestReplacing:
    def test_a_new_bundle_replaces_the_older_one_whole(self, tmp_path):
        folder = save(tmp_path / "bundle")
        save(folder, random_ranker(), "random", histories=None)
        loaded = load_bundle(folder)
        assert (loaded.about["plugin"], loaded.histories) == ("random", None)
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]

    def fails(self, tmp_path, error, **changes):
        folder = save(tmp_path / "bundle")
        before = contents(folder)
        with pytest.raises(error):
            save(folder, **changes)
        assert contents(folder) == before
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
        load_bundle(folder)

    def test_a_save_that_fails_at_the_manifest_leaves_the_older_one_and_no_scratch(self, tmp_path):
        self.fails(tmp_path, TypeError, about={"not": object()})

    def test_a_save_that_fails_at_the_titles_leaves_the_older_one_and_no_scratch(self, tmp_path):
        def items():
            yield Item(0, 10, "Film", None, (), 1)
            raise RuntimeError("the data ended here")

        self.fails(tmp_path, RuntimeError, items=items())

    def test_a_save_that_is_interrupted_leaves_the_older_one_and_no_scratch(self, tmp_path):
        def user_ids():
            raise KeyboardInterrupt
            yield

        self.fails(tmp_path, KeyboardInterrupt, user_ids=user_ids())

    def test_a_save_that_fails_at_the_very_last_step_brings_the_older_one_back(self, tmp_path, monkeypatch):
        replace = bundle_module.os.replace

        def full_disk(source, target):
            if target == tmp_path / "bundle" and not str(source).endswith("-older"):
                raise OSError("no space left on device")
            replace(source, target)

        save(tmp_path / "bundle")
        monkeypatch.setattr(bundle_module.os, "replace", full_disk)
        before = contents(tmp_path / "bundle")
        with pytest.raises(OSError, match="no space"):
            save(tmp_path / "bundle", random_ranker(), "random")
        assert contents(tmp_path / "bundle") == before
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]

    def test_a_first_save_that_fails_leaves_nothing(self, tmp_path):
        with pytest.raises(TypeError):
            save(tmp_path / "bundle", about={"not": object()})
        assert list(tmp_path.iterdir()) == []

    def test_a_ranker_that_nobody_has_registered_is_not_saved(self, tmp_path):
        class Mine(FactorRanker):
            pass

        with pytest.raises(RecflowError, match="Plugin 'lightgcn' returned a Mine: neither a built-in ranker nor"):
            save(tmp_path / "bundle", Mine(draw(NUM_USERS, 3), draw(NUM_ITEMS, 3)))
        with pytest.raises(RecflowError, match="Plugin 'lightgcn' returned a RandomRanker"):
            save(tmp_path / "bundle", random_ranker(), "lightgcn")
        assert list(tmp_path.iterdir()) == []


def refusal(folder) -> str:
    with pytest.raises(RecflowError) as refused:
        load_bundle(folder)
    message = str(refused.value)
    assert "\n" not in message
    assert str(folder) in message or "ranker" in message or "plugin" in message.lower()
    return message


class TestRefusing:
    @pytest.fixture
    def folder(self, tmp_path):
        return save(tmp_path / "bundle")

    def change(self, folder, **changes):
        """Edit the manifest; a value of None removes the key."""
        manifest = json.loads((folder / "bundle.json").read_text()) | changes
        manifest = {key: value for key, value in manifest.items() if value is not None}
        (folder / "bundle.json").write_text(json.dumps(manifest))

    FILES = ("weights.safetensors", "histories.safetensors", "catalog.sqlite")

    @pytest.mark.parametrize("name", FILES)
    def test_a_file_cut_short(self, folder, name):
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
        assert f"{name} was changed or cut short" in refusal(folder)

    @pytest.mark.parametrize("name", FILES)
    def test_a_file_with_one_bit_changed(self, folder, name):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        assert f"{name} was changed or cut short" in refusal(folder)

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file(self, folder, name):
        (folder / name).unlink()
        assert f"is incomplete: {name} is missing" in refusal(folder)

    def test_a_file_that_may_not_be_read(self, folder, monkeypatch):
        def refuse(file, algorithm):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(hashlib, "file_digest", refuse)
        assert "cannot be read: Permission denied." in refusal(folder)

    def test_a_missing_manifest(self, folder):
        (folder / "bundle.json").unlink()
        assert "holds no bundle.json: it is not a bundle" in refusal(folder)

    def test_no_folder(self, tmp_path):
        assert "it is not a bundle" in refusal(tmp_path / "nowhere")

    def test_a_file_in_place_of_the_folder(self, tmp_path):
        (tmp_path / "bundle").write_text("I am a file")
        assert "it is not a bundle" in refusal(tmp_path / "bundle")

    def test_a_folder_in_place_of_the_manifest(self, folder):
        (folder / "bundle.json").unlink()
        (folder / "bundle.json").mkdir()
        assert "bundle.json cannot be read" in refusal(folder)

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "null", "3", '"text"', "{}", '{"format_version": 1}', '{"sha256": {}}', "\xff\x00"]
    )
    def test_a_manifest_that_is_no_manifest(self, folder, text):
        (folder / "bundle.json").write_bytes(text.encode("latin-1"))
        assert "bundle.json cannot be read: " in refusal(folder)

    @pytest.mark.parametrize("version", [0, 2, 99, "1", [1]])
    def test_an_unknown_version(self, folder, version):
        self.change(folder, format_version=version)
        message = refusal(folder)
        assert f"is of bundle format {version!r}; this recflow reads format 1" in message

    def test_an_unknown_version_is_refused_before_anything_else_is_read(self, folder):
        shutil.copy(folder / "bundle.json", folder.parent / "kept.json")
        self.change(folder, format_version=2, ranker="of the future", settings=None)
        for name in self.FILES:
            (folder / name).unlink()
        assert "bundle format 2" in refusal(folder)

    def test_an_unknown_ranker(self, folder):
        self.change(folder, ranker="neural")
        assert "The bundle's ranker 'neural' is unknown; known are: factor, item-item" in refusal(folder)

    def test_the_ranker_of_a_plugin_that_is_not_installed(self, folder):
        self.change(folder, ranker="plugin:lightgnc")
        assert "There is no plugin 'lightgnc'" in refusal(folder)

    def test_the_ranker_of_a_plugin_that_has_none(self, folder):
        self.change(folder, ranker="plugin:lightgcn")
        assert "Plugin 'lightgcn' names no ranker" in refusal(folder)

    @pytest.mark.parametrize("target", ["os:system", "recflow.ranking.rankers:FactorRanker", "plugin:os", "plugin:"])
    def test_a_manifest_cannot_name_code(self, folder, target):
        self.change(folder, ranker=target)
        refusal(folder)

    def test_weights_of_another_ranker(self, folder):
        self.change(folder, ranker="item-item", settings={})
        assert "does not fit its ranker 'item-item'" in refusal(folder)

    @pytest.mark.parametrize("settings", [{"volume": 11}, [], 3, {"user_factors": 1}, {"rating_scale": 5}])
    def test_settings_that_the_ranker_does_not_take(self, folder, settings):
        self.change(folder, settings=settings)
        assert "does not fit its ranker 'factor'" in refusal(folder)

    @pytest.mark.parametrize("key", ["plugin", "ranker", "settings", "about", "sha256", "format_version"])
    def test_a_manifest_that_lacks_a_key(self, folder, key):
        self.change(folder, **{key: None})
        refusal(folder)

    @pytest.mark.parametrize("name", ["../weights.safetensors", "/etc/passwd", "sub/file", ""])
    def test_a_checksum_for_a_file_elsewhere(self, folder, name):
        sums = json.loads((folder / "bundle.json").read_text())["sha256"]
        self.change(folder, sha256=sums | {name: "0" * 64})
        assert "is missing" in refusal(folder)

    @pytest.mark.parametrize("name", ["weights.safetensors", "catalog.sqlite"])
    def test_a_file_without_a_checksum(self, folder, name):
        sums = json.loads((folder / "bundle.json").read_text())["sha256"]
        del sums[name]
        self.change(folder, sha256=sums)
        assert "names no checksum" in refusal(folder)

    @pytest.mark.parametrize("name", FILES)
    def test_another_file_with_the_right_checksum(self, folder, name):
        (folder / name).write_bytes(b"something else altogether, of some length, but not what it should be" * 20)
        sums = json.loads((folder / "bundle.json").read_text())["sha256"]
        self.change(folder, sha256=sums | {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()})
        assert "does not fit" in refusal(folder)


def test_a_strangers_ranker_comes_back_through_its_plugin(tmp_path, monkeypatch):
    site = tmp_path / "site"
    (site / "fake_own-1.0.dist-info").mkdir(parents=True)
    (site / "fake_own-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-own\nVersion: 1.0\n")
    (site / "fake_own-1.0.dist-info" / "entry_points.txt").write_text("[recflow]\nfake-own = fake_own_spec\n")
    (site / "fake_own_spec.py").write_text(
        textwrap.dedent("""
        from recflow import ModelSpec, hookimpl
        @hookimpl
        def recflow_model():
            return ModelSpec("fake-own", "ranking", "Fake", "fake_own_ranker:None_", ranker="fake_own_ranker:Constant")
        """)
    )
    (site / "fake_own_ranker.py").write_text(
        textwrap.dedent("""
        import torch
        from recflow.ranking.rankers import Ranker
        class Constant(Ranker):
            def __init__(self, level, table):
                super().__init__()
                self.level, self.num_users, self.num_items = level, 4, len(table)
                self.register_buffer("table", table)
            def settings(self):
                return {"level": self.level}
            def score(self, users, candidates=None):
                return (self.level * self.table).repeat(len(users), 1)
            def score_history(self, items, ratings=None, candidates=None):
                return self.level * self.table
        """)
    )
    monkeypatch.syspath_prepend(site)
    from fake_own_ranker import Constant

    try:
        folder = save(tmp_path / "bundle", Constant(0.5, torch.arange(6.0)), "fake-own")
        assert json.loads((folder / "bundle.json").read_text())["ranker"] == "plugin:fake-own"
        assert load_bundle(folder).ranker.score(torch.tensor([0])).tolist() == [[0.0, 0.5, 1.0, 1.5, 2.0, 2.5]]
    finally:
        for name in ("fake_own_spec", "fake_own_ranker"):
            sys.modules.pop(name, None)
