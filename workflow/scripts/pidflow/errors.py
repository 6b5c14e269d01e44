"""The one exception that reaches a person."""


class PidflowError(Exception):
    """A problem that the user can mend.

    Its message is one sentence that names the file, the column or key, and the mend.
    """
