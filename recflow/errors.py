"""The one exception that stands for a mistake of whoever calls recflow, not for a bug."""


class RecflowError(Exception):
    """Something given to recflow cannot be used: the message says what, what was expected and how to mend it.

    The command line prints the message on one line and exits with 2; a traceback is kept for bugs.
    """


class UnknownUserError(RecflowError):
    """A user id that the model was not fitted with."""


class UnknownItemError(RecflowError):
    """An item id or title that the model was not fitted with."""
