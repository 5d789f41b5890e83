"""Files that carry their own SHA-256, so that every copy can be checked by itself, wherever it was taken.

The digest is that of the file with zeros in the digest's place.
"""

import hashlib

PLACEHOLDER = "0" * 64


def seal(content: bytes) -> bytes:
    """A file's content with its digest in place of the placeholder, which must be in it once.

    Raises:
        ValueError: it is not.
    """
    if content.count(PLACEHOLDER.encode()) != 1:
        raise ValueError(f"The content holds {content.count(PLACEHOLDER.encode())} placeholders, not one.")
    return content.replace(PLACEHOLDER.encode(), _sha256(content))


def is_intact(content: bytes, digest: str) -> bool:
    """Whether sealed content is as it was written, by the digest that it carries."""
    found = digest.encode()
    return len(found) == len(PLACEHOLDER) and _sha256(content.replace(found, PLACEHOLDER.encode())) == found


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
