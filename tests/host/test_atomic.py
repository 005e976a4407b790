"""Files are whole or not there."""

import pytest

from recflow.atomic import replacing, write_text


def break_off(path, error):
    with replacing(path) as scratch:
        scratch.write_text("half")
        raise error


def test_a_file_that_cannot_be_finished_leaves_what_was_there(tmp_path):
    path = tmp_path / "page.html"
    write_text(path, "old")
    with pytest.raises(ValueError, match="broken off"):
        break_off(path, ValueError("broken off"))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_takes_the_place_of_the_old_one_when_it_is_whole(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    with replacing(path) as scratch:
        scratch.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert scratch.suffix == ".png"  # what writes pictures tells their kind by it
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_where_there_was_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        break_off(tmp_path / "a.csv", KeyboardInterrupt())
    assert not list(tmp_path.iterdir())
