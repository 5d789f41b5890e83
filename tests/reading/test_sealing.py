import pytest

from captchalab.reading.sealing import PLACEHOLDER, is_intact, seal

CONTENT = b"weights " + PLACEHOLDER.encode() + b" more weights"


@pytest.fixture
def sealed() -> tuple[bytes, str]:
    content = seal(CONTENT)
    return content, content.split()[1].decode()


def test_what_was_sealed_is_intact(sealed):
    assert is_intact(*sealed)


def test_any_other_byte_is_seen(sealed):
    content, digest = sealed
    for at in range(len(content)):
        altered = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        assert not is_intact(altered, digest)


@pytest.mark.parametrize("digest", ["", "7", PLACEHOLDER, "x" * 64])
def test_another_digest_is_seen(sealed, digest):
    assert not is_intact(sealed[0], digest)


@pytest.mark.parametrize("content", [b"", CONTENT * 2])
def test_there_must_be_one_place_for_the_digest(content):
    with pytest.raises(ValueError, match="placeholders, not one"):
        seal(content)
