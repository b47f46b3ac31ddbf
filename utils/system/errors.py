"""The exception for errors of the user."""


class UserError(Exception):
    """An error of the user, such as a missing file or an invalid option.

    The message is one line: what was found, what was expected, what to do. Stage scripts print it and exit
    with code 2.
    """
