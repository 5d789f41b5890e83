"""captchalab: captcha reading as a tracked, reproducible experiment."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("captchalab")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"
