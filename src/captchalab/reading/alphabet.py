"""Text <-> class indices, and where the CTC blank is."""

from collections.abc import Iterable

import numpy as np

MAX_CHARACTERS = 255  # class indices are uint8, the blank's after the last character's too


def blank(alphabet: str) -> int:
    """Index of the CTC blank: K, one past the last character."""
    return len(alphabet)


def encode(text: str, alphabet: str) -> np.ndarray:
    """Class indices of a text, uint8 (L,).

    Raises:
        ValueError: a character is not in the alphabet, or the alphabet is longer than uint8 can count.
    """
    if len(alphabet) > MAX_CHARACTERS:
        raise ValueError(f"The alphabet has {len(alphabet)} characters; class indices reach {MAX_CHARACTERS}.")
    for char in text:
        if char not in alphabet:
            raise ValueError(f"{char!r} of {text!r} is not in the alphabet {alphabet!r}.")
    return np.array([alphabet.index(char) for char in text], dtype=np.uint8)


def decode(indices: Iterable[int], alphabet: str) -> str:
    """Text of class indices."""
    return "".join(alphabet[index] for index in indices)
