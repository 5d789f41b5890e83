"""What a person is told when something cannot be read."""


class UnreadableError(ValueError):
    """Says in one sentence which image or model file cannot be read, and what to do."""
