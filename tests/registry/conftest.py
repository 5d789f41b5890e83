"""A project whose captchas have one character of two, so that networks that guess have a known exact match."""

from collections.abc import Callable
from pathlib import Path

import guesser
import pytest
import workspace

from captchalab import params, yaml
from captchalab.project import Project
from captchalab.reading.captcha import CaptchaParams
from captchalab.registry.registry import Registry
from captchalab.tracking.store import Store


@pytest.fixture(scope="session")
def guesser_text(smoke_text) -> str:
    return guesser.text(smoke_text)


@pytest.fixture(scope="session")
def captcha(guesser_text) -> CaptchaParams:
    return params.check(yaml.parse(guesser_text)).captcha


@pytest.fixture(scope="session")
def guesses(captcha, tmp_path_factory) -> Callable[[float], Path]:
    """models/ctc of a network that answers this share of all images, and is right on half of them."""
    made: dict[float, Path] = {}

    def of(answers: float) -> Path:
        if answers not in made:
            made[answers] = guesser.make(tmp_path_factory.mktemp("guesser"), captcha, answers)
        return made[answers]

    return of


@pytest.fixture
def project(guesser_text, database, tmp_path, monkeypatch) -> Project:
    """A project without networks, with a test split and an MLflow store; one is in its folder."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    made = workspace.make(tmp_path / "project", guesser_text, database)
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture
def opened(project) -> Registry:
    return Registry(project, Store.of(project))
