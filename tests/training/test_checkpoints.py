import numpy as np
import pytest

from captchalab.training.checkpoints import Checkpoints, State, fingerprint, weights_digest


@pytest.fixture
def state() -> State:
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, dtype=np.int64)]
    return State({"epoch": 2, "best": [0.5, -1.0]}, arrays, [np.zeros(2)], arrays[:1])


def epochs(checkpoints: Checkpoints) -> list[int]:
    """Of the files, newest first."""
    return [int(path.name.split("-")[1]) for path in checkpoints.paths()]


def after(state: State, epoch: int) -> State:
    return state._replace(progress={**state.progress, "epoch": epoch})


def test_what_is_saved_comes_back(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "ctc")
    checkpoints.save(state)
    loaded, damaged = checkpoints.load()
    assert loaded is not None and damaged == []
    assert loaded.progress == state.progress
    for name in ("network", "optimizer", "best"):
        for found, expected in zip(getattr(loaded, name), getattr(state, name), strict=True):
            assert np.array_equal(found, expected)
            assert found.dtype == expected.dtype


def test_more_than_ten_arrays_keep_their_order(tmp_path):
    arrays = [np.array(i) for i in range(120)]
    Checkpoints(tmp_path / "a").save(State({"epoch": 1}, arrays, [], []))
    loaded, _ = Checkpoints(tmp_path / "a").load()
    assert loaded is not None
    assert [int(array) for array in loaded.network] == list(range(120))


def test_nothing_saved_is_nothing_loaded(tmp_path):
    assert Checkpoints(tmp_path / "none").load() == (None, [])


def test_the_two_newest_are_kept(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "ctc")
    for epoch in (8, 9, 10, 11):
        checkpoints.save(after(state, epoch))
    assert epochs(checkpoints) == [11, 10]
    loaded, _ = checkpoints.load()
    assert loaded is not None and loaded.progress["epoch"] == 11


def test_a_failed_save_leaves_the_one_before(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "ctc")
    checkpoints.save(state)
    with pytest.raises(TypeError):
        checkpoints.save(state._replace(progress={"epoch": object()}))
    loaded, _ = checkpoints.load()
    assert loaded is not None and loaded.progress["epoch"] == 2
    assert [path.name for path in checkpoints.folder.iterdir()] == [checkpoints.paths()[0].name]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content.replace(b"\x07", b"\x08", 1),
        lambda content: content + b"\0",
    ],
    ids=["truncated", "empty", "altered", "longer"],
)
def test_a_damaged_file_is_found_by_its_digest_and_the_one_before_is_loaded(tmp_path, state, damage):
    checkpoints = Checkpoints(tmp_path / "ctc")
    checkpoints.save(after(state, 1))
    checkpoints.save(after(state, 2))
    newest = checkpoints.paths()[0]
    assert damage(newest.read_bytes()) != newest.read_bytes()
    newest.write_bytes(damage(newest.read_bytes()))
    loaded, damaged = checkpoints.load()
    assert loaded is not None and loaded.progress["epoch"] == 1
    assert damaged == [newest]
    assert epochs(checkpoints) == [1], "it is removed: the next start has nothing to say"


def test_where_all_are_damaged_nothing_is_loaded(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "ctc")
    for epoch in (1, 2):
        checkpoints.save(after(state, epoch))
    for path in checkpoints.paths():
        path.write_bytes(b"PK")
    loaded, damaged = checkpoints.load()
    assert loaded is None
    assert len(damaged) == 2


def test_a_cleared_checkpoint_is_gone(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "ctc")
    checkpoints.save(state)
    checkpoints.clear()
    assert not checkpoints.folder.exists()


def test_the_fingerprint_sees_values_and_not_their_order():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_the_weights_digest_sees_values_types_and_shapes():
    a = np.zeros((2, 3), np.float32)
    others = [a + 1, a.reshape(3, 2), a.astype(np.float64)]
    assert weights_digest([a]) == weights_digest([a.copy()])
    assert all(weights_digest([a]) != weights_digest([other]) for other in others)
