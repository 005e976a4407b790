"""The folder forms of LightGCN's and NCF's authors, and which form a folder is taken for."""

import os
import shutil
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.data.interactions import build_interactions
from recflow.data.published import form_of, load_folder, parse_lightgcn, parse_ncf
from recflow.data.splits import split
from recflow.errors import RecflowError


@pytest.fixture
def lightgcn(tmp_path):
    folder = tmp_path / "yelp"
    folder.mkdir()
    (folder / "train.txt").write_text("0 10 11 12\n1 10\n2\n")
    (folder / "test.txt").write_text("0 13\n1 \n3 11 13")
    return folder


@pytest.fixture
def ncf(tmp_path):
    folder = tmp_path / "ncf"
    folder.mkdir()
    (folder / "x.train.rating").write_text("0\t0\t5\t100\n0\t1\t3\t101\n1\t0\t4\t102\n")
    (folder / "x.test.rating").write_text("0\t2\t4\t200\n1\t3\t1\t201\n")
    (folder / "x.test.negative").write_text("(0,2)\t3\t4\t2\n(1,3)\t1\t2\t5\n")
    return folder


def real(name):
    folder = Path(os.environ["RECFLOW_DATA_DIR"]) / name
    if not folder.is_dir():
        pytest.skip(f"RECFLOW_DATA_DIR has no {name}/")
    return folder


class TestLightGCN:
    def test_both_files_become_rows_the_test_rows_with_a_fold(self, lightgcn):
        raw = parse_lightgcn(lightgcn, "yelp")
        expected = [(0, 10, None), (0, 11, None), (0, 12, None), (1, 10, None), (0, 13, 1), (3, 11, 1), (3, 13, 1)]
        assert raw.ratings.select("user_id", "item_id", "fold").rows() == expected
        assert set(raw.ratings["rating"]) == {1.0}
        assert set(raw.ratings["time"]) == {0}
        assert raw.ratings.schema == {
            "user_id": pl.Int64,
            "item_id": pl.Int64,
            "rating": pl.Float32,
            "time": pl.Int64,
            "fold": pl.Int8,
        }
        assert raw.items["item_id"].to_list() == [10, 11, 12, 13]
        assert raw.users["user_id"].to_list() == [0, 1, 2, 3]
        assert (raw.has_ratings, raw.has_times, raw.notices) == (False, False, ())

    def test_its_split_is_the_published_one(self, lightgcn):
        parts = split(build_interactions(parse_lightgcn(lightgcn, "yelp")), "files", val_fraction=0)
        assert (parts.train.height, parts.val.height, parts.test.height) == (4, 0, 3)

    def test_a_pair_in_both_files_is_tested_and_not_trained_on(self, lightgcn):
        (lightgcn / "test.txt").write_text("0 11 13\n1 10\n")
        raw = parse_lightgcn(lightgcn, "yelp")
        assert raw.notices == ("yelp: 2 training rows are also test rows, and are left out of training",)
        rows = raw.ratings.select("user_id", "item_id", "fold").rows()
        assert rows == [(0, 10, None), (0, 12, None), (0, 11, 1), (0, 13, 1), (1, 10, 1)]
        # the duplicate rule would have kept the same rows, were the training copies still there
        copies = pl.DataFrame({"user_id": [0, 1], "item_id": [11, 10]}).with_columns(
            pl.lit(1.0, pl.Float32).alias("rating"),
            pl.lit(0, pl.Int64).alias("time"),
            pl.lit(None, pl.Int8).alias("fold"),
        )
        both = pl.concat([copies, raw.ratings])
        table = build_interactions(raw).table
        kept = build_interactions(type(raw)(raw.name, "", both, raw.items, raw.users)).table
        assert kept.sort("user", "item").equals(table.sort("user", "item"))

    def test_id_lists_beside_it_are_not_read(self, lightgcn):
        expected = load_folder(lightgcn)
        (lightgcn / "item_list.txt").write_text("org_id remap_id\nabc 0\n")
        (lightgcn / "user_list.txt").write_text("org_id remap_id\nabc 0\n")
        raw = load_folder(lightgcn)
        assert raw.ratings.equals(expected.ratings)
        assert raw.sha256 == expected.sha256

    @pytest.mark.parametrize(
        ("line", "given"),
        [
            ("0 x", "x"),
            ("u 1", "u"),
            ("0 -1", "-1"),
            ("-1 1", "-1"),
            ("0 1.0", "1.0"),
            ("0,1,2", "0,1,2"),
            ("0 nan", "nan"),
            ("0 99999999999999999999", "99999999999999999999"),
            ("0 1 \xff", "\xff"),
            ("0 +1", "+1"),
        ],
    )
    @pytest.mark.parametrize("name", ["train.txt", "test.txt"])
    def test_what_is_no_id_is_named_with_its_file_and_line(self, lightgcn, name, line, given):
        (lightgcn / name).write_bytes(f"0 1 2\n\n{line}\n1 y\n".encode("latin-1"))
        with pytest.raises(RecflowError) as caught:
            parse_lightgcn(lightgcn, "yelp")
        assert f"{name}, line 3: {given!r} given, expected a user and its items as whole" in str(caught.value)

    @pytest.mark.parametrize("content", ["", "\n", "0\n1\n"])
    def test_a_file_without_interactions_is_refused(self, lightgcn, content):
        (lightgcn / "test.txt").write_text(content)
        with pytest.raises(RecflowError, match=r"test\.txt (is empty|holds no interaction)"):
            parse_lightgcn(lightgcn, "yelp")

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 99), max_size=5)), min_size=1, max_size=6
        ),
        st.sampled_from([" ", "  ", "\t"]),
        st.sampled_from(["\n", "\r\n", " \n"]),
    )
    def test_it_reads_what_a_loop_over_the_lines_reads(self, lists, gap, end):
        text = "".join(gap.join(map(str, (user, *items))) + end for user, items in lists)
        expected = [(user, item) for user, items in lists for item in items]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "train.txt").write_text(text, newline="")
            (folder / "test.txt").write_text("0 100\n")
            if not expected:
                with pytest.raises(RecflowError, match=r"train\.txt holds no interaction"):
                    parse_lightgcn(folder, "any")
                return
            raw = parse_lightgcn(folder, "any")
        assert raw.ratings.select("user_id", "item_id").rows() == [*expected, (0, 100)]
        assert raw.users["user_id"].to_list() == sorted({0, *(user for user, _ in lists)})

    @pytest.mark.data
    def test_gowalla_has_its_published_size(self):
        raw = load_folder(real("gowalla"))
        assert (raw.users.height, raw.items.height) == (29_858, 40_981)
        assert raw.ratings["fold"].null_count() == 810_128
        assert (raw.ratings["fold"] == 1).sum() == 217_242
        data = build_interactions(raw)
        assert (data.num_users, data.num_items, data.table.height) == (29_858, 40_981, 1_027_370)
        assert data.notices == ()


