"""The one exception of a run: what a user's request lacks."""


class UserError(Exception):
    """What the user asked for cannot be done.

    The message is one line that says what, where and what to do. Stage scripts print it and exit with code 2.
    """
