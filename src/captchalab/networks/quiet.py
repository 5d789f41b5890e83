"""Hold back what C++ libraries write to stderr, past Python, unless something goes wrong."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Waits for a line from its parent, and shows the file where the parent ended without one.
WATCHER = 'read line || { cat "$0" >&2; rm -f "$0"; }'


@contextmanager
def quiet() -> Iterator[None]:
    """Stderr goes to a file, which is shown if the block fails, or ends the process: abort, exit or a kill.

    No code of a process runs once C++ aborts it. So a shell, two milliseconds to start, waits for its end.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.NamedTemporaryFile() as held:
        watcher = subprocess.Popen(["sh", "-c", WATCHER, held.name], stdin=subprocess.PIPE, start_new_session=True)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            with suppress(BrokenPipeError):
                watcher.communicate(b"done\n")
