import random

import numpy as np
import pytest
from captcha.image import ImageCaptcha

from captchalab.data.rendering import SeededCaptcha, draw_random, draw_text


@pytest.mark.parametrize(
    ("width", "height", "text"), [(128, 64, "0O1I"), (170, 80, "WWWWWWW"), (128, 64, "gjpqy"), (90, 40, "X")]
)
def test_images_are_those_of_the_package_captcha_byte_for_byte(width, height, text):
    ours, theirs = SeededCaptcha(width, height), ImageCaptcha(width, height)
    for seed in range(40):
        random.seed(seed)
        expected = theirs.generate_image(text)
        after = random.random()
        random.seed(seed)
        assert ours.generate_image(text).tobytes() == expected.tobytes()
        assert random.random() == after, "it takes as many random numbers"


def test_an_image_depends_on_seed_split_and_index_only(smoke):
    text, pixels = draw_random(smoke.captcha, 1, "train", 5)
    for i in (9, 2):
        draw_random(smoke.captcha, 1, "train", i)
    again_text, again = draw_random(smoke.captcha, 1, "train", 5)
    assert text == again_text
    assert np.array_equal(pixels, again)


@pytest.mark.parametrize("other", [(2, "train", 5), (1, "test", 5), (1, "train", 6)])
def test_another_seed_split_or_index_gives_another_image(smoke, other):
    _, pixels = draw_random(smoke.captcha, 1, "train", 5)
    assert not np.array_equal(pixels, draw_random(smoke.captcha, *other)[1])


def test_the_callers_random_state_is_restored(smoke):
    random.seed(3)
    expected = [random.random(), random.random()]
    random.seed(3)
    found = [random.random()]
    draw_random(smoke.captcha, 1, "train", 0)
    assert [*found, random.random()] == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_shape_and_type_follow_the_parameters(smoke, channels):
    captcha = smoke.captcha.model_copy(
        update={"width_px": 170, "height_px": 80, "channels": channels, "length": 5, "alphabet": "abcdefg"}
    )
    text, pixels = draw_random(captcha, 1, "train", 0)
    assert pixels.shape == (80, 170, channels)
    assert pixels.dtype == np.uint8
    assert len(text) == 5
    assert set(text) <= set("abcdefg")


def test_a_given_text_is_drawn_differently_at_each_index(smoke):
    assert not np.array_equal(draw_text(smoke.captcha, "AB12", 1, 0), draw_text(smoke.captcha, "AB12", 1, 1))
