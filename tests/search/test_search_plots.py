"""Pictures of studies: Optuna's own trial objects, made without any training."""

import random
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from PIL import Image

from captchalab.search import plots
from captchalab.search.scales import Parameter

SPACE = {
    "width": CategoricalDistribution([0.5, 1.0]),
    "models.ctc.filters": CategoricalDistribution(["[32, 64, 128, 256]", "[16, 32]"]),
    "models.ctc.conv_depth": IntDistribution(1, 2),
    "models.ctc.rnn_size": IntDistribution(32, 256, log=True),
    "train.ctc.dropout": FloatDistribution(0.0, 0.5),
    "train.ctc.learning_rate": FloatDistribution(3e-4, 5e-3, log=True),
}
ALL = {f"{name}.png" for name in ("history", "importance", "intermediate", "parallel", "pareto", "slice")}
COMPLETE, PRUNED, FAIL, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING


def trial(
    number: int, state: TrialState = COMPLETE, epochs: int = 3, limit: float = -1.0, **more: float
) -> FrozenTrial:
    rng = random.Random(number)
    curve = {6000 * epoch: rng.random() * epoch / 3 for epoch in range(1, epochs + 1)}
    values = {
        "width": rng.choice([0.5, 1.0]),
        "models.ctc.filters": rng.choice(["[32, 64, 128, 256]", "[16, 32]"]),
        "models.ctc.conv_depth": rng.randint(1, 2),
        "models.ctc.rnn_size": rng.randint(32, 256),
        "train.ctc.dropout": rng.random() / 2,
        "train.ctc.learning_rate": 10 ** rng.uniform(-3.5, -2.4),
    }
    return create_trial(
        state=state,
        value=max(curve.values()) if state == COMPLETE else None,
        params=values,
        distributions=SPACE,
        intermediate_values=curve,
        user_attrs={"seconds": 60 * rng.random(), "parameters": rng.randint(10_000, 900_000)},
        constraints={"parameters": limit},
    )


def study(*trials: FrozenTrial) -> optuna.Study:
    made = optuna.create_study(direction="maximize", study_name="captcha-ctc")
    made.add_trials(trials)
    return made


MANY = [
    *(trial(number) for number in range(9)),
    trial(9, PRUNED, epochs=2),
    trial(10, PRUNED, epochs=0),
    trial(11, FAIL, epochs=1),
    trial(12, limit=2.0),
    trial(13, RUNNING, epochs=1),
]


def test_a_study_has_six_pictures_the_same_bytes_for_the_same_trials(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        assert plots.draw(study(*MANY), "ctc", tmp_path / name) == []
        assert {path.name for path in (tmp_path / name).iterdir()} == ALL
        contents.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert contents[0] == contents[1]
    for path in (tmp_path / "a").iterdir():
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert np.ptp(np.asarray(image.convert("L"))) > 50, f"{path.name} is empty"
        assert path.stat().st_size < 300_000


@pytest.mark.parametrize(
    "trials",
    [[trial(0)], [trial(0), trial(1)], [trial(0, PRUNED)], [trial(0, limit=1.0)]],
    ids=["one", "two", "pruned", "beyond a limit"],
)
def test_a_young_study_has_all_pictures_but_importance_and_says_why(tmp_path: Path, trials: list[FrozenTrial]) -> None:
    [left_out] = plots.draw(study(*trials), "cnn", tmp_path)
    assert left_out.startswith("importance.png is left out: it takes 8 complete trials")
    assert {path.name for path in tmp_path.iterdir()} == ALL - {"importance.png"}


@pytest.mark.parametrize("trials", [[], [trial(0, FAIL, epochs=0), trial(1, RUNNING)]], ids=["none", "failed"])
def test_a_study_without_a_score_has_no_pictures(tmp_path: Path, trials: list[FrozenTrial]) -> None:
    [sentence] = plots.draw(study(*trials), "cnn", tmp_path)
    assert "no pictures yet" in sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], []),
        ([(1.0, 50.0)], [(1.0, 50.0)]),
        ([(2.0, 60.0), (1.0, 50.0)], [(1.0, 50.0), (2.0, 60.0)]),
        ([(1.0, 50.0), (2.0, 50.0), (3.0, 40.0)], [(1.0, 50.0)]),
        ([(1.0, 50.0), (1.0, 70.0), (2.0, 80.0)], [(1.0, 70.0), (2.0, 80.0)]),
    ],
    ids=["none", "one", "both", "dearer and no better", "as dear and better"],
)
def test_front(points: list[tuple[float, float]], expected: list[tuple[float, float]]) -> None:
    assert plots.front(points) == expected


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("width", ["0.5", "1"]),
        ("models.ctc.filters", ["[32, 64, 12…", "[16, 32]"]),
        ("models.ctc.conv_depth", ["1", "2"]),
        ("models.ctc.rnn_size", ["32", "100", "256"]),
        ("train.ctc.dropout", ["0", "0.25", "0.5"]),
        ("train.ctc.learning_rate", ["3e-4", "1e-3", "5e-3"]),
    ],
)
def test_an_axis_says_its_values_in_few_letters(key: str, words: list[str]) -> None:
    ticks = Parameter(key, key, SPACE[key]).ticks()
    assert [word for _, word in ticks] == words


def test_the_ends_of_an_axis_are_0_and_1() -> None:
    for key, distribution in SPACE.items():
        parameter = Parameter(key, key, distribution)
        assert [parameter.share(end) for end in parameter.ends] == pytest.approx([0, 1])
    rate = Parameter("rate", "rate", FloatDistribution(1e-4, 1e-2, log=True))
    assert rate.share(1e-3) == pytest.approx(0.5)
