"""Peak memory of loading an MLLM, as a multiple of its weights.

Each load runs in a process of its own, because a peak cannot be told from what ran before. The model is
made up, with the architecture and key layout of InternVL3 and weights of a few hundred MB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from ..errors import SqueezeError

_LIMIT_S = 300


def measure() -> dict[str, float]:
    """For "default" and "fp8_e4m3fn": weight bytes, peak bytes while loading, and their ratio.

    The peak counts every resident page above what was there before, mapped pages of the file included, after
    all weights were read once. Linux only; raises SqueezeError elsewhere.
    """
    if not Path("/proc/self/clear_refs").exists():
        raise SqueezeError("Peak memory is measured through /proc, which this system lacks. Measure on Linux.")
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        folder = write_synthetic(Path(directory))
        for weight_dtype in ("default", "fp8_e4m3fn"):
            numbers = _in_own_process(folder, weight_dtype)
            results[f"{weight_dtype}_weight_bytes"] = numbers["weights"]
            results[f"{weight_dtype}_peak_bytes"] = numbers["peak"]
            results[f"{weight_dtype}_ratio"] = numbers["peak"] / numbers["weights"]
    return results


def write_synthetic(folder: Path) -> Path:
    """A bf16 InternVL folder of about 450 MB in the published key layout, without a tokenizer."""
    import torch
    import transformers
    from safetensors.torch import save_file

    config = transformers.InternVLConfig(
        vision_config={"hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 1024},
        text_config={
            "model_type": "qwen2",
            "vocab_size": 32768,
            "hidden_size": 1024,
            "num_hidden_layers": 12,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "intermediate_size": 4096,
            "tie_word_embeddings": False,
        },
        image_token_id=1,
        tie_word_embeddings=False,
    )
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = transformers.InternVLForConditionalGeneration(config)
    layout = {
        "model.language_model.": "language_model.model.",
        "lm_head.": "language_model.lm_head.",
        "model.": "",
    }
    weights = {}
    for key, value in model.state_dict().items():
        new = next(prefix for prefix in layout if key.startswith(prefix))
        name = layout[new] + key.removeprefix(new)
        weights[name] = torch.full(value.shape, 0.01, dtype=torch.bfloat16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _in_own_process(folder: Path, weight_dtype: str) -> dict[str, int]:
    # Under its own name, whatever name a host imported the package by.
    root = Path(__file__).resolve().parents[2]
    program = (
        "import sys; sys.path[:0] = [sys.argv[1]]; "
        "from squeeze_core.bench.mllm_loading import report; report(sys.argv[2], sys.argv[3])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(root), str(folder), weight_dtype],
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
    )
    if done.returncode:
        raise SqueezeError(f"Loading in a process of its own failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(folder: str, weight_dtype: str) -> None:
    """Load, read every weight once, print {"weights", "peak"} in bytes. Runs in the measured process."""
    import torch
    import transformers

    from ..mllm.loading import load_model

    # Imported before the start line: the libraries are not what is measured.
    config = transformers.InternVLConfig.from_pretrained(folder)
    with torch.device("meta"):
        transformers.InternVLForConditionalGeneration(config)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the present
    before = _status("VmRSS")
    model = load_model(folder, weight_dtype)  # type: ignore[arg-type]
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.view(torch.uint8).max()
    weights = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    print(json.dumps({"weights": weights, "peak": _status("VmHWM") - before}))


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise SqueezeError(f"/proc/self/status has no {field}.")
