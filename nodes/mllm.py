"""Nodes around the multimodal LLM: load, encode, write a prompt."""

from __future__ import annotations

from comfy_api.latest import io

from ..squeeze_core.mllm.backbone import Prompt
from . import folders, hosting, paging
from .images import pictures
from .sockets import CATEGORY, DLA, MLLM, REFUSES_UNKNOWN, States, pictures_input

NO_MODEL = "(no MLLM found)"
DTYPES = ["default", "bf16", "fp16", "fp8_e4m3fn"]


class LoadMLLM(io.ComfyNode):
    """A folder of the disk -> an MLLM under ComfyUI's memory manager."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeLoadMLLM",
            display_name="Load MLLM",
            category=CATEGORY,
            description="Load InternVL3 or Qwen2.5-VL from a folder. ComfyUI frees its VRAM when FLUX needs it.",
            search_aliases=["InternVL", "InternVL3", "Qwen2.5-VL", "VLM", "multimodal LLM loader"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=list(folders.mllm_choices()) or [NO_MODEL],
                    tooltip="A folder in Hugging Face layout under models/LLM, models/VLM, models/text_encoders or "
                    "the same names in extra_model_paths.yaml. Take the one that your adapter was trained with.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=DTYPES,
                    default="default",
                    tooltip="How weights are stored. default: as in the file. fp8_e4m3fn: about half the memory; "
                    "the language model's linear layers are cast as they are used.",
                ),
                io.Combo.Input(
                    "device",
                    options=list(paging.DEVICES),
                    default="default",
                    advanced=True,
                    tooltip="default: ComfyUI's device for text encoders. gpu: the GPU also under --lowvram and "
                    "--novram, paged. cpu: never takes VRAM, but is slow.",
                ),
            ],
            outputs=[MLLM.Output(display_name="mllm", tooltip="For Encode and Write Prompt.")],
        )

    @classmethod
    def validate_inputs(cls, model: str | None = None) -> bool | str:
        try:
            if model is not None:  # connected to another node: known only when it runs
                folders.mllm_path(model)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model: str | None = None, **kwargs) -> tuple | None:
        return None if model is None else hosting.file_stamps(folders.mllm_path(model))

    @classmethod
    def execute(cls, model: str, weight_dtype: str, device: str) -> io.NodeOutput:
        return io.NodeOutput(hosting.load_mllm(folders.mllm_path(model), weight_dtype, device))


class Encode(io.ComfyNode):
    """Text and pictures, read together -> the states of all layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeEncode",
            **REFUSES_UNKNOWN,
            display_name="Encode Text and Pictures",
            category=CATEGORY,
            description="The MLLM reads the prompt and the pictures together. Nothing after this "
            "node runs it again.",
            search_aliases=[
                "consistency",
                "character",
                "identity",
                "Kontext",
                "subject",
                "MLLM encode",
                "multimodal prompt",
                "InternVL encode",
            ],
            inputs=[
                MLLM.Input("mllm", tooltip="From Load MLLM or Toy World."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    placeholder="The toy of the picture on a beach at sunset",
                    tooltip='What to show. Pictures may be named in their order: "the hat of picture 1".',
                ),
                pictures_input(
                    "A picture of a subject; a new socket appears as you connect one. A batch counts as several "
                    "pictures in order. None at all is fine: then the prompt speaks alone."
                ),
                io.String.Input(
                    "system_prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    advanced=True,
                    tooltip="Empty unless the adapter was trained with one.",
                ),
                io.Int.Input(
                    "tiles",
                    default=1,
                    min=1,
                    max=12,
                    optional=True,
                    advanced=True,
                    tooltip="Tiles that a picture may be cut into, 1 to 12. Each costs 256 tokens; "
                    "adapters are trained "
                    "with 1 unless they say otherwise.",
                ),
                DLA.Input(
                    "for_adapter",
                    optional=True,
                    tooltip="The dla of Load Squeeze Adapter. Text, pictures and padding are then put as the "
                    "adapter was trained; system_prompt and tiles are its own, and those here are not read.",
                ),
            ],
            outputs=[States.Output(display_name="states", tooltip="Hidden states of every layer, for Aggregate.")],
        )

    @classmethod
    def execute(
        cls,
        mllm,
        prompt: str,
        images=None,
        system_prompt: str = "",
        tiles: int = 1,
        for_adapter=None,
        **unknown,
    ) -> io.NodeOutput:
        asked = Prompt(prompt, pictures(images, unknown), system_prompt, tiles)
        if for_adapter is not None:
            for_adapter.config.check_mllm(mllm.identity)  # before it works for nothing
            asked = for_adapter.config.prompt(asked.text, asked.images)
        return io.NodeOutput(mllm.encode(asked))


class WritePrompt(io.ComfyNode):
    """The MLLM's reading put to use with public weights: it writes the prompt that T5 will read."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        from ..squeeze_core.mllm.write_prompt import STYLES

        return io.Schema(
            node_id="SqueezeWritePrompt",
            **REFUSES_UNKNOWN,
            display_name="Write Prompt from Pictures",
            category=CATEGORY,
            description="The MLLM reads instruction and pictures together and writes a prompt that names what they "
            "show. Works today with public weights: connect it to a text encoder and gate the references.",
            search_aliases=["caption", "describe image", "prompt enhancer", "VLM prompt"],
            inputs=[
                MLLM.Input(
                    "mllm", tooltip="From Load MLLM. A paged MLLM streams all weights for every word: slow."
                ),
                io.String.Input(
                    "instruction",
                    multiline=True,
                    dynamic_prompts=True,
                    placeholder="The cat of picture 1 wears the hat of picture 2",
                    tooltip="What you want to see. Pictures are named in their order.",
                ),
                pictures_input("A picture that the instruction speaks of, in order."),
                io.Combo.Input("style", options=list(STYLES), tooltip="How the prompt is written."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="The same seed writes the same prompt. Without effect at temperature 0.",
                ),
                io.Float.Input(
                    "temperature",
                    default=0.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="0 takes the likeliest word each time; 0.5 to 1 varies with the seed.",
                ),
                io.Int.Input(
                    "max_tokens",
                    default=200,
                    min=8,
                    max=2048,
                    optional=True,
                    advanced=True,
                    tooltip="The longest answer in tokens. T5 reads 512, CLIP 77.",
                ),
            ],
            outputs=[io.String.Output(display_name="prompt", tooltip="For CLIP Text Encode.")],
        )

    @classmethod
    def execute(
        cls,
        mllm,
        instruction: str,
        style: str,
        seed: int,
        images=None,
        temperature: float = 0.0,
        max_tokens: int = 200,
        **unknown,
    ) -> io.NodeOutput:
        from ..squeeze_core.mllm.write_prompt import write_prompt

        return io.NodeOutput(
            write_prompt(
                mllm,
                instruction,
                pictures(images, unknown),
                style=style,
                seed=seed,
                temperature=temperature,
                max_new_tokens=max_tokens,
            )
        )
