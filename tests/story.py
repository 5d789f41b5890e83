"""A user's story on the chain's networks, each step a process of its own.

Promote the first network, try a worse one, promote a better one, predict, roll back, predict again.
"""

import base64
import json
import subprocess
import sys
from pathlib import Path

from chain import captchalab, run

from captchalab import files
from captchalab.project import Project
from captchalab.registry.registry import Registry
from captchalab.tracking.store import Store


class Story:
    """What each step said."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project = folder, Project(folder)
        worse = files.read_json(folder / "models" / "ctc" / "finetune" / "run.json")["run_id"]
        better = self.run_of_the_experiment()
        self.first = self.step("promote")
        self.refused = self.step("promote", "--run", worse)
        self.after_refusal = self.versions()
        self.taken = self.step("promote", "--run", better)
        self.after_taken = self.versions()
        self.step("draw", "42")
        self.read = self.imported("predict", "42.png", "--json")
        self.back = self.step("rollback")
        self.after_rollback = self.versions()
        self.read_with_first = self.step("predict", "42.png", "--json")
        self.read_with_second = self.step("predict", "42.png", "--json", "--model", "models:/captcha/2")

    def step(self, *words: object) -> subprocess.CompletedProcess:
        return captchalab(self.folder, *words, check=False)

    def imported(self, *words: object) -> subprocess.CompletedProcess:
        """A step which ends by naming on stderr what it has imported."""
        script = (
            "import sys\nfrom captchalab.cli import main\n"
            "try:\n    main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
        )
        return run(self.folder, sys.executable, "-c", script, *words, check=False)

    def versions(self) -> dict[int, list[str]]:
        return {
            version.number: version.aliases for version in Registry(self.project, Store.of(self.project)).versions()
        }

    def run_of_the_experiment(self) -> str:
        client = Store.of(self.project).client()
        experiment = client.get_experiment_by_name("captchalab-smoke").experiment_id
        wanted = "tags.dvc_exp_name = 'longer' and tags.stage = 'finetune'"
        return client.search_runs([experiment], wanted)[0].info.run_id


def ask(port: int, image: bytes) -> tuple[int, dict]:
    """curl, as the README shows it: (status, answer)."""
    body = json.dumps({"inputs": [base64.b64encode(image).decode()]})
    done = subprocess.run(
        ["curl", "-s", "-w", "\n%{http_code}", f"http://127.0.0.1:{port}/invocations",
         "-H", "Content-Type: application/json", "-d", body],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(answer)
