"""Decoding against brute force: every path of a small CTC output, summed."""

import itertools

import numpy as np
import pytest

from captchalab.reading.decoding import exact_length, greedy, log_softmax, text_log_probability

ALPHABET = "ABC"
BLANK = 3
T = 5


def texts_of_all_paths(logits: np.ndarray) -> dict[str, float]:
    """P(text) of one image's logits (T, K+1), the long way."""
    log_probs = log_softmax(logits)
    found: dict[str, float] = {}
    for path in itertools.product(range(BLANK + 1), repeat=len(logits)):
        kept = [k for k, _ in itertools.groupby(path) if k != BLANK]
        text = "".join(ALPHABET[k] for k in kept)
        found[text] = found.get(text, 0.0) + np.exp(sum(log_probs[t, k] for t, k in enumerate(path)))
    return found


@pytest.fixture(params=range(12))
def logits(request) -> np.ndarray:
    return np.random.default_rng(request.param).normal(0, 2, (1, T, BLANK + 1))


def path_logits(path: str) -> np.ndarray:
    """Logits that put nearly all on one path; `-` is the blank."""
    classes = ["ABC-".index(c) for c in path]
    return np.where(np.arange(BLANK + 1) == np.array(classes)[:, None], 20.0, 0.0)[None]


@pytest.mark.parametrize(
    ("path", "text"),
    [("AAB-C", "ABC"), ("A-A-A", "AAA"), ("AAAAA", "A"), ("-----", ""), ("--B--", "B"), ("AB-BA", "ABBA")],
)
def test_ctc_greedy_drops_repeats_then_blanks(path, text):
    [found] = greedy("ctc", path_logits(path), ALPHABET)
    assert found.text == text


@pytest.mark.parametrize("text", ["", "A", "AA", "AB", "CBA"])
def test_a_ctc_texts_probability_is_the_sum_over_its_paths(logits, text):
    [log_probability] = text_log_probability("ctc", logits, [text], ALPHABET)
    assert np.exp(log_probability) == pytest.approx(texts_of_all_paths(logits[0])[text], abs=1e-12)


def test_texts_of_different_lengths_share_a_batch(logits):
    texts = ["", "AB", "CBA"]
    together = text_log_probability("ctc", np.repeat(logits, 3, 0), texts, ALPHABET)
    alone = [text_log_probability("ctc", logits, [text], ALPHABET)[0] for text in texts]
    assert together == pytest.approx(alone)


def test_a_text_that_does_not_fit_has_no_probability():
    [log_probability] = text_log_probability("ctc", np.zeros((1, 3, 4)), ["AAA"], ALPHABET)  # needs 5 steps
    assert np.exp(log_probability) == 0.0


def test_ctc_confidence_is_the_probability_of_the_text_not_of_the_path(logits):
    [found] = greedy("ctc", logits, ALPHABET)
    assert found.confidence == pytest.approx(texts_of_all_paths(logits[0])[found.text])


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_best_text_of_a_length_is_the_best_of_all(logits, length):
    [found] = exact_length(logits, ALPHABET, length, beam_width=20)
    of_length = {text: p for text, p in texts_of_all_paths(logits[0]).items() if len(text) == length}
    assert found.text == max(of_length, key=of_length.__getitem__)
    assert found.confidence == pytest.approx(of_length[found.text])


@pytest.mark.parametrize("beam_width", [1, 2, 10])
def test_the_length_always_comes_out(beam_width):
    logits = np.random.default_rng(0).normal(0, 3, (50, 7, 4))
    assert {len(found.text) for found in exact_length(logits, ALPHABET, 4, beam_width)} == {4}


def test_a_repeated_character_is_found_when_steps_just_suffice():
    [found] = exact_length(path_logits("A-A-A"), ALPHABET, 3)
    assert found.text == "AAA"


def test_cnn_takes_the_best_class_of_each_position_and_multiplies_their_probabilities():
    probabilities = np.array([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]])
    [found] = greedy("cnn", np.log(probabilities), ALPHABET)
    assert (found.text, found.confidence) == ("AC", pytest.approx(0.56))


def test_cnn_probability_of_a_given_text():
    probabilities = np.array([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]])
    [log_probability] = text_log_probability("cnn", np.log(probabilities), ["BA"], ALPHABET)
    assert np.exp(log_probability) == pytest.approx(0.02)


def test_large_logits_do_not_overflow():
    assert np.isfinite(log_softmax(np.array([[1e4, -1e4, 0.0]]))).all()
