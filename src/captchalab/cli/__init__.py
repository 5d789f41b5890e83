"""The command line: one verb per command, each in the module of its job. Verbs import heavy parts when they run."""

from captchalab.cli.group import main

# each defines its verbs on `main`, in the order in which --help lists them
from captchalab.cli import chain, use, registered, results, search, workspace  # isort: skip

__all__ = ["chain", "main", "registered", "results", "search", "use", "workspace"]
