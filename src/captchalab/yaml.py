"""YAML that keeps its comments: read, merged with an overlay, written back.

Read by ruamel (YAML 1.2), for which `1e-4` is a number, as it is for DVC.
"""

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from captchalab.errors import UserError

# A mapping whose keys are data, not the names of parameters: an overlay replaces it as a whole.
VALUES = ("splits.train.weights",)


def read(path: Path) -> CommentedMap:
    """A YAML file with its comments.

    Raises:
        UserError: it is missing, not YAML, or not sections.
    """
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: go to the project's folder, or bring it back with git.") from None


def parse(text: str, source: str = "params.yaml") -> CommentedMap:
    """YAML text with its comments."""
    try:
        content = _yaml().load(text)
    except YAMLError as error:
        raise UserError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, CommentedMap):
        raise UserError(f"{source} holds {content!r}, not sections: bring it back with `git checkout`.")
    return content


def dump(content: CommentedMap) -> str:
    """YAML text of `read()`'s content, comments in their places."""
    text = io.StringIO()
    _yaml().dump(content, text)
    return text.getvalue()


def merge(content: CommentedMap, overlay: CommentedMap, path: str = "") -> None:
    """Write an overlay's values into the content: maps are merged, lists and values replaced.

    Raises:
        UserError: the overlay has a key that the content has not.
    """
    for key, value in overlay.items():
        name = f"{path}{key}"
        if key not in content:
            raise UserError(f"The overlay sets {name}, which params.yaml does not have: take it out.")
        if isinstance(value, CommentedMap) and name not in VALUES:
            merge(content[key], value, f"{name}.")
        elif content[key] != value:
            if isinstance(value, (CommentedMap, CommentedSeq)):
                value.fa.set_flow_style()
            content[key] = value


def leaves(section: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Each dotted key that holds a value, and the value."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        name = f"{path}{key}"
        found |= leaves(value, f"{name}.") if isinstance(value, dict) and name not in VALUES else {name: value}
    return found


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml
