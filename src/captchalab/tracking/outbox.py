"""What is to be done in MLflow, done in a thread of its own, one after another: nobody waits for it.

Where the store is unreachable, what is left to do is kept and tried again with the next thing to do, and a last
time at the end; one warning says so.
"""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from captchalab.tracking.store import Store, attempt

AGAIN_AFTER_S = 30.0  # an unreachable store is not asked more often
Action = Callable[[Any], object]  # is given an MlflowClient; doing it twice must be as good as once


class Outbox:
    """Actions that wait for their turn in one thread.

    Args:
        store: where they are done.
        later: what becomes of them while the store is unreachable; part of the warning.
    """

    def __init__(self, store: Store, later: str) -> None:
        self.store, self.later = store, later
        self.thread = ThreadPoolExecutor(1, "mlflow")
        self.actions: deque[Action] = deque()
        self.client: Any = None
        self.unreachable_since: float | None = None
        self.warned = False

    def add(self, action: Action) -> None:
        self.actions.append(action)
        self.thread.submit(self._work)

    def end(self) -> int:
        """Do what is left to do and end the thread; returns how many actions were given up."""
        self.thread.submit(self._work, last=True)
        self.thread.shutdown()
        return len(self.actions)

    def _work(self, last: bool = False) -> None:
        waited = self.unreachable_since is None or time.monotonic() - self.unreachable_since > AGAIN_AFTER_S
        while self.actions and (waited or last):
            if self._first():
                self.warned = False
            else:
                self.client, self.warned = None, True
                if not self._first() and not attempt(self.store, self.store.client, quiet=True):
                    self.unreachable_since = time.monotonic()
                    return
            self.actions.popleft()  # done; or refused twice by a store that answers, and would be again
            self.unreachable_since = None

    def _first(self) -> bool:
        return attempt(self.store, lambda: self.actions[0](self._connected()), self.warned, self.later)

    def _connected(self) -> Any:
        self.client = self.client or self.store.client()
        return self.client
