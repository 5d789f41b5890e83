"""Every benchmark, one after the other.

make bench          half an hour, after `make repro`; writes results/
make bench-quick    under three minutes on two quiet cores; writes nothing
"""

import subprocess
import sys
from pathlib import Path

import harness

HERE = Path(__file__).parent
TABLES = ("drawing", "input", "training", "milestones", "reading", "overhead", "tracking")
PRINTS_ONLY = ("drawing",)  # writes no files itself


def main(options: list[str]) -> int:
    failed = []
    for i, name in enumerate(TABLES, 1):
        harness.progress(f"[{i}/{len(TABLES)}] {name}")
        done = subprocess.run([sys.executable, HERE / f"{name}.py", *options], stdout=subprocess.PIPE, text=True)
        print(done.stdout, flush=True)
        if done.returncode:
            failed.append(name)
        elif name in PRINTS_ONLY and "--quick" not in options:
            harness.write(harness.RESULTS, name, as_printed(name, done.stdout))
    if failed:
        print(f"captchalab: {', '.join(failed)} failed: see above.", file=sys.stderr)
    return len(failed)


def as_printed(name: str, printed: str) -> str:
    """What a benchmark prints by itself, under the heading of the others."""
    return f"# {name.capitalize()}\n\n{harness.heading(1)}\n\n```\n{printed}```\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
