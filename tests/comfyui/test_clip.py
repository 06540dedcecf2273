"""CLIP-L's pooled vector: headless it is the one that ComfyUI's CLIP Text Encode gives the nodes."""

import json
import shutil
from pathlib import Path

import torch

from squeeze_core.flux import clip

PROMPTS = ["a photo of a toy", "The cat of picture 1, left of the dog of picture 2!", ""]


def test_headless_and_comfyui_hear_a_prompt_alike(comfy, tmp_path):
    from comfy import sd1_clip
    from transformers import CLIPTextConfig, CLIPTextModel

    files = Path(sd1_clip.__file__).parent
    sizes = json.loads((files / "sd1_clip_config.json").read_text(encoding="utf-8")) | {"num_hidden_layers": 1}
    (tmp_path / "sizes.json").write_text(json.dumps(sizes), encoding="utf-8")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPTextModel(CLIPTextConfig(**sizes))
    model.save_pretrained(tmp_path / "text_encoder")
    shutil.copytree(files / "sd1_tokenizer", tmp_path / "tokenizer")
    found = clip.load(tmp_path).encode(PROMPTS)
    assert (found[0] - found[1]).abs().max() > 0.1, "prompts differ"

    theirs = sd1_clip.SDClipModel(
        textmodel_json_config=str(tmp_path / "sizes.json"), dtype=torch.float32, return_projected_pooled=False
    )
    state = model.state_dict()
    state = {name if name.startswith("text_model.") else f"text_model.{name}": state[name] for name in state}
    missing = theirs.load_sd(state).missing_keys
    assert all("projection" in name or "position_ids" in name for name in missing), missing
    tokenizer = sd1_clip.SDTokenizer()
    for prompt, vector in zip(PROMPTS, found):
        _, pooled = theirs.encode_token_weights(tokenizer.tokenize_with_weights(prompt))
        torch.testing.assert_close(pooled[0], vector, rtol=1e-4, atol=1e-5)
