import pytest

from captchalab.reading.alphabet import blank, decode, encode

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def test_an_index_is_the_place_in_the_alphabet():
    assert encode("09AZ", ALPHABET).tolist() == [0, 9, 10, 35]


@pytest.mark.parametrize("alphabet", [ALPHABET, "ab", "äöüß€"])
def test_decoding_undoes_encoding(alphabet):
    assert decode(encode(alphabet[::-1], alphabet), alphabet) == alphabet[::-1]


def test_the_blank_comes_after_the_last_character():
    assert blank(ALPHABET) == 36


def test_a_foreign_character_is_an_error():
    with pytest.raises(ValueError):
        encode("a", ALPHABET)
