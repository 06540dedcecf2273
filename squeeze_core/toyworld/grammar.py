"""The English that the toy world understands: what its pictures show, and how prompts speak of them.

The tokenizer is trained on `sentences()`, so every word below is one or two tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

SIZES = ("tiny", "small", "large", "huge")
COLOURS = (
    "red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "white", "grey", "black",
)  # fmt: skip
PATTERNS = ("plain", "striped", "dotted", "checkered", "zigzag", "spotted", "ringed", "shaded")
SHAPES = (
    "circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond", "hexagon", "moon", "arrow",
    "drop",
)  # fmt: skip
PLACES = (
    "in the top left", "in the top right", "in the bottom left", "in the bottom right", "in the middle",
    "at the top", "at the bottom", "on the left", "on the right",
)  # fmt: skip
BACKGROUNDS = (
    "on a beach", "in a forest", "on a city street", "in the snow", "in the desert", "under a night sky",
    "on a wooden table", "on a brick wall", "in a field of grass", "at sea", "at sunset",
    "on a white background", "on a grey background", "on a black background",
)  # fmt: skip
RELATIONS = (
    "next to",
    "above",
    "below",
    "left of",
    "right of",
    "behind",
    "in front of",
    "inside",
    "on top of",
)
STYLES = (
    "a photo of", "a drawing of", "a painting of", "a sketch of", "a close-up of", "a pixel art picture of",
    "a watercolour of", "a cartoon of",
)  # fmt: skip
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

# Words outside the grammar that people write anyway; without them such a prompt would fall into letters.
COMMON = """
    the this that these those it its they them he she his her you your me my we our who what which where
    when how why and or but with without from into onto over through between around near far away
    together apart is are was were be been has have had do does did can could will would should may must
    not no yes very more most less least some any all both each every another same different other new
    old young big little long short wide narrow high low round flat sharp soft hard bright dark light
    heavy warm cold wet dry clean dirty person man woman child people boy girl dog cat bird horse fish
    bear rabbit monster robot toy doll ball car bus train boat bicycle plane house tower bridge door
    window chair sofa bed lamp book cup bottle bowl glass plate bag backpack hat coat shirt dress shoe
    boot glove watch clock candle vase flower tree leaf plant fruit apple banana lemon bread cake coffee
    tea water milk river lake mountain hill island garden park kitchen room floor roof stage shop market
    station airport school office castle church moonlight sunlight morning evening night summer winter
    spring autumn rain cloud fog storm fire smoke ice sand stone metal wood paper plastic leather wool
    silk gold silver copper standing sitting lying running walking jumping flying swimming sleeping
    holding wearing eating drinking reading playing looking smiling floating falling turning style
    portrait landscape illustration render sculpture poster logo sticker icon detailed realistic simple
    beautiful famous modern ancient cinematic dramatic lighting shadow reflection texture focus camera
    lens view angle side front back middle centre edge corner scene object subject shape colour pattern
    size place
"""

_REQUESTS = (
    "{style} the {shape} of picture {n} {background}",
    "{style} the subject of picture {n} {place}, {background}",
    "Put the {shape} from picture {n} {relation} the {other} from picture {m}, {background}.",
    "Make the {colour} {shape} {size} and {pattern}. Keep its shape and its colour the same.",
    "Picture {n} shows {description}. Picture {m} shows {second}.",
    "What is in picture {n}? {description} {place}.",
    "How many shapes are there in the picture? There are {count}.",
    "Describe the reference picture in a short sentence. The image has {description} {relation} {second}.",
    "Write a prompt: {style} {description} {relation} {second} {background}.",
    "The same {shape} again, with {colour} and {other_colour} {pattern} patterns, turned to the {side}.",
)


def description(size: str, colour: str, pattern: str, shape: str) -> str:
    """One subject in words: "a small red striped star". A plain pattern is not named."""
    words = [size, colour, shape] if pattern == "plain" else [size, colour, pattern, shape]
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join((article, *words))


def sentences(count: int = 4000) -> Iterator[str]:
    """Sentences in a fixed order: the words of each list take turns at steps that do not repeat together."""
    for word in COMMON.split():
        yield f"A {word} and the {word}."
    for i in range(count):

        def pick(words: tuple[str, ...], step: int, offset: int = 0, i: int = i) -> str:
            return words[(i * step + i // len(words) + offset) % len(words)]

        words = {
            "size": pick(SIZES, 1), "colour": pick(COLOURS, 5), "pattern": pick(PATTERNS, 3),
            "shape": pick(SHAPES, 7), "other": pick(SHAPES, 7, 5), "other_colour": pick(COLOURS, 5, 4),
            "place": pick(PLACES, 2), "background": pick(BACKGROUNDS, 3), "relation": pick(RELATIONS, 4),
            "style": pick(STYLES, 5), "count": pick(NUMBERS, 5), "side": ("left", "right")[i % 2],
            "n": str(1 + i % 4), "m": str(1 + (i + 1) % 4),
        }  # fmt: skip
        words["description"] = description(words["size"], words["colour"], words["pattern"], words["shape"])
        words["second"] = description(
            pick(SIZES, 1, 2), words["other_colour"], pick(PATTERNS, 3, 5), words["other"]
        )
        text = _REQUESTS[i % len(_REQUESTS)].format(**words)
        yield text[0].upper() + text[1:]
