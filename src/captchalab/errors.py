"""The one exception a person is meant to meet: the CLI prints its sentence and exits with 1."""


class UserError(Exception):
    """Says in one sentence the thing, its value, and what to do."""
