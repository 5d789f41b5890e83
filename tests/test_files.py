import pytest

from captchalab.errors import UserError
from captchalab.files import atomic_write, read_json, write_json


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "file"
    with atomic_write(path) as partial:
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    with pytest.raises(ValueError), atomic_write(path) as partial:
        partial.write_text("half")
        raise ValueError
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    (tmp_path / ".data.partial-999999999").mkdir()
    (tmp_path / ".data.partial-999999999-journal").touch()  # as sqlite names it
    (tmp_path / ".data.partial-1").mkdir()  # of a process that lives
    with atomic_write(tmp_path / "data") as partial:
        partial.mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".data.partial-1", "data"]


def test_a_folder_replaces_the_one_before(tmp_path):
    for content in ("1", "2"):
        with atomic_write(tmp_path / "folder") as partial:
            partial.mkdir()
            (partial / content).write_text(content)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["2"]


def test_json_comes_back(tmp_path):
    write_json(tmp_path / "a.json", {"ä": 1.5})
    assert read_json(tmp_path / "a.json") == {"ä": 1.5}


def test_missing_and_broken_json_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="a.json is missing: make it with `dvc repro`"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match="a.json is not JSON"):
        read_json(tmp_path / "a.json")
