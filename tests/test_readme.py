"""The commands that the README names, held against the code. What it says of committed files: `checks/`."""

import re

import pytest

from captchalab.cli import main


@pytest.fixture(scope="module")
def readme(root) -> str:
    return (root / "README.md").read_text()


def test_its_first_two_commands_are_repro_and_test(readme):
    commands = re.findall(r"^(make [a-z]+)", readme, re.M)
    assert commands[:2] == ["make repro", "make test"]


def test_every_make_target_it_names_exists(root, readme):
    makefile = (root / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)", readme)):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_every_verb_it_names_exists(readme):
    named = r"`(?:\.venv/bin/)?captchalab ([a-z-]+)|^\.venv/bin/captchalab ([a-z-]+)"
    for verb in set(re.findall(named, readme, re.M)):
        assert "".join(verb) in main.commands, verb


def test_every_profile_it_names_exists(root, readme):
    for name in set(re.findall(r"captchalab profile ([a-z]+)", readme)):
        assert (root / "profiles" / f"{name}.yaml").exists(), name
