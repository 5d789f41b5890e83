"""Store addresses as they may be shown: a database's password stays out of messages, files and tags."""

import re
from urllib.parse import unquote

PASSWORD = re.compile(r"(?P<before>://[^:/@\s]*:)(?P<password>\S+)(?=@)")  # to the last @: it may hold one itself
QUERY_PASSWORD = re.compile(r"(?P<before>[?&](?:password|passwd|pwd|sslpassword|token)=)(?P<password>[^&\s]+)", re.I)
MASK = "***"


def mask(text: str) -> str:
    """A store's address, or a text with such addresses in it, with *** for each password."""
    for pattern in (PASSWORD, QUERY_PASSWORD):
        text = pattern.sub(rf"\g<before>{MASK}", text)
    return text


def redact(text: str, uri: str) -> str:
    """What a program said of the store at `uri`, with *** wherever it quotes the store's password."""
    found = [match["password"] for pattern in (PASSWORD, QUERY_PASSWORD) for match in pattern.finditer(uri)]
    secrets = {secret for password in found for secret in (password, unquote(password))}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return mask(text)


def without_credentials(uri: str) -> str:
    """The address of a server without user and password: a browser asks for them itself."""
    return re.sub(r"://\S*@", "://", uri)
