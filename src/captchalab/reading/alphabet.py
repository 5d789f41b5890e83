"""Text <-> class indices, and where the CTC blank is."""

from collections.abc import Iterable

import numpy as np


def blank(alphabet: str) -> int:
    """Index of the CTC blank: K, one past the last character."""
    return len(alphabet)


def encode(text: str, alphabet: str) -> np.ndarray:
    """Class indices of a text, uint8 (L,).

    Raises:
        ValueError: a character is not in the alphabet.
    """
    return np.array([alphabet.index(char) for char in text], dtype=np.uint8)


def decode(indices: Iterable[int], alphabet: str) -> str:
    """Text of class indices."""
    return "".join(alphabet[index] for index in indices)
