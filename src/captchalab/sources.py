"""Which modules shape a result: all that a stage's module imports, less those that leave no mark on the result.

A checkpoint's fingerprint hashes them (`training.fit`), and a test holds the dependencies in dvc.yaml to them.
"""

import hashlib
import json
from pathlib import Path

PACKAGE = Path(__file__).parent

# Imported, and yet no dependency: the reason beside each.
LEAVES_NO_MARK = {
    "captchalab.data.counter": "how far drawing has come",
    "captchalab.data.workers": "who draws, in which order; the bytes are the same for any number of workers",
    "captchalab.errors": "an exception without content",
    "captchalab.files": "how files are written, not what",
    "captchalab.networks.quiet": "what C++ libraries print",
    "captchalab.params": "types of values, and DVC tracks each value itself",
    "captchalab.processes": "when a process ends, and what it waits for",
    "captchalab.project": "where files are; dvc.yaml names those that are read",
    "captchalab.reading.captcha": "types of values, and DVC tracks each value itself",
    "captchalab.reading.errors": "an exception without content",
    "captchalab.reading.formats": "refuses files of a newer format",
    "captchalab.sources": "names modules; gives no number",
    "captchalab.training.checkpoints": "a stage ends with the same weights with and without a kill",
    "captchalab.training.console": "what a stage prints",
    "captchalab.training.journal": "keeps the numbers that training.fit has found",
    "captchalab.yaml": "reads values, and DVC tracks each value itself",
}
# Where they draw otherwise data/ comes out otherwise, and every later stage depends on that.
SHOWN_BY_THE_DATA = (
    "captchalab.data.dataset",
    "captchalab.data.drawing.chance",
    "captchalab.data.drawing.glyphs",
    "captchalab.data.drawing.noise",
    "captchalab.data.drawing.painting",
    "captchalab.data.rendering",
)


def shaping(module: str) -> list[str]:
    """The modules that shape what a module's functions give, itself among them.

    Args:
        module: dotted name, such as captchalab.training.fit.
    """
    import grimp

    graph = grimp.build_graph(PACKAGE.name, cache_dir=None, exclude_type_checking_imports=True)
    found = {module, *graph.find_upstream_modules(module)} - LEAVES_NO_MARK.keys()
    return sorted(found if module in SHOWN_BY_THE_DATA else found.difference(SHOWN_BY_THE_DATA))


def path(module: str) -> Path:
    """A module's file; of a package, its __init__.py."""
    place = PACKAGE.parent.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def version(module: str) -> str:
    """SHA-256 over the source of the modules that shape what a module gives."""
    text = json.dumps({name: path(name).read_text(encoding="utf-8") for name in shaping(module)})
    return hashlib.sha256(text.encode()).hexdigest()
