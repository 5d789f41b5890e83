import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from captchalab.data import dataset
from captchalab.errors import UserError
from captchalab.params import SplitParams, TrainSplitParams

GOLDEN = "56d427d06572c40e785d9a5e1b7c0c8577b24f01a0b4c0135442be00c3ba1151"


@pytest.fixture(scope="module")
def train(smoke, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "train"
    dataset.generate(smoke.captcha, "train", SplitParams(images=600), 2019, folder, workers=2)
    return folder


def test_the_first_images_are_the_ones_they_always_were(train):
    images, labels = np.load(train / "images.npy"), np.load(train / "labels.npy")
    assert dataset.digest(images[:64], labels[:64]) == GOLDEN


@pytest.mark.parametrize("workers", [1, 7])
def test_any_number_of_workers_draws_the_same_bytes(smoke, train, tmp_path, workers):
    dataset.generate(smoke.captcha, "train", SplitParams(images=600), 2019, tmp_path / "again", workers)
    for name in ("images.npy", "labels.npy", "meta.json", "samples.png"):
        assert (tmp_path / "again" / name).read_bytes() == (train / name).read_bytes()


def test_a_split_that_the_disk_cannot_hold_is_refused(smoke, tmp_path):
    with pytest.raises(UserError, match=r"train would take 3,278,400,000.0 GB, and its disk has .* GB free: make room"):
        dataset.generate(smoke.captcha, "train", SplitParams(images=400_000_000_000_000), 2019, tmp_path / "train")
    assert not list(tmp_path.iterdir())


def test_a_larger_split_begins_with_the_smaller_one(smoke, train, tmp_path):
    dataset.generate(smoke.captcha, "train", SplitParams(images=50), 2019, tmp_path / "few")
    assert np.array_equal(np.load(tmp_path / "few" / "images.npy"), np.load(train / "images.npy")[:50])


def test_no_image_is_in_two_splits(smoke, train, tmp_path):
    seen = {hashlib.sha256(image).digest() for image in np.load(train / "images.npy")}
    assert len(seen) == 600
    for split in ("valid", "test"):
        dataset.generate(smoke.captcha, split, SplitParams(images=300), 2019, tmp_path / split)
        other = {hashlib.sha256(image).digest() for image in np.load(tmp_path / split / "images.npy")}
        assert not seen & other
        seen |= other


def test_meta_says_what_shaped_the_split(train):
    meta = json.loads((train / "meta.json").read_text())
    assert meta["versions"]["captcha"] == "0.7.0"
    assert (meta["seed"], meta["images"], meta["length"], meta["alphabet"][:3]) == (2019, 600, 4, "012")
    assert meta["digest"] == dataset.digest(np.load(train / "images.npy"), np.load(train / "labels.npy"))


def test_the_digest_sees_the_last_pixel(train):
    images, labels = np.load(train / "images.npy"), np.load(train / "labels.npy")
    before = dataset.digest(images, labels)
    images[-1, -1, -1, -1] ^= 1
    assert dataset.digest(images, labels) != before


def test_texts_are_drawn_uniformly(smoke, tmp_path):
    dataset.generate(smoke.captcha, "train", SplitParams(images=3000), 1, tmp_path / "many")
    counts = np.bincount(np.load(tmp_path / "many" / "labels.npy").ravel(), minlength=36)
    expected = 3000 * 4 / 36
    assert ((counts - expected) ** 2 / expected).sum() < 66.6  # chi-squared, 35 degrees, p = 0.001


WEIGHTS = {"0": 8.0, "O": 0.0}


@pytest.fixture(scope="module")
def weighted(smoke, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weighted") / "train"
    dataset.generate(smoke.captcha, "train", TrainSplitParams(images=500, weights=WEIGHTS), 2019, folder, workers=2)
    return folder


def test_the_train_splits_texts_follow_the_weights(smoke, weighted):
    counts = np.bincount(dataset.load(weighted, smoke.captcha, WEIGHTS).labels.ravel(), minlength=36)
    assert counts[0] == pytest.approx(500 * 4 * 8 / 42, rel=0.2)
    assert counts[24] == 0
    assert counts[1:24].sum() == pytest.approx(500 * 4 * 23 / 42, rel=0.1)


def test_a_split_of_other_weights_is_refused(smoke, train, weighted):
    with pytest.raises(UserError, match=r"weights = \{'0': 8.0, 'O': 0.0\}, params.yaml says \{\}: run `dvc repro`"):
        dataset.load(weighted, smoke.captcha)
    with pytest.raises(UserError, match=r"weights = \{\}, params.yaml says \{'0': 2.0\}: run `dvc repro`"):
        dataset.load(train, smoke.captcha, {"0": 2.0})


def test_what_is_measured_on_has_no_weights():
    with pytest.raises(ValueError, match="weights"):
        SplitParams(images=1, weights=WEIGHTS)


def test_without_weights_meta_is_what_it_was_before_there_were_any(smoke, train, tmp_path):
    dataset.generate(smoke.captcha, "train", TrainSplitParams(images=600, weights={}), 2019, tmp_path / "again")
    assert (tmp_path / "again" / "meta.json").read_bytes() == (train / "meta.json").read_bytes()
    assert "weights" not in json.loads((train / "meta.json").read_text())


def test_the_samples_are_the_first_images_in_a_grid(train):
    with Image.open(train / "samples.png") as grid:
        shown = np.asarray(grid.convert("L"))
    images = np.load(train / "images.npy")[..., 0]
    assert np.array_equal(shown[8:72, 8:136], images[0])
    assert np.array_equal(shown[8 + 90 : 72 + 90, 8 + 136 : 136 + 136], images[7]), "second row, second column"


def test_other_sizes_alphabets_and_lengths_work(smoke, tmp_path):
    captcha = smoke.captcha.model_copy(
        update={"width_px": 170, "height_px": 80, "alphabet": "abcdefghijklmnopqrstuvwxyz", "length": 5}
    )
    dataset.generate(captcha, "train", SplitParams(images=20), 1, tmp_path / "other")
    data = dataset.load(tmp_path / "other", captcha)
    assert data.images.shape == (20, 80, 170, 1)
    assert all(len(text) == 5 and text.islower() for text in data.texts())


def test_an_empty_split_is_allowed(smoke, tmp_path):
    dataset.generate(smoke.captcha, "train", SplitParams(images=0), 1, tmp_path / "none")
    assert dataset.load(tmp_path / "none", smoke.captcha).images.shape == (0, 64, 128, 1)


def test_a_failed_drawing_leaves_the_old_split_and_no_partial_files(smoke, train, tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError("No space left on device")

    dataset.generate(smoke.captcha, "train", SplitParams(images=10), 1, tmp_path / "train")
    before = (tmp_path / "train" / "meta.json").read_bytes()
    monkeypatch.setattr(dataset, "image_grid", full_disk)
    with pytest.raises(OSError):
        dataset.generate(smoke.captcha, "train", SplitParams(images=20), 1, tmp_path / "train")
    assert [path.name for path in tmp_path.iterdir()] == ["train"]
    assert (tmp_path / "train" / "meta.json").read_bytes() == before


def test_a_split_of_other_captchas_is_refused(smoke, train):
    with pytest.raises(UserError, match=r"length = 4, params.yaml says 5: run `dvc repro`"):
        dataset.load(train, smoke.captcha.model_copy(update={"length": 5}))


def test_a_missing_split_is_one_sentence(smoke, tmp_path):
    with pytest.raises(UserError, match=r"meta.json is missing: make it with `dvc repro`"):
        dataset.load(tmp_path / "train", smoke.captcha)
