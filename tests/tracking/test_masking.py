"""No password of a store's address is shown."""

import pytest

from captchalab.tracking.masking import mask, redact, without_credentials


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://ann:s3cret@db:5432/mlflow", "postgresql://ann:***@db:5432/mlflow"),
        ("postgresql+psycopg2://ann:s3cret@db/mlflow", "postgresql+psycopg2://ann:***@db/mlflow"),
        ("https://ann:s3cret@mlflow.example.org/", "https://ann:***@mlflow.example.org/"),
        ("https://:s3cret@mlflow.example.org/", "https://:***@mlflow.example.org/"),
        ("mysql://ann:s3/cr@et@db/mlflow", "mysql://ann:***@db/mlflow"),
        ("postgresql://db/mlflow?user=ann&password=s3cret&x=1", "postgresql://db/mlflow?user=ann&password=***&x=1"),
        ("postgresql://ann@db/mlflow", "postgresql://ann@db/mlflow"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////home/ann/mlruns/mlflow.db", "sqlite:////home/ann/mlruns/mlflow.db"),
    ],
)
def test_an_address_is_shown_without_its_password(uri, shown):
    assert mask(uri) == shown
    assert mask(mask(uri)) == shown
    assert mask(f"no answer from {uri} yet") == f"no answer from {shown} yet"


@pytest.mark.parametrize("said", ["{uri} is wrong", "password s3 cret", "raw s3%20cret", "s3 cret: s3%20cret"])
def test_what_a_program_says_of_a_store_is_shown_without_its_password(said):
    uri = "postgresql://ann:s3%20cret@db/mlflow"
    redacted = redact(said.format(uri=uri), uri)
    assert "***" in redacted
    assert "s3 cret" not in redacted and "s3%20cret" not in redacted


def test_a_store_without_a_password_is_quoted_as_it_is():
    assert redact("http://127.0.0.1:9 refuses", "http://127.0.0.1:9") == "http://127.0.0.1:9 refuses"


def test_a_browser_gets_an_address_without_credentials():
    assert without_credentials("https://ann:s3cret@mlflow.example.org/x") == "https://mlflow.example.org/x"
    assert without_credentials("https://mlflow.example.org/x") == "https://mlflow.example.org/x"
