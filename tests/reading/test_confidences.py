"""Each character's confidence against its definition: every text that differs there alone, one by one."""

import itertools

import numpy as np
import pytest

from captchalab.reading.confidences import of_characters
from captchalab.reading.decoding import greedy, text_log_probability

ALPHABET = "ABC"


def by_definition(logits: np.ndarray, text: str) -> list[float]:
    """P(text) over the sum of P of the texts that differ in one character at most, of one image's logits (T, K+1)."""
    shares = []
    for i in range(len(text)):
        texts = [text[:i] + char + text[i + 1 :] for char in ALPHABET]
        p = np.exp(text_log_probability("ctc", np.stack([logits] * len(texts)), texts, ALPHABET))
        shares.append(p[ALPHABET.index(text[i])] / p.sum())
    return shares


@pytest.mark.parametrize("T", [1, 2, 5, 9, 40])
def test_of_ctc_texts_of_many_lengths_at_once(T):
    logits = np.random.default_rng(T).normal(0, 2, (30, T, len(ALPHABET) + 1))
    texts = [prediction.text for prediction in greedy("ctc", logits, ALPHABET)]
    assert len(set(map(len, texts))) > 1
    assert T < 5 or any(a == b for text in texts for a, b in itertools.pairwise(text))  # a repeated character
    for found, own, text in zip(of_characters("ctc", logits, texts, ALPHABET), logits, texts, strict=True):
        assert found == pytest.approx(by_definition(own, text), abs=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e3])
def test_neither_even_nor_extreme_logits_are_too_much_for_many_time_steps(scale):
    logits = np.random.default_rng(0).normal(0, 1, (3, 600, len(ALPHABET) + 1)) * scale
    texts = [prediction.text for prediction in greedy("ctc", logits, ALPHABET)]
    assert all(0 < share <= 1 for shares in of_characters("ctc", logits, texts, ALPHABET) for share in shares)


def test_for_a_cnn_that_is_the_softmax():
    logits = np.log([[[0.9, 0.1, 0.0001], [0.3, 0.7, 0.0001]]])
    assert of_characters("cnn", logits, ["AB"], ALPHABET)[0] == pytest.approx([0.9, 0.7], abs=1e-3)


def test_an_empty_text_has_no_characters():
    assert of_characters("ctc", np.zeros((2, 5, 4)), ["", "A"], ALPHABET)[0] == []
    assert of_characters("ctc", np.zeros((2, 5, 4)), ["", ""], ALPHABET) == [[], []]
