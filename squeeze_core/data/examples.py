"""An example of subject-driven generation, and the endless shuffled walk over data sets of any examples."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..draws import Draws
from ..errors import SqueezeError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BROKEN_IN_A_ROW = 100
BROKEN_SHARE, ALWAYS_BORNE = 0.01, 20  # of all examples, more of which are a reason to stop; of small sets


@dataclass(frozen=True)
class Example:
    """Paint `target` from `prompt` and `references`.

    target, references: RGB pictures of any size. name: what to call it when it makes trouble. plan: a `ScenePlan`
    as JSON, where the data have one; subject n shows reference n.
    """

    prompt: str
    target: Image
    references: tuple[Image, ...]
    name: str
    plan: Mapping[str, Any] | None = None


class Named(Protocol):
    @property
    def name(self) -> str: ...


E = TypeVar("E", bound=Named)
Has = TypeVar("Has", bound=Named, covariant=True)


class BrokenExample(Exception):
    """An example that cannot be read; its message names the file and the reason."""


class SourceFailure(SqueezeError):
    """The place of the data fails, not one example: a reason to stop, and not to skip."""


class Numbered(Protocol[Has]):
    """A data set: any example by its number, the same each time, from any thread."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Has:
        """Raises `BrokenExample`."""
        ...

    def identity(self) -> str:
        """Tells one data set from another: a run goes on only with the data that it began with."""
        ...


Examples = Numbered[Example]


class Walk(Generic[E]):
    """Samples by global index, from one data set or several mixed.

    shares: how many samples each set gives in every stretch of sum(shares); within a stretch the sets come in
        random order, and each set is gone through in an order of its own, every example once a turn.

    An example that cannot be read is replaced by the next in the set's own order: a rule that depends on the
    data alone. Each is reported once, on stderr and in `broken`, with how many more are borne.

    check: raises `SqueezeError` for an example that cannot be used, which counts as broken too.
    """

    def __init__(
        self,
        sources: Sequence[Numbered[E]],
        shares: Sequence[int],
        draws: Draws,
        check: Callable[[E], None] = lambda example: None,
    ) -> None:
        self.sources, self.shares, self.draws, self._check = tuple(sources), tuple(shares), draws, check
        self.broken: dict[str, str] = {}
        self._parts = [number for number, share in enumerate(shares) for _ in range(share)]
        for source in self.sources:
            if not len(source):
                raise SqueezeError(
                    f"{source.identity()} holds no example to train on. Check its folder and filter."
                )

    def example(self, index: int) -> E:
        """The sample of a global index. Raises `SqueezeError` when too many in a row cannot be read."""
        stretch, place = divmod(index, len(self._parts))
        # Places of the stretch in shuffled order; equal parts in it are numbered as they come.
        order = (
            [
                self._parts[self.draws.shuffled("mix", stretch * len(self._parts) + i, len(self._parts))]
                for i in range(place + 1)
            ]
            if len(self.sources) > 1
            else [0]
        )
        source = order[-1]
        count = stretch * self.shares[source] + order.count(source) - 1 if len(self.sources) > 1 else index
        number = self.draws.shuffled(f"data/{source}", count, len(self.sources[source]))
        return self._sound(source, number)

    def identity(self) -> list:
        return [[source.identity(), share] for source, share in zip(self.sources, self.shares)]

    def _sound(self, source: int, number: int) -> E:
        examples = self.sources[source]
        for attempt in range(min(MAX_BROKEN_IN_A_ROW, len(examples))):
            at = (number + attempt) % len(examples)
            example = None
            try:
                example = examples[at]
                self._check(example)
                return example
            except SourceFailure:
                raise
            except (BrokenExample, SqueezeError) as error:
                named = "" if example is None else f"{example.name}: "
                self._report(f"{source}/{at}", f"{named}{error}")
        raise SqueezeError(
            f"{MAX_BROKEN_IN_A_ROW} examples in a row cannot be read, the last one because: "
            f"{list(self.broken.values())[-1]}. Is the folder of pictures the right one?"
        )

    def _report(self, key: str, reason: str) -> None:
        if key not in self.broken:
            self.broken[key] = reason
            borne = max(ALWAYS_BORNE, int(BROKEN_SHARE * sum(map(len, self.sources))))
            said = f"{len(self.broken)} so far, more than {borne} end the run"
            print(f"squeeze: skipped a broken example ({said}): {reason}", file=sys.stderr)
            if len(self.broken) > borne:
                raise SourceFailure(
                    f"{len(self.broken)} examples cannot be used, more than {borne}, the last because: {reason}. "
                    "The run stopped before it learns from what is left. Mend the data and go on with --resume."
                )
