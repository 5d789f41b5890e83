import numpy as np
import pytest

from captchalab import params
from captchalab.data.batches import Pool, Stream
from captchalab.data.dataset import SplitData
from captchalab.data.rendering import draw_batch, draw_random


@pytest.fixture
def pool() -> Pool:
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    return Pool(SplitData(images, images.reshape(10, 1), {"digest": "x"}), 4, 1, "train")


def order(pool: Pool, first_step: int, steps: int) -> list[int]:
    return [int(label) for batch in pool.batches(first_step, steps) for label in batch.labels.ravel()]


def test_a_pass_shows_each_image_once(pool):
    shown = order(pool, 0, 5)  # 20 images: two passes; the third batch lies across both
    assert sorted(shown) == sorted([*range(10), *range(10)])
    assert len({*shown[:8]}) == 8


def test_images_and_labels_stay_together(pool):
    for batch in pool.batches(0, 6):
        assert np.array_equal(batch.images.ravel(), batch.labels.ravel())


def test_step_k_is_the_same_batch_wherever_one_starts(pool):
    assert order(pool, 0, 12)[5 * 4 :] == order(pool, 5, 7)


def test_stages_and_seeds_shuffle_differently(pool):
    other_stage = Pool(pool.data, 4, 1, "finetune")
    other_seed = Pool(pool.data, 4, 2, "train")
    assert order(pool, 0, 10) != order(other_stage, 0, 10)
    assert order(pool, 0, 10) != order(other_seed, 0, 10)


def test_image_i_of_the_stream_is_image_i_of_the_pool(smoke):
    stream = Stream(smoke.captcha, 5, 2019, "train", workers=2)
    drawn = [image for batch in stream.batches(2, 3) for image in batch.images]
    again = [image for batch in stream.batches(3, 1) for image in batch.images]
    expected = [draw_random(smoke.captcha, 2019, "train", i)[1] for i in range(10, 25)]
    assert np.array_equal(drawn, expected)
    assert np.array_equal(again, expected[5:10])


def test_image_i_of_a_stream_with_weights_is_image_i_of_a_pool_with_them(smoke):
    weights = {"0": 9.0}
    plain, weighted = (Stream(smoke.captcha, 5, 2019, "train", 1, given) for given in ({}, weights))
    batch = next(weighted.batches(2, 1))
    labels, images = draw_batch(smoke.captcha, 2019, "train", 10, 15, weights)
    assert np.array_equal(batch.labels, labels)
    assert np.array_equal(batch.images, images)
    assert plain.digest != weighted.digest


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_streams_the_same_batches(smoke, workers):
    def drawn(workers: int) -> list[np.ndarray]:
        return [batch.images for batch in Stream(smoke.captcha, 2, 2019, "train", workers).batches(0, 30)]

    assert np.array_equal(drawn(workers), drawn(2))


def test_fine_tuning_streams_other_images_than_training(smoke):
    first = [next(Stream(smoke.captcha, 2, 2019, stage, workers=1).batches(0, 1)).images for stage in params.STAGES]
    assert not np.array_equal(*first)
