"""Writing files of an experiment: whole, or not at all; and one training run a folder at a time."""

import logging
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from utils.system import ranks
from utils.system.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

log = logging.getLogger(__name__)

LOCK = ".lock"


def write_file(path: Path, content: bytes | str) -> None:
    """Put content into a file so that a reader sees the old content or all of the new, at any moment.

    Written under a temporary name in the same folder, flushed to the disk, then renamed. Text is UTF-8. Of
    several ranks only rank 0 writes.

    Raises:
        UserError: the folder cannot be written to, or the disk is full; the old file stays as it was.
    """
    if ranks.rank():
        return
    with new_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """An open file that takes the place of `path`, whole and flushed to the disk, at the end of the context.

    Raises:
        UserError: the folder cannot be written to, or the disk is full; the old file stays as it was.
    """
    with _replacing(path) as temporary, temporary.open("xb") as file:
        with suppress(OSError):  # for as long as it is written, `remove_abandoned` leaves it alone
            _lock(file)
        yield file
        file.flush()
        os.fsync(file.fileno())


def link_file(path: Path, target: Path) -> None:
    """Make `path` a second name of the file `target`, or a copy where the file system has no hard links.

    Whichever of the two is written anew later, the other keeps its content. Of several ranks rank 0 links.

    Raises:
        UserError: the folder cannot be written to, or the disk is full; the old file stays as it was.
    """
    if ranks.rank():
        return
    try:
        with _replacing(path) as temporary:
            temporary.hardlink_to(target)
    except UserError:
        write_file(path, target.read_bytes())


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; the file made there replaces it at the end."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            yield temporary
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other training runs out of a folder, which is made if need be, until the end of the context.

    The lock dies with its process, however that ends. On a network disk it holds between machines if the file
    system locks, as NFS does with its lock service. Where it does not, and on Windows, a warning says so.
    Rank 0 holds it for all ranks.

    Raises:
        UserError: another run holds it, or the folder cannot be written to.
    """
    if ranks.rank():
        yield
        return
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _open_locked(path)
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error.strerror}") from error
    try:
        if fcntl is None:
            log.warning("folders are not locked on this system: start one run in %s at a time", folder)
        file.write(
            f"{Path(sys.argv[0]).name}, process {os.getpid()} on {socket.gethostname()}, "
            f"since {time.strftime('%Y-%m-%d %H:%M:%S')}".encode(errors="replace")
        )
        # A process that loads photographs would keep the lock for seconds after a kill of this one.
        os.register_at_fork(after_in_child=file.close)
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _open_locked(path: Path) -> BinaryIO:
    """The lock's file, open, empty and locked."""
    while True:
        file = path.open("a+b", buffering=0)
        try:
            try:
                alone = _lock(file)
            except OSError as error:
                alone = True
                log.warning(
                    "%s cannot be locked (%s): start one run there at a time", path.parent, error.strerror
                )
            if not alone:
                file.seek(0)
                holder = file.read().decode(errors="replace") or "another process"
                raise UserError(
                    f"{path.parent} is in use by {holder}: wait for its end, or take another folder"
                )
            # Its last holder may have removed it after it was opened here: then it keeps nobody out.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                file.truncate(0)
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: BinaryIO) -> bool:
    """Lock an open file until it is closed: whether nobody else had.

    Raises:
        OSError: the file system has no locks.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def remove_abandoned(folder: Path, names: str = "*") -> None:
    """Remove the temporary files of killed processes in a folder and its pages' folder.

    names: the pattern of the names of the files that they were to replace.
    """
    if fcntl is None:  # nothing tells them from those that are being written
        return
    temporary = f".{names}.tmp"
    for path in (*folder.glob(temporary), *folder.glob(f"web/{temporary}")):
        with suppress(OSError), path.open("r+b") as file:
            if _lock(file):
                path.unlink()


def natural(name: str) -> list:
    """A sorting key with which numbers in names count: epoch 9 before epoch 10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
