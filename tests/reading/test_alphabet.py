import pytest
from pydantic import ValidationError

from captchalab import params, yaml
from captchalab.errors import UserError
from captchalab.reading.alphabet import blank, decode, encode
from captchalab.reading.captcha import CaptchaParams

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def test_an_index_is_the_place_in_the_alphabet():
    assert encode("09AZ", ALPHABET).tolist() == [0, 9, 10, 35]


@pytest.mark.parametrize("alphabet", [ALPHABET, "ab", "äöüß€"])
def test_decoding_undoes_encoding(alphabet):
    assert decode(encode(alphabet[::-1], alphabet), alphabet) == alphabet[::-1]


def test_the_blank_comes_after_the_last_character():
    assert blank(ALPHABET) == 36


def test_a_character_outside_the_alphabet_is_named():
    with pytest.raises(ValueError, match="'a' of 'Za' is not in the alphabet '01.*Z'"):
        encode("Za", ALPHABET)


LONGEST = "".join(map(chr, range(0x4E00, 0x4E00 + 255)))


def test_the_longest_alphabet_keeps_its_indices_in_a_byte():
    assert encode(LONGEST[-1], LONGEST).tolist() == [254]
    assert decode(encode(LONGEST, LONGEST), LONGEST) == LONGEST
    assert blank(LONGEST) == 255


def test_a_longer_one_is_refused():
    with pytest.raises(ValueError, match="The alphabet has 256 characters; class indices reach 255"):
        encode("a", LONGEST + "a")


@pytest.mark.parametrize(("alphabet", "problem"), [(LONGEST + "a", "at most 255"), ("a", "at least 2")])
def test_the_captchas_description_refuses_what_cannot_be_an_alphabet(alphabet, problem):
    with pytest.raises(ValidationError, match=f"should have {problem} characters"):
        CaptchaParams(alphabet=alphabet, length=4, width_px=128, height_px=64, channels=1)


def test_params_yaml_is_refused_with_such_an_alphabet_in_one_sentence(smoke_text):
    content = yaml.parse(smoke_text)
    content["captcha"]["alphabet"] = LONGEST + "a"
    with pytest.raises(UserError, match=r"params.yaml: captcha.alphabet = .*at most 255 characters\.$"):
        params.check(content)
