"""The one exception of this package: what a user's files lack."""


class DataError(Exception):
    """An annotation file or a photograph is not what it has to be.

    The message is one line that names the file, the row and field (or the photograph and its person),
    the value found and what was expected. Stage scripts print it and exit with code 2.
    """
