"""transformers' `from_pretrained` of a local folder, with errors that say what to do."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from .errors import SqueezeError


def load(kind: Any, folder: Path, advice: str, *, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """kind: a class of models, tokenizers or processors. A model comes frozen, in `dtype`.

    advice: the sentence that follows on what is wrong. Raises `SqueezeError`, also when weights are missing, which
    transformers would fill with random numbers.
    """
    is_model = kind.__name__.startswith("AutoModel") or (isinstance(kind, type) and issubclass(kind, nn.Module))
    if is_model:
        options |= {"output_loading_info": True, "torch_dtype": dtype}
    try:
        loaded = kind.from_pretrained(str(folder), local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise SqueezeError(f'"{folder}" cannot be loaded ({reason}). {advice}') from error
    if not is_model:
        return loaded
    model, information = loaded
    if information["missing_keys"]:
        first = sorted(information["missing_keys"])[0]
        raise SqueezeError(f'"{folder}" lacks {first}. {advice}')
    return model.to(dtype).eval().requires_grad_(False)
