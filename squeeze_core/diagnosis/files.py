"""The model files of the workflows: where each comes from, where it goes, and under what licence.

The one list: the workflows' links, README's table and `squeeze doctor` are made from it or tested against it.
"""

from __future__ import annotations

from dataclasses import dataclass

HOST = "https://huggingface.co"


@dataclass(frozen=True)
class File:
    """where: repository and folder; empty for a file that is made or that nobody publishes."""

    name: str
    where: str
    directory: str
    licence: str

    @property
    def repository(self) -> str:
        return self.where.partition(":")[0]

    @property
    def get(self) -> str:
        """The command that fetches it, run in ComfyUI's folder; empty for what has no address."""
        return f"curl -L {self.url} -o models/{self.directory}/{self.name}" if self.where else ""

    @property
    def row(self) -> str:
        """Of README's table."""
        return f"| `{self.name}` | `{self.repository}` | `models/{self.directory}` | {self.licence} |"

    @property
    def url(self) -> str:
        if not self.where:
            return ""
        repository, _, folder = self.where.partition(":")
        return "/".join(part for part in (HOST, repository, "resolve/main", folder, self.name) if part)


_FLUX, _UNO = "FLUX.1-dev", "UNO (CC BY-NC 4.0)"
_QWEN, _KREA = "Apache-2.0", "Krea 2 (read its card)"
NOT_FOR_SALE = (_FLUX, _UNO, _KREA)
_DIFFUSION, _TEXT = "diffusion_models", "text_encoders"
LISTED = (
    File("flux1-dev.safetensors", "Comfy-Org/flux1-dev", "diffusion_models", _FLUX),
    File(
        "flux1-dev-kontext_fp8_scaled.safetensors",
        "Comfy-Org/flux1-kontext-dev_ComfyUI:split_files/diffusion_models",
        "diffusion_models",
        _FLUX,
    ),
    File("dit_lora.safetensors", "bytedance-research/UNO", "loras", _UNO),
    File("clip_l.safetensors", "comfyanonymous/flux_text_encoders", _TEXT, "MIT"),
    File("t5xxl_fp8_e4m3fn_scaled.safetensors", "comfyanonymous/flux_text_encoders", _TEXT, "Apache-2.0"),
    File("ae.safetensors", "Comfy-Org/Lumina_Image_2.0_Repackaged:split_files/vae", "vae", "Apache-2.0"),
    File(
        "krea2_turbo_fp8_scaled.safetensors",
        "Comfy-Org/Krea-2:diffusion_models",
        "diffusion_models",
        _KREA,
    ),
    File("krea2_style_reference.safetensors", "Comfy-Org/Krea-2:loras", "loras", _KREA),
    File("qwen3vl_4b_fp8_scaled.safetensors", "Comfy-Org/Krea-2:text_encoders", "text_encoders", _QWEN),
    File("qwen_image_vae.safetensors", "Comfy-Org/Qwen-Image_ComfyUI:split_files/vae", "vae", _QWEN),
    File(
        "qwen_image_edit_2511_fp8mixed.safetensors",
        "Comfy-Org/Qwen-Image-Edit_ComfyUI:split_files/diffusion_models",
        "diffusion_models",
        _QWEN,
    ),
    File(
        "qwen_2.5_vl_7b_fp8_scaled.safetensors",
        "Comfy-Org/HunyuanVideo_1.5_repackaged:split_files/text_encoders",
        "text_encoders",
        _QWEN,
    ),
    File("flux-2-klein-4b-fp8.safetensors", "black-forest-labs/FLUX.2-klein-4b-fp8", _DIFFUSION, _QWEN),
    File("qwen_3_4b.safetensors", "Comfy-Org/z_image_turbo:split_files/text_encoders", "text_encoders", _QWEN),
    File("flux2-vae.safetensors", "Comfy-Org/flux2-dev:split_files/vae", "vae", "Apache-2.0"),
    File("Qwen2.5-VL-7B-Instruct", "", "LLM", "Apache-2.0, a folder"),
    File("x2i_qwen2.5-vl-7b.safetensors", "", "squeeze", "X2I's, see below"),
    File("InternVL3-8B-hf", "", "LLM", "see its card, a folder"),
    File("your_adapter.safetensors", "", "squeeze", "its trainer's"),
)
FILES = {file.name: file for file in LISTED}


def table(*names: str) -> str:
    """Markdown: each file and its folder, then what may not be sold."""
    rows = [f"| {name} | models/{FILES[name].directory} |" for name in names]
    bound = dict.fromkeys(FILES[name].licence for name in names if FILES[name].licence in NOT_FOR_SALE)
    said = f"Licences: {' and '.join(bound)}, **non-commercial**." if bound else "None is **non-commercial**."
    return "\n".join(["| file | folder |", "|---|---|", *rows]) + f"\n\n{said}"