class TestNCF:
    def test_ratings_and_negatives_are_read_but_for_the_tested_item(self, ncf):
        raw = parse_ncf(ncf, "tiny", "x")
        assert raw.ratings.rows() == [
            (0, 0, 5.0, 100, None),
            (0, 1, 3.0, 101, None),
            (1, 0, 4.0, 102, None),
            (0, 2, 4.0, 200, 1),
            (1, 3, 1.0, 201, 1),
        ]
        assert raw.negatives.rows() == [(0, 3), (0, 4), (1, 1), (1, 2), (1, 5)]
        assert raw.notices == ("tiny: 1 of the 6 published negatives are the user's own tested item: left out",)
        assert (raw.has_ratings, raw.has_times) == (True, True)
        assert raw.items["item_id"].to_list() == [0, 1, 2, 3, 4, 5]
        assert build_interactions(raw).negatives.rows() == [(0, 3), (1, 1), (1, 2)]

    def test_without_times_and_stars_it_says_so(self, ncf):
        (ncf / "x.train.rating").write_text("0\t0\t1\n1\t0\t1\n")
        (ncf / "x.test.rating").write_text("0\t2\t1\n1\t3\t1\n")
        raw = parse_ncf(ncf, "tiny", "x")
        assert (raw.has_ratings, raw.has_times) == (False, False)
        assert set(raw.ratings["time"]) == {0}

    def test_a_later_training_copy_does_not_oust_the_test_row(self, ncf):
        (ncf / "x.train.rating").write_text("0\t2\t5\t999\n0\t1\t3\t101\n1\t0\t4\t102\n")
        raw = parse_ncf(ncf, "tiny", "x")
        assert raw.notices[0] == "tiny: 1 training rows are also test rows, and are left out of training"
        assert build_interactions(raw).table["fold"].drop_nulls().len() == 2

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            (
                "x.test.negative",
                "(0,2)\t3\n",
                r"x\.test\.negative: 1 lines given, expected 2, one for each line of x\.test",
            ),
            (
                "x.test.negative",
                "(0,2)\t3\n(1,4)\t2\n",
                r"negative, line 2: '\(1,4\)' given, expected '\(1,3\)' as in line 2",
            ),
            ("x.test.negative", "(0,2)\t3\n\n(2,3)\t2\n", r"negative, line 3: '\(2,3\)' given, expected '\(1,3\)'"),
            ("x.test.negative", "(0,2)\t3\n1,3\t2\n", r"negative, line 2: '1,3' given, expected '\(user,item\)'"),
            (
                "x.test.negative",
                "(0,2)\t3\n(1,3) 2\n",
                r"negative, line 2: '\(1,3\) 2' given, expected '\(user,item\)'",
            ),
            ("x.test.negative", "(0,2)\t3\tx\n(1,3)\t2\n", r"negative, line 1: 'x' given, expected items as whole"),
            ("x.test.negative", "(0,2)\t3\n(1,3)\n", r"negative, line 2: '\(1,3\)' given, .* and then items"),
            ("x.test.negative", "(0,2)\t3\n(1,3)\t-2\n", r"negative, line 2: '-2' given, expected items as whole"),
            ("x.test.negative", "", r"negative is empty"),
            (
                "x.test.rating",
                "0\t2\t4\t200\n9\t3\t1\t201\n",
                r"test\.rating, line 2: user 9 given, .* with training rows",
            ),
            ("x.test.rating", "0\t2\t4\t200\n0\t3\t1\t201\n", r"test\.rating, line 2: user 0 given again"),
            (
                "x.test.rating",
                "0\t2\t4\t200\n1\t3\tnan\t201\n",
                r"test\.rating, line 2: .* 'user\\titem\\trating\\ttime'",
            ),
            ("x.train.rating", "0\t0\t5\t1\n1\t-1\t3\t2\n", r"train\.rating, line 2: .* expected ids from 0"),
            ("x.train.rating", "0\t0\t5\t1\n1\t1\t3\t-2\n", r"train\.rating, line 2: .* expected a time from 0"),
            ("x.train.rating", "0,0,5,1\n", r"train\.rating, line 1: '0,0,5,1' given, expected"),
            ("x.train.rating", "a\t0\t5\t1\n", r"train\.rating, line 1: .* in numbers"),
            ("x.train.rating", "", r"train\.rating is empty"),
        ],
    )
    def test_what_does_not_fit_is_named_with_its_file_and_line(self, ncf, name, content, message):
        (ncf / name).write_text(content)
        with pytest.raises(RecflowError, match=message) as caught:
            parse_ncf(ncf, "tiny", "x")
        assert "\n" not in str(caught.value)

    @pytest.mark.data
    def test_the_published_protocol_has_its_size_less_its_defect(self):
        raw = load_folder(real("ncf-ml-1m"))
        assert raw.ratings["fold"].null_count() == 994_169
        assert (raw.ratings["fold"] == 1).sum() == 6_040
        assert raw.negatives.height == 597_960 - 156
        assert "156 of the 597,960 published negatives" in raw.notices[0]
        data = build_interactions(raw)
        assert (data.num_users, data.num_items) == (6_040, 3_706)
        assert data.negatives.height == raw.negatives.height
        assert data.negatives.join(data.table, on=["user", "item"], how="semi").is_empty()


