"""The same stages on many machines, by Ray Data: a pool of workers for each model, all on one shared folder.

Draws depend on a record's number, so the set is the same as on one machine. Ray starts workers anew that die, and
holds records back when the next stage's pool is full; a record that fails is set aside by the worker itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...errors import SqueezeError
from .build import Stage, done
from .record import Dropped, Kept, Outcome, Record
from .roles import Roles
from .work import Work


class RayExecutor:
    """make: the roles, in each worker. workers: most of a stage. Raises `SqueezeError` where there is no Ray."""

    def __init__(self, make: Callable[[], Roles], workers: int) -> None:
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise SqueezeError(
                'The executor "ray" needs Ray: pip install "squeeze-mllm[cluster]". Without it: --executor local.'
            ) from error
        self.make, self.workers, self._ray = make, workers, ray

    def __call__(
        self, stage: Stage, records: Sequence[Record], roles: Roles, work: Work
    ) -> Iterator[tuple[str, Outcome | str]]:
        import torch

        self._ray.init(ignore_reinit_error=True, log_to_driver=False)
        gpus = 1 if torch.cuda.is_available() and stage.role != "none" else 0
        given = [record.model_dump_json(exclude_defaults=True) for record in records]
        rows: Any = self._ray.data.from_items(given).map_batches(
            Worker,
            fn_constructor_args=(stage.name, self.make, work),
            batch_size=work.config.batch,
            batch_format="numpy",
            concurrency=(1, self.workers),
            num_gpus=gpus,
            max_restarts=3,
            max_task_retries=3,
        )
        for row in rows.iter_rows():
            yield row["id"], _read(row["outcome"])


class Worker:
    """A stage's model, in a process of Ray's."""

    def __init__(self, stage: str, make: Callable[[], Roles], work: Work) -> None:
        from .build import STAGES

        (self.stage,) = (each for each in STAGES if each.name == stage)
        self.work, self.model = work, make().model(self.stage.role)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        records = [Record.model_validate_json(text) for text in batch["item"]]
        found = list(done(self.stage, records, self.model, self.work))
        return {"id": [id for id, _ in found], "outcome": [_written(outcome) for _, outcome in found]}


def _written(outcome: Outcome | str) -> str:
    import json

    if isinstance(outcome, Kept):
        return json.dumps(["kept", [each.model_dump(mode="json") for each in outcome.records], outcome.lost])
    if isinstance(outcome, Dropped):
        return json.dumps(["dropped", outcome.reason, outcome.lost])
    return json.dumps(["failed", outcome, []])


def _read(text: str) -> Outcome | str:
    import json

    kind, value, lost = json.loads(text)
    if kind == "kept":
        return Kept(tuple(Record.model_validate(each) for each in value), tuple(lost))
    return Dropped(value, tuple(lost)) if kind == "dropped" else value
