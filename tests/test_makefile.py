"""The Makefile's own decisions, as `make -n` shows them."""

import shutil
import subprocess

import pytest


@pytest.mark.parametrize(("made_in", "told"), [("here", "Nothing to be done"), ("/elsewhere", "-m venv --clear .venv")])
def test_an_environment_that_was_moved_is_recreated(root, tmp_path, made_in, told):
    for name in ("Makefile", "pyproject.toml", "requirements.txt", "requirements-gpu.txt", "requirements-ray.txt"):
        shutil.copyfile(root / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".ready").write_text(f"{tmp_path if made_in == 'here' else made_in}\n")
    done = subprocess.run(["make", "-n", "setup"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert told in done.stdout


@pytest.mark.parametrize(("words", "upgrades"), [([], False), (["UPGRADE=1"], True)])
def test_pins_stay_unless_an_upgrade_is_asked_for(root, tmp_path, words, upgrades):
    shutil.copyfile(root / "Makefile", tmp_path / "Makefile")
    for name in ("pyproject.toml", "requirements.txt", "requirements-gpu.txt", "requirements-ray.txt"):
        (tmp_path / name).touch()
    done = subprocess.run(["make", "-n", "pins", *words], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ("--upgrade" in done.stdout) == upgrades
