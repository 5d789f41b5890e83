import numpy as np
import pytest

from captchalab.training.checkpoints import Checkpoint, State, fingerprint, weights_digest


@pytest.fixture
def state() -> State:
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, dtype=np.int64)]
    return State({"epoch": 2, "best": [0.5, -1.0]}, arrays, [np.zeros(2)], arrays[:1])


def test_what_is_saved_comes_back(tmp_path, state):
    checkpoint = Checkpoint(tmp_path / "ctc")
    checkpoint.save(state)
    loaded = checkpoint.load()
    assert loaded is not None
    assert loaded.progress == state.progress
    for name in ("network", "optimizer", "best"):
        for found, expected in zip(getattr(loaded, name), getattr(state, name), strict=True):
            assert np.array_equal(found, expected)
            assert found.dtype == expected.dtype


def test_more_than_ten_arrays_keep_their_order(tmp_path):
    arrays = [np.array(i) for i in range(120)]
    Checkpoint(tmp_path / "a").save(State({}, arrays, [], []))
    loaded = Checkpoint(tmp_path / "a").load()
    assert loaded is not None
    assert [int(array) for array in loaded.network] == list(range(120))


def test_nothing_saved_is_nothing_loaded(tmp_path):
    assert Checkpoint(tmp_path / "none").load() is None


def test_a_failed_save_leaves_the_one_before(tmp_path, state):
    checkpoint = Checkpoint(tmp_path / "ctc")
    checkpoint.save(state)
    with pytest.raises(TypeError):
        checkpoint.save(state._replace(progress={"epoch": object()}))
    loaded = checkpoint.load()
    assert loaded is not None and loaded.progress["epoch"] == 2
    assert [path.name for path in checkpoint.folder.iterdir()] == ["state.npz"]


def test_a_cleared_checkpoint_is_gone(tmp_path, state):
    checkpoint = Checkpoint(tmp_path / "ctc")
    checkpoint.save(state)
    checkpoint.clear()
    assert not checkpoint.folder.exists()


def test_the_fingerprint_sees_values_and_not_their_order():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_the_weights_digest_sees_values_types_and_shapes():
    a = np.zeros((2, 3), np.float32)
    others = [a + 1, a.reshape(3, 2), a.astype(np.float64)]
    assert weights_digest([a]) == weights_digest([a.copy()])
    assert all(weights_digest([a]) != weights_digest([other]) for other in others)
