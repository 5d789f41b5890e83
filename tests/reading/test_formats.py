from pathlib import Path

import pytest

from captchalab.reading.formats import refusal


@pytest.mark.parametrize("number", [None, 1, 2, 3])
def test_formats_up_to_the_newest_are_read_and_no_number_is_the_first(number):
    assert refusal(Path("a"), number, 3) is None


@pytest.mark.parametrize("number", [4, 0, -1, "1", 1.5, [1]])
def test_any_other_is_refused_in_one_sentence(number):
    assert refusal(Path("a/b"), number, 3) == (
        f"a/b has format {number}, and this captchalab reads formats up to 3: "
        "use the captchalab that wrote it, or a newer one."
    )
