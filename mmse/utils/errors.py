"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """A mistake in a config, a path, a checkpoint or the data.

    The message is one sentence or a short list that says what was wrong, where, and what is
    allowed or what to do. The command-line tools print it without a traceback and exit with 2;
    library users can catch it as a ``ValueError``.
    """
