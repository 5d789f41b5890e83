"""Captchas of an attempt: new, the same for both networks, the same for any number of workers."""

import guesser
import numpy as np
import pytest

from captchalab.data import dataset, rendering
from captchalab.params import SPLITS, SplitParams
from captchalab.reading import predictor
from captchalab.registry import gate
from captchalab.registry.gate import Attempt


@pytest.fixture(scope="module")
def networks(guesses):
    return [predictor.load(guesses(answers) / "export" / "model.onnx") for answers in (0.5, 1.0)]


def test_each_network_predicts_the_same_captchas(networks):
    found = gate.predict(networks, Attempt(1, 7, 1, 600), workers=1)
    less, more = found.right
    assert len(less) == len(more) == 600
    assert (less <= more).all(), "whoever answers more is right wherever one that answers less is"
    assert less.mean() == pytest.approx(0.25, abs=0.09) and more.mean() == pytest.approx(0.5, abs=0.1)


def test_what_counts_is_exact_match_with_the_captchas_own_text(networks, captcha):
    attempt = Attempt(1, 7, 1, 50)
    texts = [rendering.draw_random(captcha, 7, "gate-1", i)[0] for i in range(50)]
    assert gate.predict(networks[1:], attempt, workers=1).right[0].tolist() == [text == "A" for text in texts]


def test_chunks_and_workers_change_nothing(networks, monkeypatch):
    attempt = Attempt(1, 7, 1, 90)
    one = gate.predict(networks, attempt, workers=1)
    monkeypatch.setattr(gate, "CHUNK_IMAGES", 15)
    two = gate.predict(networks, attempt, workers=2)
    assert one.digest == two.digest
    assert np.array_equal(one.right, two.right)


@pytest.mark.parametrize("other", [Attempt(2, 7, 1, 50), Attempt(1, 8, 1, 50), Attempt(1, 7, 1, 51)])
def test_another_attempt_another_registry_and_another_n_have_digests_of_their_own(networks, other):
    digests = [gate.predict(networks[:1], attempt, workers=1).digest for attempt in (Attempt(1, 7, 1, 50), other)]
    assert digests[0] != digests[1]


def test_no_captcha_of_an_attempt_is_in_a_split(captcha, tmp_path):
    """Not even where the splits' seed is the registry's."""
    drawn = {
        name: {pixels.tobytes() for pixels in _images(captcha, name, tmp_path)}
        for name in (*SPLITS, "gate-1", "gate-2")
    }
    assert sum(map(len, drawn.values())) == len(set.union(*drawn.values()))


def _images(captcha, name, folder):
    if name in SPLITS:
        dataset.generate(captcha, name, SplitParams(images=100), 7, folder / name, workers=1)
        return np.load(folder / name / "images.npy")
    return [rendering.draw_random(captcha, 7, name, i)[1] for i in range(100)]


def test_latency_is_positive_and_in_milliseconds(networks):
    result = gate.measure(networks[0])
    assert result.latency_ms > 0 and len(result.right) == 0
    assert (result.kind, result.captcha.alphabet) == ("ctc", guesser.CAPTCHA["alphabet"])
