from captchalab.data import counter
from captchalab.data.counter import Counter


def test_a_log_gets_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(counter, "LOG_EVERY_S", 0.0)
    with Counter("generate train", 3000) as images:
        for _ in range(3):
            images.add(1000)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" images, ")[0] for line in lines] == [
        "generate train: 1,000 of 3,000",
        "generate train: 2,000 of 3,000",
    ]


def test_what_is_short_leaves_no_line(capsys):
    with Counter("generate valid", 10) as images:
        images.add(10)
    assert capsys.readouterr().err == ""