class TestForms:
    @pytest.mark.parametrize(
        ("files", "form"),
        [
            (["u.data", "u.item"], "MovieLens 100K"),
            (["ratings.dat", "movies.dat", "users.dat"], "MovieLens 1M"),
            (["ratings.dat", "movies.dat"], "MovieLens 10M"),
            (["ratings.csv"], "MovieLens CSV"),
            (["train.txt", "test.txt", "item_list.txt"], "LightGCN"),
            (["a.train.rating"], "NCF"),
        ],
    )
    def test_a_folder_is_known_by_its_files(self, tmp_path, files, form):
        for name in files:
            (tmp_path / name).write_text("")
        assert form_of(tmp_path).describe.startswith(form + " (")

    @pytest.mark.parametrize("files", [[], ["train.txt"], ["ratings.txt", "x.inter"]])
    def test_a_folder_of_no_form_is_refused_with_the_forms_there_are(self, tmp_path, files):
        for name in files:
            (tmp_path / name).write_text("")
        with pytest.raises(RecflowError, match="has no form that is known") as caught:
            load_folder(tmp_path)
        assert all(
            name in str(caught.value)
            for name in ("u.data", "ratings.dat", "ratings.csv", "train.txt", "NAME.train.rating")
        )
        assert "\n" not in str(caught.value)

    def test_a_folder_of_two_forms_is_refused(self, lightgcn):
        (lightgcn / "ratings.csv").write_text("")
        with pytest.raises(RecflowError, match=r"several forms at once, MovieLens CSV .*, LightGCN .*keep one"):
            load_folder(lightgcn)

    @pytest.mark.parametrize("name", ["nowhere", "file"])
    def test_what_is_no_folder_is_refused(self, tmp_path, name):
        (tmp_path / "file").write_text("")
        with pytest.raises(RecflowError, match=f"{name} is no folder"):
            load_folder(tmp_path / name)

    def test_one_of_several_ncf_datasets_must_be_named(self, ncf):
        for file in list(ncf.iterdir()):
            shutil.copy(file, ncf / file.name.replace("x.", "pinterest-20."))
        with pytest.raises(RecflowError, match="several datasets, pinterest-20, x, expected one"):
            load_folder(ncf)
        with pytest.raises(RecflowError, match="several datasets"):
            load_folder(ncf, "other")
        assert load_folder(ncf, "pinterest-20").name == "pinterest-20"

    def test_a_dataset_is_called_like_its_folder_unless_told(self, ncf, monkeypatch):
        monkeypatch.chdir(ncf)
        assert load_folder(Path()).name == "ncf"
        assert load_folder(ncf, "mine").name == "mine"

    def test_movielens_of_any_length_is_read(self, tmp_path):
        (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,964982703\n")
        (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,Toy Story (1995),Comedy\n")
        assert load_folder(tmp_path).ratings.height == 1
