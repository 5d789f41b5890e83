"""Format numbers: which code can read a file. Splits, saved networks and ONNX files carry one each.

A number is raised where the code before could not read the file, so that it refuses it in one sentence.
Files that were written before they carried a number have format 1; a small file of each format is kept
in tests/fixtures.
"""

from pathlib import Path

UNNUMBERED = 1


def refusal(path: Path, number: object, newest: int) -> str | None:
    """Why this code cannot read a file, in one sentence; None where it can.

    Args:
        number: what the file carries; None if nothing.
        newest: the newest format that this code reads.
    """
    number = UNNUMBERED if number is None else number
    if isinstance(number, int) and 1 <= number <= newest:
        return None
    return (
        f"{path} has format {number}, and this captchalab reads formats up to {newest}: "
        "use the captchalab that wrote it, or a newer one."
    )
