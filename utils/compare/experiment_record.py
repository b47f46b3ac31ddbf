"""`experiment.json`: the options of an experiment, and the code, versions and machines its steps ran on."""

import json
from pathlib import Path

from utils.compare.run_logs import epoch_options
from utils.records.checkpoint import saved_epochs
from utils.records.events import EVENTS, current_events, read_events
from utils.system.errors import UserError
from utils.system.files import write_file


class ExperimentRecord:
    """The record in an experiment's folder.

    settings: the options that no later call may change, name -> text. defaults: the defaults of all options,
    for settings that were added after the record was written.
    """

    def __init__(self, folder: Path, settings: dict[str, str], defaults: dict[str, object]) -> None:
        self._folder, self._path = folder, folder / "experiment.json"
        self._settings, self._defaults = settings, defaults

    def refuse_other_settings(self, stages: dict[Path, tuple[int, dict[str, str]]]) -> None:
        """Check that this call has the settings of the experiment; the first call writes the record.

        stages: stages that users may have run themselves before the first call: folder -> (number of epochs,
        the options that these must have been trained with).

        Raises:
            UserError: the settings differ, or the record cannot be read or written.
        """
        if not saved_epochs(self._folder):  # no results yet: the settings may still be corrected
            self._path.unlink(missing_ok=True)
        try:
            recorded = self._read()["settings"]
        except FileNotFoundError:
            for folder, (epochs, settings) in stages.items():
                _check_log(folder, epochs, settings)
            self._write({"settings": self._settings, "made_with": []})
            return
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self._path} cannot be read: use another --exp_id to start a new experiment"
            ) from error
        for name, value in self._settings.items():
            before = recorded.get(name, str(self._defaults[name]))
            if before != value:
                raise UserError(
                    f"{self._folder} has an experiment with --{name} {before}, this one has {value}: "
                    "use another --exp_id to keep both"
                )

    def add_made_with(self, provenance: str) -> None:
        """Record the commit, versions and machine that a step runs with."""
        record = self._read()
        if provenance not in record["made_with"]:
            record["made_with"].append(provenance)
            self._write(record)

    @property
    def made_with(self) -> list[str]:
        """The commits, versions and machines of all steps, one line for each combination, earliest first."""
        return self._read()["made_with"]

    def _read(self) -> dict:
        record = json.loads(self._path.read_text(encoding="utf-8"))
        parts = (record.get("settings"), record.get("made_with")) if isinstance(record, dict) else ()
        if [type(part) for part in parts] != [dict, list]:
            raise ValueError("no record of an experiment")
        return record

    def _write(self, record: dict) -> None:
        write_file(self._path, json.dumps(record, indent=1) + "\n")


def _check_log(folder: Path, epochs: int, settings: dict[str, str]) -> None:
    """Raise a `UserError` unless a folder's log says that its epochs below `epochs` had these options."""
    saved = max(saved_epochs(folder).values(), default=-1) + 1
    if not saved:
        return
    try:
        logged = epoch_options(current_events(read_events(folder / EVENTS)))
    except OSError:
        logged = {}
    for epoch in range(min(epochs, saved)):
        if epoch not in logged:
            raise UserError(
                f"{folder} has results of no experiment, and its {EVENTS} does not record how epoch {epoch} "
                "was trained: use another --exp_id to keep them"
            )
        for name, found in logged[epoch].items():
            if settings.get(name, found) != found:
                raise UserError(
                    f"{folder} was trained with --{name} {found} in epoch {epoch}, this experiment needs "
                    f"{settings[name]}: use another --exp_id to keep both"
                )
