"""Parsing and checks of rows, shared by the readers of annotation files."""

import gzip
import json
import logging
import multiprocessing
import signal
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PureWindowsPath

import numpy as np
import scipy.io

from data import DataError
from data.people import People, annotated

log = logging.getLogger(__name__)

# Below this, float32 coordinates have sub-pixel resolution; no photograph is as wide.
_LARGEST = 1e6
FORMATS = "docs/data.md describes the files that can be read"
_LONGEST = 1000  # characters of a path below the images folder: the longest sets the width of the column


def finite(values: np.ndarray) -> np.ndarray:
    """Bool, shape of `values`: neither NaN nor too large for a coordinate in px."""
    return np.abs(values) < _LARGEST


def positive(values: np.ndarray) -> np.ndarray:
    """Bool, shape of `values`: finite and, as float32, above 0."""
    return finite(values) & (values >= np.finfo(np.float32).tiny)


def not_negative(values: np.ndarray) -> np.ndarray:
    """Bool, shape of `values`: finite and at least 0."""
    return finite(values) & (values >= 0)


@contextmanager
def parsing(source: Path, kind: str) -> Iterator[None]:
    """Turn any exception of a parser into a `DataError` that names the file and its kind.

    Put only the call of the parser inside: on damaged bytes, parsers of binary formats raise nearly any
    exception, so all are caught (and chained).
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{source} cannot be read as {kind} ({reason}); {FORMATS}") from error


def read_matlab(path: Path, **options: bool) -> dict:
    """The variables of a MATLAB file by name; options: of `scipy.io.loadmat`.

    On Linux another process reads it: some damaged files crash scipy's reader.

    Raises:
        DataError: the file cannot be read.
    """
    with parsing(path, "a MATLAB file"):
        if sys.platform != "linux":
            return scipy.io.loadmat(path, **options)
        try:
            quiet = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
            with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), **quiet) as reader:
                return reader.submit(scipy.io.loadmat, path, **options).result()
        except BrokenProcessPool as error:
            raise ValueError("the reader crashed on it: it is damaged") from error


def load_json(path: Path, object_hook: Callable[[dict], dict] | None = None) -> object:
    """The content of a JSON file, plain or gzipped; object_hook: of `json.loads`.

    Raises:
        DataError: the file cannot be read.
    """
    with parsing(path, "JSON"):
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        content = content.decode(json.detect_encoding(content), "surrogatepass")  # the bytes are given up
        return json.loads(content, object_hook=object_hook)


class RowChecks:
    """Converts the columns of an annotation file to arrays, and collects its bad rows.

    Each column goes through `numbers` or `names`, which blank bad values. `good_rows` completes the table: it
    raises a `DataError` for the first bad row or, with `skip_bad`, skips bad rows with a warning.

    source: the file. rows: the numbers of the rows in the file, from 0, or their names, for messages. remedy:
    what to do about bad rows, with places for how many and of how many.
    """

    def __init__(
        self,
        source: Path,
        rows: Sequence[int | str],
        skip_bad: bool = False,
        remedy: str = "correct these {} of {} people, or skip them with --skip_bad true",
    ):
        self.source = source
        self.skip_bad, self.remedy = skip_bad, remedy
        self._rows = rows
        self._bad = np.zeros(len(rows), dtype=bool)
        self._first_bad = len(rows)
        self._message = ""

    def numbers(
        self,
        field: str,
        found: Sequence | np.ndarray,
        shape: tuple[int, ...] = (),
        expected: str = "a finite number",
        accept: Callable[[np.ndarray], np.ndarray] = finite,
    ) -> np.ndarray:
        """A column as float64 [N, *shape]. A row with a number that `accept` refuses is bad and becomes 0."""
        self._require_all_rows(field, found)
        values = _to_floats(found, shape)
        refused = ~accept(values)
        bad = refused.any(axis=tuple(range(1, refused.ndim)))
        self.reject(field, found, bad, expected)
        values[bad] = 0
        return values

    @property
    def good(self) -> np.ndarray:
        """Bool [N]: the rows that no check has refused so far."""
        return ~self._bad

    def names(self, field: str, found: Sequence[object], folder: str) -> np.ndarray:
        """Photographs' names as paths `folder/name`, str [N]; a name outside `folder` is bad, its path "".

        folder: "" for names that are paths already.

        Files that Windows has written may have backslashes in them.
        """
        self._require_all_rows(field, found)
        bad = np.array([not _inside(name) for name in found], dtype=bool)
        self.reject(field, found, bad, f"a file name inside the images folder, {_LONGEST} characters at most")
        above = f"{folder}/" if folder else ""
        paths = [
            "" if wrong else above + name.replace("\\", "/") for name, wrong in zip(found, bad, strict=True)
        ]
        return np.array(paths, dtype=str)

    def reject(self, field: str, found: Sequence | np.ndarray, bad: np.ndarray, expected: str) -> None:
        """Mark the rows of the mask `bad` [N] as bad in `field`."""
        self._bad |= bad
        first = int(np.argmax(bad)) if bad.any() else self._first_bad
        if first < self._first_bad:
            self._first_bad = first
            row = self._rows[first]
            row = row if isinstance(row, str) else f"row {row} (counted from 0)"
            self._message = (
                f"{self.source}: {row}, field {field}: found {shorten(found[first])}, expected {expected}"
            )

    def _require_all_rows(self, field: str, found: Sequence | np.ndarray) -> None:
        if len(found) != len(self._rows):
            expected = f"as many as there are people, {len(self._rows)}"
            raise DataError(f"{self.source}: field {field} has {len(found)} rows, expected {expected}")

    def good_rows(self, people: People) -> People:
        """The good rows of the table in its types; joints that are not `annotated` become (0, 0).

        Raises:
            DataError: there is a bad row, and `skip_bad` is not set.
        """
        if self._bad.any():
            if not self.skip_bad:
                remedy = self.remedy.format(self._bad.sum(), len(self._bad))
                other = f"; {FORMATS}" if self._bad.all() else ""  # it looks like a file of another format
                raise DataError(f"{self._message}; {remedy}{other}")
            count = f"{self._bad.sum()} of {len(self._bad)}"
            log.warning("skipped %s people with invalid annotations; first: %s", count, self._message)
        people = replace(people, points=np.where(annotated(people.points)[..., None], people.points, 0))
        names = ("center", "scale", "points", "normalizer")
        floats = {name: getattr(people, name).astype(np.float32) for name in names}
        types = {"valid": people.valid.astype(bool), "size": people.size.astype(np.int32)}
        return replace(people, **floats, **types)[~self._bad]


def _to_floats(found: Sequence | np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A new float64 [N, *shape], NaN in rows that are not numbers of that shape."""
    values = _as_floats(found)
    if values is not None and values.shape == (len(found), *shape):
        return values
    values = np.full((len(found), *shape), np.nan)
    for row, value in enumerate(found):
        numbers = _as_floats(value)
        if numbers is not None and numbers.shape == shape:
            values[row] = numbers
    return values


