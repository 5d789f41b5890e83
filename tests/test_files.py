import os
import platform
import re
import subprocess
import sys

import pytest

from captchalab.errors import UserError
from captchalab.files import atomic_write, read_json, write_json


def test_a_file_is_written_atomically(tmp_path):
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


LEAVE = """
import sys, time
from pathlib import Path
from captchalab.files import atomic_write
with atomic_write(Path(sys.argv[1])) as partial:
    partial.mkdir()
    partial.with_name(partial.name + "-journal").touch()  # as sqlite does
    print("writing", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    path = tmp_path / "data"
    killed, alive = (
        subprocess.Popen([sys.executable, "-c", LEAVE, path], stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    try:
        for process in (killed, alive):
            assert process.stdout and process.stdout.readline() == "writing\n"
        before = set(tmp_path.iterdir())
        assert len(before) == 6, "of each a folder, a file beside it, and a lock"
        killed.kill()
        killed.wait()
        (tmp_path / ".data.other").touch()
        with atomic_write(path) as partial:
            partial.mkdir()
        left = {p for p in tmp_path.iterdir() if p.name.startswith(".data.partial-")}
        assert len(left) == 3
        assert left < before
        assert path.is_dir() and (tmp_path / ".data.other").exists()
    finally:
        alive.kill()
        alive.wait()


def test_two_writers_at_once_do_not_meet(tmp_path):
    with atomic_write(tmp_path / "file") as one, atomic_write(tmp_path / "file") as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "file").read_text() == "one", "the last to end"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_partial_names_this_machine_and_no_process(tmp_path):
    with atomic_write(tmp_path / "file") as partial:
        assert re.fullmatch(rf"\.file\.partial-[0-9a-f]{{32}}-{re.escape(platform.node())}", partial.name)
        partial.touch()


@pytest.mark.parametrize("folder", [False, True])
def test_content_is_on_the_disk_before_the_move_and_the_move_before_the_end(tmp_path, monkeypatch, folder):
    path = tmp_path / "out"
    synced = []  # inode, and whether the move was made

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_write(path) as partial:
        if folder:
            (partial / "inner").mkdir(parents=True)
            (partial / "inner" / "file").touch()
        else:
            partial.touch()
    written = [path, *path.rglob("*")]
    assert {inode for inode, moved in synced if not moved} == {entry.stat().st_ino for entry in written}
    assert synced[-1] == (tmp_path.stat().st_ino, True)


def test_a_folder_that_cannot_be_replaced_stays(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "folder"):
        pass  # nothing was written
    assert (tmp_path / "folder" / "old").exists()


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


def test_bytes_that_are_no_text_are_not_json_either(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\x00")
    with pytest.raises(UserError, match="a.json is not JSON .*: delete it and recreate it with `dvc repro`"):
        read_json(tmp_path / "a.json")
