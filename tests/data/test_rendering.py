"""Captchas are those of the package `captcha`, byte for byte; more of them: benchmarks/drawing.py --check 1000."""

import random
import string
import time
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from captcha.image import ImageCaptcha

from captchalab.data import rendering
from captchalab.data.drawing import noise, painting
from captchalab.data.rendering import Renderer, draw_batch, draw_random, draw_text, prepare
from captchalab.errors import UserError

UPPER = string.digits + string.ascii_uppercase
FONTS = [
    str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)) for name in ("DejaVuSerif-Italic.ttf", "cmr10.ttf")
]
IMAGES = 40


def of_the_package(
    package: ImageCaptcha, alphabet: str, length: int, channels: int, key: int
) -> tuple[str, np.ndarray]:
    """What the package draws from Python's `random`, seeded with a key."""
    random.seed(key)
    text = "".join(random.choices(alphabet, k=length))
    image = package.generate_image(text)
    return text, np.asarray(image.convert("L"))[..., None] if channels == 1 else np.asarray(image)


@pytest.mark.parametrize(
    ("alphabet", "length", "width", "height", "channels", "fonts"),
    [
        (UPPER, 4, 128, 64, 1, None),
        (UPPER, 4, 128, 64, 3, None),
        (string.ascii_lowercase, 5, 170, 80, 3, None),  # w begins left of its origin: the package cuts it there
        (string.digits, 2, 64, 32, 3, None),  # lower than its glyphs
        (UPPER, 3, 60, 150, 3, None),  # the curve's ellipse stands upright
        (UPPER, 20, 100, 40, 1, None),  # shrunk to a twelfth
        ("WM", 1, 16, 16, 3, None),
        ("jÄ{,¸", 4, 128, 64, 3, FONTS[:1]),
        ("MNOU", 2, 128, 64, 3, FONTS[1:]),  # Pillow resizes glyphs as low as these from above first
    ],
)
def test_images_are_those_of_the_package_captcha_byte_for_byte(alphabet, length, width, height, channels, fonts):
    package = ImageCaptcha(width, height, fonts=fonts, font_sizes=(42, 50, 56) if fonts is None else (20, 64))
    keys = [rendering._key(1, "these", i) for i in range(IMAGES)] + [0, 7, 2**32, 2**96]
    labels, images = Renderer(package, alphabet, channels).random(keys, length, [1.0] * len(alphabet))
    for key, label, image in zip(keys, labels, images, strict=True):
        text, pixels = of_the_package(package, alphabet, length, channels, key)
        assert "".join(alphabet[k] for k in label) == text
        assert np.array_equal(image, pixels), f"key {key}, text {text}"


def test_a_captcha_of_a_given_text_is_the_packages_too(smoke):
    pixels = draw_text(smoke.captcha, "0O1I", 3, 5)
    random.seed(rendering._key(3, "text", "0O1I", 5))
    assert np.array_equal(pixels[..., 0], np.asarray(ImageCaptcha(128, 64).generate_image("0O1I").convert("L")))


def test_texts_with_weights_are_those_of_random_choices(smoke):
    weights = {"0": 4.0, "O": 2.5, "X": 0.0}
    labels, _ = draw_batch(smoke.captcha, 1, "train", 0, 100, weights)
    for i, label in enumerate(labels):
        random.seed(rendering._key(1, "train", i))
        expected = random.choices(UPPER, [weights.get(char, 1.0) for char in UPPER], k=4)
        assert [UPPER[k] for k in label] == expected


def test_weights_of_1_change_nothing(smoke):
    plain, named = (draw_batch(smoke.captcha, 1, "train", 0, 10, weights) for weights in ({}, {"0": 1.0, "Z": 1}))
    assert all(map(np.array_equal, plain, named))


def test_an_image_depends_on_seed_split_and_index_only(smoke):
    text, pixels = draw_random(smoke.captcha, 1, "train", 5)
    labels, batch = draw_batch(smoke.captcha, 1, "train", 0, 40)
    assert text == "".join(UPPER[k] for k in labels[5])
    assert np.array_equal(pixels, batch[5])


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
    draw_text(smoke.captcha, "AB12", 1)
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


def test_rounding_to_15_places_is_pythons():
    random.seed(1)
    values = [random.uniform(-1, 1) for _ in range(20_000)] + [0.0, 1.0, -1.0, 0.5]
    assert [painting._round_15.py_func(value) for value in values] == [round(value, 15) for value in values]


def test_a_thirteenth_is_rounded_as_pillow_does():
    sums = np.arange(13 * 255 + 1, dtype=np.uint32)
    assert np.array_equal(noise._thirteenth.py_func(sums), np.round(sums / 13))


def test_characters_that_the_font_lacks_are_refused(smoke):
    captcha = smoke.captcha.model_copy(update={"alphabet": "0Oé中文"})
    with pytest.raises(UserError, match="captcha.alphabet has 中 文, which the font of the package captcha lacks"):
        rendering.prepare(captcha)


def test_long_compilation_is_said_and_a_short_one_is_not(smoke, capsys, monkeypatch):
    prepare(smoke.captcha)
    capsys.readouterr()
    prepare(smoke.captcha)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(rendering, "COMPILING_AFTER_S", 0.0)
    monkeypatch.setattr(rendering, "draw_batch", lambda *_: time.sleep(0.5))
    prepare(smoke.captcha)
    assert capsys.readouterr().err == "drawing: compiling for this machine, half a minute the first time\n"
