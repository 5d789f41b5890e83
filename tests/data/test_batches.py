import subprocess
import sys
import textwrap
from itertools import islice

import numpy as np
import psutil
import pytest

from captchalab.data.batches import Pool, Stream
from captchalab.data.dataset import SplitData
from captchalab.data.rendering import draw_random


@pytest.fixture
def pool() -> Pool:
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    return Pool(SplitData(images, images.reshape(10, 1), {"digest": "x"}), 4, 1, "train")


def order(pool: Pool, first_step: int, steps: int) -> list[int]:
    return [int(label) for batch in pool.batches(first_step, steps) for label in batch.labels.ravel()]


def test_a_pass_shows_each_picture_once(pool):
    shown = order(pool, 0, 5)  # 20 pictures: two passes; the third batch lies across both
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


def test_picture_i_of_the_stream_is_picture_i_of_the_pool(smoke):
    stream = Stream(smoke.captcha, 5, 2019, "train", workers=2)
    try:
        drawn = [image for batch in stream.batches(2, 3) for image in batch.images]
        again = [image for batch in stream.batches(3, 1) for image in batch.images]
    finally:
        stream.close()
    expected = [draw_random(smoke.captcha, 2019, "train", i)[1] for i in range(10, 25)]
    assert np.array_equal(drawn, expected)
    assert np.array_equal(again, expected[5:10])


def test_fine_tuning_streams_other_pictures_than_training(smoke):
    first = []
    for stage in ("train", "finetune"):
        stream = Stream(smoke.captcha, 2, 2019, stage, workers=1)
        first.append(next(islice(stream.batches(0, 1), 1)).images)
        stream.close()
    assert not np.array_equal(*first)


def test_workers_end_when_their_trainer_is_killed(smoke_text, tmp_path):
    (tmp_path / "params.yaml").write_text(smoke_text)
    script = tmp_path / "trainer.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        from pathlib import Path
        from captchalab import params
        from captchalab.data.batches import Stream

        if __name__ == "__main__":
            captcha = params.load(Path(sys.argv[1]) / "params.yaml").captcha
            for batch in Stream(captcha, 8, 1, "train", workers=2).batches(0, 10**6):
                print("batch", flush=True)
        """)
    )
    trainer = subprocess.Popen([sys.executable, script, tmp_path], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout and trainer.stdout.readline() == "batch\n"
    workers = psutil.Process(trainer.pid).children(recursive=True)
    assert len(workers) >= 2
    trainer.kill()
    trainer.wait()
    _, alive = psutil.wait_procs(workers, timeout=300)
    assert not alive
