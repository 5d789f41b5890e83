import pytest

from captchalab.errors import UserError
from captchalab.files import project_root, read_json, whole, write_json


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "file"
    with whole(path) as partial:
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    with pytest.raises(ValueError), whole(path) as partial:
        partial.write_text("half")
        raise ValueError
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    (tmp_path / ".data.partial-999999999").mkdir()
    (tmp_path / ".data.partial-999999999-journal").touch()  # as sqlite names it
    (tmp_path / ".data.partial-1").mkdir()  # of a process that lives
    with whole(tmp_path / "data") as partial:
        partial.mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".data.partial-1", "data"]


def test_a_folder_replaces_the_one_before(tmp_path):
    for content in ("1", "2"):
        with whole(tmp_path / "folder") as partial:
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


def test_the_project_is_found_from_any_folder_below(tmp_path):
    (tmp_path / "params.yaml").touch()
    (tmp_path / "dvc.yaml").touch()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert project_root(below) == tmp_path.resolve()
