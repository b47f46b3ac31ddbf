"""The exception of a run that is the user's to mend."""


class UserError(Exception):
    """What the user asked for cannot be done.

    The message is one line that says what, where and what to do. Stage scripts print it and exit with code 2.
    """
