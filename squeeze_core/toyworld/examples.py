"""The toy world's pairs as a data set of subject-driven generation, for `squeeze train`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import SqueezeError
from . import language, scenes

if TYPE_CHECKING:
    from ..data.examples import Example
    from ..data.told import Told

SAME = "The same picture."
SEED_OF_TEST_PAIRS = 1000


class ToyOptions(BaseModel):
    """Which pairs: what a config says under `options` of a data set of kind "toyworld".

    seed: of the pairs. count: how many there are. kinds: shares of pairs of one subject, of several, and of the
    reasoning case. carrying: share of references with a secondary object. max_turn: degrees. plain_styles:
    photos only. says: what the prompt is: "prompt" asks for the toy, "caption" tells everything, "same" asks for
    the very picture that is the reference; the latter two for Fig. 3(b). split: "train", or "test" for
    identities that training never shows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0)
    count: int = Field(default=100_000, ge=1, le=10_000_000)
    kinds: dict[scenes.Kind, float] = {"one": 0.8, "several": 0.1, "reasoning": 0.1}
    carrying: float = Field(default=0.1, ge=0, le=1)
    max_turn: float = Field(default=20.0, ge=0, le=180)
    plain_styles: bool = False
    says: Literal["prompt", "caption", "same"] = "prompt"
    split: scenes.Split = "train"

    def world(self) -> scenes.WorldOptions:
        return scenes.WorldOptions(
            max_turn=self.max_turn,
            carrying=self.carrying,
            kinds=tuple(self.kinds.items()),
            split=self.split,
            styles=scenes.PHOTOS if self.plain_styles else scenes.ALL_STYLES,
        )


class ToyExamples:
    """Pairs made on the fly; see `ToyOptions`. Raises `SqueezeError` for options that do not fit."""

    def __init__(self, **options: Any) -> None:
        try:
            self.options = ToyOptions(**options)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise SqueezeError(f'The toy world\'s data option "{key}" is not right: {first["msg"]}.') from error
        if not sum(self.options.kinds.values()) > 0 or min(self.options.kinds.values()) < 0:
            raise SqueezeError(f"The shares of kinds are {self.options.kinds}; give numbers above 0.")

    def __len__(self) -> int:
        return self.options.count

    def __getitem__(self, number: int) -> Example:
        from PIL import Image

        from ..data.examples import Example

        pair = self.pair(number)
        target, *references = (Image.fromarray(scenes.render(scene)) for scene in (pair.target, *pair.references))
        prompt = {
            "prompt": pair.prompt,
            "caption": language.caption(pair.target, pair.told),
            "same": SAME,
        }[self.options.says]
        shown = (target,) if self.options.says == "same" else tuple(references)
        return Example(prompt, target, shown, f"toy pair {number}")

    def pair(self, number: int) -> scenes.Pair:
        """The ground truth of an example."""
        return scenes.pair(self.options.seed, number, self.options.world())

    def identity(self) -> str:
        return f"toyworld {self.options.model_dump_json()}"


class ToyTold:
    """What stage 0 learns from, made on the fly; see `ToyOptions`.

    says: "caption": texts alone, of up to three toys; "prompt": a picture of a lone toy, with the words for it.
    """

    def __init__(self, **options: Any) -> None:
        examples = ToyExamples(**options)
        self.options = examples.options
        if self.options.says == "same" or (
            self.options.says == "prompt" and (set(self.options.kinds) != {"one"} or self.options.carrying)
        ):
            raise SqueezeError(
                'Stage 0 takes toys that say "caption", or that say "prompt" with kinds {one: 1} and carrying 0.'
            )

    def __len__(self) -> int:
        return self.options.count

    def __getitem__(self, number: int) -> Told:
        from PIL import Image

        from ..data.told import Told, described

        seed, world = self.options.seed, self.options.world()
        if self.options.says == "caption":
            caption = scenes.single(seed, number, world).caption
            return Told(caption, caption, f"toy caption {number}")
        pair = scenes.pair(seed, number, world)
        who = language.description(pair.target.subjects[0].identity)
        picture = Image.fromarray(scenes.render(pair.references[0]))
        told = described(picture, who, pair.prompt, f"toy picture {number}")
        return replace(told, shown=(who.index(" ") + 1, len(who)))  # without the article

    def identity(self) -> str:
        return f"told by the toyworld {self.options.model_dump_json()}"


def unseen_pairs(kind: scenes.Kind = "one") -> ToyExamples:
    """What measures and demonstrations are made with: identities that no training has shown, as photos."""
    return ToyExamples(
        seed=SEED_OF_TEST_PAIRS, split="test", kinds={kind: 1.0}, plain_styles=True, carrying=0, max_turn=0
    )
