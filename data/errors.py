"""The one exception of this package that is the user's to mend."""


class DataError(Exception):
    """An annotation file or a photograph is not what it has to be.

    The message is one line that names the file, the row and field (or the photograph and its person),
    the value found and what was wanted. Stage scripts print it and exit with code 2.
    """