def _as_floats(value: object) -> np.ndarray | None:
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None


def _inside(name: object) -> bool:
    if not isinstance(name, str) or len(name) > _LONGEST:
        return False
    if any("\ud800" <= letter <= "\udfff" for letter in name):  # half a character, which UTF-8 cannot hold
        return False
    # Windows paths know both separators and drive letters, so one rule serves every system.
    path = PureWindowsPath(name)
    return bool(path.name) and not path.anchor and ".." not in path.parts


def shorten(value: object, length: int = 60) -> str:
    """`value` in one line; of a list or an array, its first part that is not a finite number, if any."""
    value = value.tolist() if isinstance(value, array) else value
    index = []
    while (row := _odd_row(value)) is not None:
        index.append(row)
        value = value[row]
    numbers = _as_floats(value)
    if numbers is not None and numbers.ndim:
        text = f"{' x '.join(map(str, numbers.shape))} numbers"
    else:
        text = " ".join((str(value) if isinstance(value, np.generic) else repr(value)).split())
        text = text if len(text) <= length else f"{text[:length]}..."
    return f"{text} at {index}" if index else text


def _odd_row(value: object) -> int | None:
    """Place of what keeps a list or an array from being one of finite numbers, None if nothing does.

    It is the first part without numbers; else the first that has not the most common shape; else the first
    with a number that is not finite.
    """
    if not isinstance(value, list | tuple) and not getattr(value, "ndim", 0):
        return None
    parts = [_as_floats(part) for part in value]
    shapes = [None if part is None else part.shape for part in parts]
    if None in shapes:
        return shapes.index(None)
    common = max(shapes, key=shapes.count, default=())
    odd = [shape != common for shape in shapes]
    odd = odd if any(odd) else [not finite(part).all() for part in parts]
    return odd.index(True) if any(odd) else None
