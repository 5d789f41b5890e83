"""Every plot is a PNG, the same bytes for the same data, and can be drawn of next to nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captchalab import statistics
from captchalab.evaluation import analysis, plots
from captchalab.evaluation.plots import Shown
from captchalab.networks.models import LayerRow

DIGITS = "0123456789"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Draw = Callable[..., bytes]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Draws twice, under names that do not say PNG; gives the bytes, which must be the same."""

    def drawn(function: Callable[..., None], *args: Any) -> bytes:
        contents = []
        for name in (".a.png.partial-1", "b"):
            function(*args, tmp_path / name)
            contents.append((tmp_path / name).read_bytes())
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG"
            assert "Software" not in image.info
            assert np.ptp(np.asarray(image.convert("L"))) > 50, "an empty plot"
        assert contents[0] == contents[1]
        assert len(contents[0]) < 300_000
        return contents[0]

    return drawn


def history(epochs: int, exact: float = 0.9) -> list[dict[str, float]]:
    share = statistics.wilson(round(1000 * exact), 1000)
    return [
        {
            "epoch": e,
            "step": 10 * e,
            "images_seen": 640 * e,
            "learning_rate": 1e-3 / e,
            "train/loss": 3 / e,
            "val/loss": 3.3 / e,
            **{f"val/{key}": value for key, value in share.as_metrics("exact").items()},
            "val/cer": 0.1,
        }
        for e in range(1, epochs + 1)
    ]


def accuracy(right: int, n: int = 100) -> dict[str, float]:
    return statistics.wilson(right, n).as_metrics("accuracy")


def shown(n: int, prediction: str = "A0C", channels: int = 1) -> list[Shown]:
    slope = np.linspace(0, 255, 32 * 64 * channels).reshape(32, 64, channels)
    images = [(slope + 8 * i).astype(np.uint8) for i in range(n)]
    return [Shown(image, "ABC", prediction, 0.876) for image in images]


class TestCurves:
    @pytest.mark.parametrize(
        "histories",
        [
            {"train": history(6), "finetune": history(2)},
            {"train": history(6)},
            {"finetune": history(2)},
            {"train": history(3), "finetune": []},
            {"train": history(1)},
            {"train": history(4, exact=0.0)},
            {"train": history(4, exact=1.0)},
            {"train": [{**row, "train/loss": 0.0, "val/loss": 0.0} for row in history(2)]},
        ],
        ids=["both", "train", "finetune", "not yet", "one epoch", "reads nothing", "reads all", "loss 0"],
    )
    def test_of(self, draw: Draw, histories: dict[str, list[dict[str, float]]]) -> None:
        draw(plots.curves, histories, "cnn")

    def test_each_kind_has_its_colour(self, draw: Draw) -> None:
        assert len({draw(plots.curves, {"train": history(3)}, kind) for kind in ("cnn", "ctc")}) == 2


class TestConfusions:
    @pytest.mark.parametrize(
        ("pairs", "alphabet"),
        [
            ({("0", "8"): 12, ("8", "0"): 3, ("1", ""): 2, ("", "7"): 1}, DIGITS),
            ({("0", "8"): 1}, DIGITS),
            ({("1", ""): 2}, DIGITS),
            ({}, DIGITS),
            ({(a, b): 5 for a in "OIl" for b in "015"}, DIGITS + LETTERS + LETTERS.lower()),
            ({("$", "é"): 1, ("é", "$"): 2}, "$é"),
        ],
        ids=["mistakes", "one", "only missed", "none", "62 classes", "signs"],
    )
    def test_of(self, draw: Draw, pairs: dict[tuple[str, str], int], alphabet: str) -> None:
        draw(plots.confusions, pairs, alphabet)

    @pytest.mark.parametrize(
        ("pair", "words"), [(("O", "0"), "O read as 0"), (("O", ""), "O missed"), (("", "0"), "0 made up")]
    )
    def test_a_mistake_in_words(self, pair: tuple[str, str], words: str) -> None:
        assert plots.mistake(*pair) == words


class TestAccuracies:
    @pytest.mark.parametrize("alphabet", [DIGITS, DIGITS + LETTERS + LETTERS.lower()], ids=["10", "62"])
    def test_of(self, draw: Draw, alphabet: str) -> None:
        by_character = {char: accuracy(100 - i) for i, char in enumerate(alphabet)}
        draw(plots.accuracies, [accuracy(n) for n in (97, 93, 95)], by_character)

    def test_a_character_that_no_text_has_is_left_out(self, draw: Draw) -> None:
        without, with_it = ({"0": accuracy(9), **more} for more in ({}, {"1": accuracy(0, 0)}))
        places = [accuracy(9)]
        assert draw(plots.accuracies, places, without) == draw(plots.accuracies, places, with_it)


def test_reliability(draw: Draw) -> None:
    bins = analysis.reliability([0.05, 0.55, 0.93, 0.95, 1.0], [False, True, False, True, True])
    rows = [{"low": b.low, "high": b.high, "confidence": b.confidence, **b.exact.as_metrics("exact")} for b in bins]
    draw(plots.reliability, rows, analysis.calibration_error(bins))
    draw(plots.reliability, rows[:1], 0.05)


class TestImageGrid:
    @pytest.mark.parametrize("n", [0, 1, 5, 24])
    def test_of_so_many(self, draw: Draw, n: int) -> None:
        draw(plots.image_grid, shown(n), "Least certain")

    @pytest.mark.parametrize("prediction", ["ABC", "", "ABCD", "$$$", "X" * 40])
    def test_of_the_prediction(self, draw: Draw, prediction: str) -> None:
        draw(plots.image_grid, shown(2, prediction), "Least certain")

    def test_of_colour(self, draw: Draw) -> None:
        draw(plots.image_grid, shown(2, channels=3), "Least certain")


@pytest.mark.parametrize("n", [1, 4])
def test_ctc_output(draw: Draw, n: int) -> None:
    probabilities = np.full((n, 16, 11), 0.001)
    probabilities[:, :, 10] = 0.9
    probabilities[:, 3, 7] = 0.06
    draw(plots.ctc_output, shown(n, "7"), probabilities, DIGITS)


class TestNetwork:
    ROWS = (
        LayerRow("images", "InputLayer", (64, 128, 1), 0),
        LayerRow("block1_1_conv", "Conv2D", (64, 128, 32), 288),
        LayerRow("block1_1_norm", "BatchNormalization", (64, 128, 32), 128),
        LayerRow("block1_1_relu", "ReLU", (64, 128, 32), 0),
        LayerRow("bare_conv", "Conv2D", (64, 128, 8), 96),
        LayerRow("logits", "Dense", (4, 36), 144),
    )

    def test_a_convolution_with_its_norm_and_relu_is_one_box(self) -> None:
        assert plots.fuse(self.ROWS) == [
            (("InputLayer",), "images", (64, 128, 1), 0),
            (("Conv2D", "BatchNormalization", "ReLU"), "block1_1", (64, 128, 32), 416),
            (("Conv2D",), "bare", (64, 128, 8), 96),
            (("Dense",), "logits", (4, 36), 144),
        ]

    @pytest.mark.parametrize("times", [1, 8])
    def test_of(self, draw: Draw, times: int) -> None:
        draw(plots.network, self.ROWS * times, "cnn: 656 parameters")
