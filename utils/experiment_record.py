"""`experiment.json`: the options that an experiment was begun with, and what its steps were made with."""

import json
from pathlib import Path

from utils.checkpoint import saved_epochs
from utils.errors import UserError
from utils.files import write_file


class ExperimentRecord:
    """The record in an experiment's folder.

    settings: the options that no later call may change, as text by name. defaults: of all options, for
    settings that are newer than a record.
    """

    def __init__(self, folder: Path, settings: dict[str, str], defaults: dict[str, object]) -> None:
        self._folder, self._path = folder, folder / "experiment.json"
        self._settings, self._defaults = settings, defaults

    def refuse_other_settings(self) -> None:
        """Finished steps count only for the options that they were run with; the first call writes them.

        Raises:
            UserError: this call has others, or the record cannot be read or written.
        """
        if not saved_epochs(self._folder):  # nothing is lost if a mistaken call is corrected
            self._path.unlink(missing_ok=True)
        try:
            recorded = self._read()["settings"]
        except FileNotFoundError:
            if saved_epochs(self._folder):
                raise UserError(
                    f"{self._folder} has results that no experiment has made: another --exp_id keeps them"
                ) from None
            self._write({"settings": self._settings, "made_with": []})
            return
        except (OSError, ValueError) as error:
            raise UserError(f"{self._path} cannot be read: another --exp_id starts anew") from error
        for name, value in self._settings.items():
            before = recorded.get(name, str(self._defaults[name]))  # a flag that is newer than the record
            if before != value:
                raise UserError(
                    f"{self._folder} holds an experiment with --{name} {before}, this call has {value}: "
                    "another --exp_id keeps both"
                )

    def note(self, made: str) -> None:
        """A step is run with this commit, versions and machine."""
        record = self._read()
        if made not in record["made_with"]:
            record["made_with"].append(made)
            self._write(record)

    @property
    def made_with(self) -> list[str]:
        """All that steps were made with, the earliest first."""
        return self._read()["made_with"]

    def _read(self) -> dict:
        record = json.loads(self._path.read_text(encoding="utf-8"))
        parts = (record.get("settings"), record.get("made_with")) if isinstance(record, dict) else ()
        if [type(part) for part in parts] != [dict, list]:
            raise ValueError("no record of an experiment")
        return record

    def _write(self, record: dict) -> None:
        write_file(self._path, json.dumps(record, indent=1) + "\n")
