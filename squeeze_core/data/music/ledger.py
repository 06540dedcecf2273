"""What a stage has done: a line of JSON for each record, kept as soon as it is known.

A killed process leaves at most half a line, which is cut off; so no record is lost or there twice.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ...errors import SqueezeError
from .record import Dropped, Kept, Outcome, Record

_KEPT, _DROPPED, _FAILED = "kept", "dropped", "failed"


class Ledger:
    """Of one stage. path: its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            self._read()

    def __contains__(self, record: Record) -> bool:
        return record.id in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, id: str, outcome: Outcome | str) -> None:
        """outcome: or why the record failed. Raises `OSError`, among others for a full disk."""
        row: dict[str, Any] = {"id": id}
        if isinstance(outcome, Kept):
            row[_KEPT] = [record.model_dump(mode="json", exclude_defaults=True) for record in outcome.records]
        elif isinstance(outcome, Dropped):
            row[_DROPPED] = outcome.reason
        else:
            row[_FAILED] = outcome
        if not isinstance(outcome, str) and outcome.lost:
            row["lost"] = list(outcome.lost)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._rows[id] = row

    def kept(self) -> list[Record]:
        """In the order of their ids, whoever was done first."""
        rows = sorted(self._rows.values(), key=lambda row: row["id"])
        return [Record.model_validate(each) for row in rows for each in row.get(_KEPT, ())]

    def failed(self) -> dict[str, str]:
        """Id -> reason of records that were set aside."""
        return {row["id"]: row[_FAILED] for row in self._rows.values() if _FAILED in row}

    def counts(self) -> dict[str, Any]:
        """in, out, dropped by reason, failed, and what went of the records, by reason."""
        rows = self._rows.values()
        return {
            "in": len(rows),
            "out": sum(len(row.get(_KEPT, ())) for row in rows),
            "dropped": dict(Counter(row[_DROPPED] for row in rows if _DROPPED in row).most_common()),
            "failed": sum(_FAILED in row for row in rows),
            "lost": dict(
                Counter(each.partition(":")[0] for row in rows for each in row.get("lost", ())).most_common()
            ),
        }

    def rows(self) -> list[dict[str, Any]]:
        """As they are in the file."""
        return list(self._rows.values())

    def forget_failed(self) -> None:
        """So that they are tried again."""
        self._write([row for row in self._rows.values() if _FAILED not in row])

    def _read(self) -> None:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        try:
            rows = [json.loads(line) for line in whole.decode("utf-8").splitlines() if line.strip()]
            self._rows = {row["id"]: row for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise SqueezeError(f'"{self.path}" is damaged ({error}). Delete it to do this stage again.') from error
        if len(whole) < len(data):
            self._write(rows)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        from ...files import write_text

        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        self._rows = {row["id"]: row for row in rows}
