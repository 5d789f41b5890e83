"""How far drawing has come: a bar in a terminal, a line now and then in a log."""

import sys
import time
from typing import Any, Self

LOG_EVERY_S = 15.0


class Counter:
    """Images out of a known number, shown on stderr."""

    def __init__(self, name: str, total: int) -> None:
        from tqdm import tqdm

        self.name, self.total, self.count = name, total, 0
        self.started = self.logged_at = time.monotonic()
        self.bar: Any = tqdm(total=total, unit="image", desc=name, disable=not sys.stderr.isatty())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def add(self, images: int) -> None:
        """So many more are done."""
        self.count += images
        self.bar.update(images)
        now = time.monotonic()
        if self.bar.disable and now - self.logged_at >= LOG_EVERY_S and self.count < self.total:
            self.logged_at = now
            rate = self.count / (now - self.started)
            print(f"{self.name}: {self.count:,} of {self.total:,} images, {rate:,.0f}/s", file=sys.stderr, flush=True)
