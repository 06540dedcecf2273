"""What the MLLM families share: encoding and answering with a transformers model.

A family says which class it is, how older checkpoints name its weights, and how pictures become tokens.
"""

from __future__ import annotations

import inspect
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ..errors import SqueezeError
from ..finite import MLLM_ADVICE, check_finite
from ..images import as_rgb
from .backbone import Backbone, MLLMIdentity, Progress, Prompt
from .batches import joined, passes
from .capture import captured_layers
from .folders import download_line
from .prompt import CHAT_END, chat_text, check_prompt
from .reading import PLAIN, Reading
from .states import LayerStates

if TYPE_CHECKING:
    from PIL.Image import Image

    from .constrained import JSONGrammar

_CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
# Sampling as transformers does it by default; greedy decoding ignores both.
_TOP_K = 50
_TOP_P = 0.95


class TransformersBackbone(Backbone):
    """A frozen transformers model with `model.model.language_model`, its tokenizer and image processor.

    model_class: name of the class in transformers. image_processor_class: likewise.
    image_token: stands for one token of a picture. picture_ends: what encloses a picture.
    renames: patterns that turn keys of older checkpoints into those of the class, tried in order, the first
        match counts.
    can_generate: false when the checkpoint came without an output layer; encoding needs none.
    """

    model_type: ClassVar[str]
    model_class: ClassVar[str]
    image_processor_class: ClassVar[str]
    image_token: ClassVar[str]
    picture_ends: ClassVar[tuple[str, str]]
    renames: ClassVar[tuple[tuple[str, str], ...]]

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Any,
        image_processor: Any,
        identity: MLLMIdentity,
        can_generate: bool = True,
    ) -> None:
        self.model: Any = model
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.identity = identity
        self.can_generate = can_generate
        self._grammar: JSONGrammar | None = None  # made when a schema is first asked for

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def encoder(self) -> torch.nn.Module:
        """Without the output layer, 1 GB for InternVL3-8B."""
        return self.model.model

    @classmethod
    def check_tokenizer(cls, folder: Path, tokenizer: Any, config: Any) -> None:
        """Raises SqueezeError when the tokenizer splits a control token, or numbers pictures otherwise."""
        known = tokenizer.get_vocab()
        missing = [token for token in (*_CHAT_TOKENS, *cls.picture_ends) if token not in known]
        if missing or known.get(cls.image_token) != config.image_token_id:
            what = (
                f"lacks {', '.join(missing)}"
                if missing
                else f"gives {cls.image_token} the id {known.get(cls.image_token)} "
                f"and config.json {config.image_token_id}"
            )
            raise SqueezeError(
                f"The tokenizer in {folder} is not this model's: it {what}. "
                f"Fetch the folder again: {download_line(folder)}"
            )

    @abstractmethod
    def pictures(
        self, images: list[Image], tiles: int, reading: Reading = PLAIN
    ) -> tuple[list[str], dict[str, torch.Tensor]]:
        """For each RGB picture the text that stands for it in the prompt, and the model's picture inputs."""

    def encode(
        self,
        prompt: Prompt,
        *,
        device: torch.device | str | None = None,
        store_device: torch.device | str | None = None,
        progress: Progress | None = None,
    ) -> LayerStates:
        return self.encode_many([prompt], device=device, store_device=store_device, progress=progress)[0]

    def encode_many(
        self,
        prompts: Sequence[Prompt],
        *,
        device: torch.device | str | None = None,
        store_device: torch.device | str | None = None,
        progress: Progress | None = None,
    ) -> list[LayerStates]:
        device = self._device(device)
        store_device = device if store_device is None else store_device
        every = [self.inputs(prompt, "cpu") for prompt in prompts]
        ids = [inputs["input_ids"][0] for inputs in every]
        parts = passes(prompts, [len(each) for each in ids])
        layers = self.identity.layers + 1
        found: dict[int, torch.Tensor] = {}
        for turn, part in enumerate(parts):
            inputs = joined([every[number] for number in part], self._padding())
            inputs = {name: value.to(device) for name, value in inputs.items()}
            lengths = [len(ids[number]) for number in part]
            further = None if progress is None else _further(progress, turn * layers, len(parts) * layers)
            self._forget_pictures()
            inner = self.model.model  # without the output layer: no logits are computed
            with (
                torch.no_grad(),
                captured_layers(inner.language_model, lengths, store_device, further) as capture,
            ):
                inner(**inputs, use_cache=False)
            ends = torch.stack([end for states in capture.states for end in states.aminmax()])  # NaN goes through
            check_finite(ends, f"The MLLM ({self.identity.label}) gave states", MLLM_ADVICE)
            found.update(zip(part, capture.states))
        made = []
        for number, prompt in enumerate(prompts):
            image_mask = (ids[number] == self.config.image_token_id).to(store_device)
            asked = (prompt.system_prompt, prompt.tiles, prompt.reading)
            made.append(LayerStates(found[number], image_mask, self.identity.label, *asked))
        return made

    def generate(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        device: torch.device | str | None = None,
        progress: Progress | None = None,
    ) -> str:
        from transformers import GenerationConfig

        if max_new_tokens < 1 or temperature < 0:
            raise SqueezeError(
                f"max_new_tokens is {max_new_tokens} and temperature {temperature}; "
                "give at least 1 token and a temperature of 0 (always the likeliest word) or more."
            )
        self._check_head()
        device = self._device(device)
        inputs = self.inputs(prompt, device)
        sampling = {"temperature": temperature, "top_k": _TOP_K, "top_p": _TOP_P} if temperature > 0 else {}
        settings = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=temperature > 0,
            eos_token_id=self._ends(),
            pad_token_id=self._ends()[0],
            **sampling,
        )
        with torch.no_grad(), _own_seed(seed, device), warnings.catch_warnings():
            # It looks at one parameter's device, which tells nothing when a host pages the weights.
            warnings.filterwarnings("ignore", message="You are calling .generate")
            tokens = self.model.generate(
                **inputs, generation_config=settings, streamer=_TokenCount(max_new_tokens, progress)
            )
        answer = tokens[0, inputs["input_ids"].shape[1] :]
        return self.tokenizer.decode(answer, skip_special_tokens=True).strip()

    def generate_json(
        self,
        prompt: Prompt,
        schema: Mapping[str, Any],
        *,
        seeds: Sequence[int] = (0,),
        words: int = 600,
        temperature: float = 0.0,
        device: torch.device | str | None = None,
        progress: Progress | None = None,
    ) -> list[str]:
        from .candidates import decode
        from .constrained import JSONGrammar, fewest_tokens

        if not seeds or words < 1 or temperature < 0:
            raise SqueezeError(
                f"There are {len(seeds)} seeds, {words} words and temperature {temperature}; give at least 1 seed, "
                "1 word and a temperature of 0 (always the likeliest word) or more."
            )
        self._check_head()
        if self._grammar is None:
            self._grammar = JSONGrammar(self.tokenizer, self.config.text_config.vocab_size, self._ends())
        inputs = self.inputs(prompt, self._device(device))
        reserve = fewest_tokens(schema)
        self._check_length(inputs["input_ids"].shape[1] + reserve + words)
        with torch.no_grad():
            answers = decode(
                self.model,
                inputs,
                self._grammar.answers(schema, len(seeds)),
                seeds,
                limit=reserve + words,
                reserve=reserve,
                temperature=temperature,
                top_k=_TOP_K,
                top_p=_TOP_P,
                end=self._ends()[0],
                progress=progress,
            )
        return [self.tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]

    def _check_head(self) -> None:
        if not self.can_generate:
            raise SqueezeError(
                "This checkpoint has no output layer (lm_head), so the model can read but not write. "
                "Load a complete folder to write text."
            )

    def inputs(self, prompt: Prompt, device: torch.device | str) -> dict[str, torch.Tensor]:
        """What the model's forward takes for one prompt, on `device`: input_ids [1, tokens] and the rest."""
        text, extra = self._chat(prompt)
        encoded = self.tokenizer(text, return_tensors="pt")
        inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        inputs = prompt.reading.padded(inputs, self._padding())
        self._check_length(inputs["input_ids"].shape[1])
        if "mm_token_type_ids" in inspect.signature(self.model.model.forward).parameters:
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == self.config.image_token_id).int()
        self._forget_pictures()
        if "pixel_values" in extra:  # transformers before 4.54 leaves them in float32
            compute_dtype = self.model.model.language_model.norm.weight.dtype
            extra["pixel_values"] = extra["pixel_values"].to(compute_dtype)
        return {name: value.to(device) for name, value in (inputs | extra).items()}

    def spans(self, prompt: Prompt) -> list[tuple[int, int] | None]:
        """For each token of `inputs` the characters (begin, end) of the prompt's text that it stands for.

        None for the chat's own tokens and those of pictures. The prompt is read the plain way, without padding.
        """
        assert prompt.reading == PLAIN
        text, _ = self._chat(prompt)
        begin = text.rindex(prompt.text + CHAT_END)
        offsets = self.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        inside = [(max(0, first - begin), min(len(prompt.text), last - begin)) for first, last in offsets]
        return [span if span[0] < span[1] else None for span in inside]

    def _chat(self, prompt: Prompt) -> tuple[str, dict[str, torch.Tensor]]:
        """What the tokenizer reads, and the inputs of the pictures."""
        check_prompt(prompt)
        marks, extra = self.pictures([as_rgb(image) for image in prompt.images], prompt.tiles, prompt.reading)
        return chat_text(prompt, marks), extra

    def _forget_pictures(self) -> None:
        # Left over from an earlier prompt with pictures, it would shift the positions of the next one.
        if hasattr(self.model.model, "rope_deltas"):
            self.model.model.rope_deltas = None

    def _check_length(self, tokens: int) -> None:
        longest = self.config.text_config.max_position_embeddings
        if tokens > longest:
            raise SqueezeError(
                f"Prompt and pictures make {tokens:,} tokens; this model reads {longest:,}. "
                "Give fewer pictures, fewer tiles or less text."
            )

    def _device(self, device: torch.device | str | None) -> torch.device | str:
        # Only when nothing was said: with paged weights a parameter may lie elsewhere than its computation.
        return self.model.model.language_model.norm.weight.device if device is None else device

    def _padding(self) -> int:
        pad = self.tokenizer.pad_token_id
        return self._ends()[-1] if pad is None else pad

    def _ends(self) -> list[int]:
        """Tokens after which the answer is over: end of message, and end of text as base models write it."""
        known = self.tokenizer.get_vocab()
        ids = [known.get("<|im_end|>"), known.get("<|endoftext|>"), self.tokenizer.eos_token_id]
        return list(dict.fromkeys(token for token in ids if token is not None))


def _further(progress: Progress, before: int, total: int) -> Progress:
    """A pass's progress as that of all of them."""
    return lambda done, _: progress(before + done, total)


class _TokenCount:
    """transformers' streamer interface: `put` is called once with the prompt, then for each new token."""

    def __init__(self, limit: int, progress: Progress | None) -> None:
        self._done = -1
        self._limit = limit
        self._progress = progress

    def put(self, value: torch.Tensor) -> None:
        self._done += 1
        if self._done > 0 and self._progress is not None:
            self._progress(self._done, self._limit)

    def end(self) -> None:
        pass


@contextmanager
def _own_seed(seed: int, device: torch.device | str):
    """Random numbers by `seed` inside, the caller's own generators untouched outside."""
    # Not torch.manual_seed, which would reseed every device of the machine.
    kind = torch.device(device).type
    if kind == "cuda":
        device = torch.device(device)
        index = torch.cuda.current_device() if device.index is None else device.index
        with torch.random.fork_rng(devices=[index]):
            torch.default_generator.manual_seed(seed)
            torch.cuda.default_generators[index].manual_seed(seed)
            yield
    else:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
