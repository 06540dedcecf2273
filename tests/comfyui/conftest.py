"""Tests on a real ComfyUI: the checkout at $COMFYUI_PATH, else ~/comfy/ComfyUI; page at $COMFYUI_FRONT_END_ROOT.

Two ways in. `pack` loads ComfyUI's modules into this process (always on the CPU) and this pack as ComfyUI
would, under one name. `server` boots ComfyUI as a process of its own and speaks HTTP with it. Without a
ComfyUI every test here skips, and the summary says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
PACK_NAME = "squeeze_pack"
# The helper modules of this folder. At the end, so that they can hide nothing.
if str(HERE) not in sys.path:
    sys.path.append(str(HERE))

from comfy_checkout import COMFYUI, WHY_NOT  # noqa: E402


def pytest_collection_modifyitems(items):
    if WHY_NOT is None:
        return
    skip = pytest.mark.skip(reason=WHY_NOT)
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(skip)


def pytest_terminal_summary(terminalreporter):
    def count(outcome: str) -> int:
        reports = terminalreporter.stats.get(outcome, [])
        return sum(1 for r in reports if getattr(r, "nodeid", "").startswith("tests/comfyui/"))

    if WHY_NOT is not None:
        skipped = f"all {count('skipped')} tests of tests/comfyui were SKIPPED"
        terminalreporter.write_line(f"{WHY_NOT}: {skipped}.", red=True, bold=True)
        return
    ran = count("passed") + count("failed")
    versions = (COMFYUI / "comfyui_version.py").read_text() if (COMFYUI / "comfyui_version.py").is_file() else ""
    version = versions.rpartition('"')[0].rpartition('"')[2] or "unknown version"
    terminalreporter.write_line(
        f"ComfyUI {version}: {ran} tests ran on it, {count('failed')} failed, {count('skipped')} skipped."
    )


@pytest.fixture(scope="session")
def comfyui_path() -> Path:
    return COMFYUI


@pytest.fixture(scope="session")
def comfy(tmp_path_factory) -> ModuleType:
    """ComfyUI's modules, importable in this process; its folders are temporary ones."""
    # Before everything else on the path: this checkout has a `nodes` folder as well, and `pythonpath` puts
    # the checkout in front, where it would hide ComfyUI's nodes.py.
    sys.path.insert(0, str(COMFYUI))
    for name in ("nodes", "utils", "app", "server", "execution", "folder_paths"):
        loaded = sys.modules.get(name)
        assert loaded is None or str(COMFYUI) in str(loaded.__file__), f"`{name}` is {loaded}, not ComfyUI's"
    # comfy.cli_args parses nothing unless main.py asks for it, so pytest's own arguments do no harm.
    from comfy.cli_args import args

    args.cpu = True
    args.base_directory = str(tmp_path_factory.mktemp("comfyui"))
    import comfy
    import comfy.model_management

    assert comfy.model_management.cpu_mode()
    return comfy


class Pack:
    """This pack, loaded as ComfyUI loads it. `pack("nodes.hosting")` is its module of that name.

    Its `squeeze_core` is `squeeze_pack.squeeze_core`, another module than a top-level `squeeze_core`: take
    classes from here, else `isinstance` does not hold.
    """

    def __init__(self, root: ModuleType):
        self.root = root

    def __call__(self, name: str) -> ModuleType:
        return importlib.import_module(f"{PACK_NAME}.{name}")


@pytest.fixture(scope="session")
def pack(comfy) -> Pack:
    if PACK_NAME not in sys.modules:
        specification = importlib.util.spec_from_file_location(PACK_NAME, CHECKOUT / "__init__.py")
        module = importlib.util.module_from_spec(specification)
        sys.modules[PACK_NAME] = module
        specification.loader.exec_module(module)
    return Pack(sys.modules[PACK_NAME])


@pytest.fixture
def clean_memory(comfy):
    """Nothing loaded before, nothing left behind."""
    management = comfy.model_management

    def empty():
        management.interrupt_current_processing(False)
        # Not unload_all_models: in 0.29 it frees one device only.
        management.free_memory(1e30, management.text_encoder_device())
        management.current_loaded_models.clear()

    empty()
    yield management
    empty()


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Family -> a folder with a tiny MLLM: see `comfy_mllm`."""
    from comfy_mllm import make_checkpoints

    return make_checkpoints(tmp_path_factory.mktemp("mllm"))


@pytest.fixture
def prompt(pack):
    """A text with two pictures, of the pack's own class."""
    from comfy_mllm import PICTURES

    return pack("squeeze_core.mllm").Prompt("the hat of picture 1 on picture 2", PICTURES)


@pytest.fixture(scope="session")
def tiny_flux(comfy):
    """Makes a patcher of a random FLUX of ComfyUI's own, width 128: `tiny_flux(seed=0, context=64)`."""
    import comfy.model_patcher
    import comfy.supported_models
    import torch

    def make(seed: int = 0, context: int = 64, depth: int = 1, single: int = 1):
        config = {
            "image_model": "flux",
            "in_channels": 16,
            "out_channels": 16,
            "vec_in_dim": 768,
            "context_in_dim": context,
            "hidden_size": 128,
            "mlp_ratio": 4.0,
            "num_heads": 1,
            "depth": depth,
            "depth_single_blocks": single,
            "axes_dim": [16, 56, 56],
            "theta": 10000,
            "patch_size": 2,
            "qkv_bias": True,
            "guidance_embed": True,
            "txt_ids_dims": [],
        }
        settings = comfy.supported_models.Flux(config)
        settings.set_inference_dtype(torch.float32, None)
        model = settings.get_model({}, "", device=torch.device("cpu"))
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.diffusion_model.named_parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.02
            values = torch.randn(parameter.shape, generator=generator) * scale
            parameter.data = values + 1 if "_norm" in name else values
        patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
        device = torch.device("cpu")
        return patcher(model.eval(), load_device=device, offload_device=device)

    return make


@pytest.fixture(scope="session")
def tiny_vae(comfy):
    """A random VAE of FLUX's kind (16 channels, 8 times smaller), as ComfyUI's `VAE`."""
    import comfy.sd
    import torch

    block = {
        "double_z": True,
        "z_channels": 16,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 2, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    from comfy.ldm.models.autoencoder import AutoencoderKL

    config = {"ddconfig": block, "embed_dim": 16}
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, value in AutoencoderKL(**config).state_dict().items():
        noise = torch.randn(value.shape, generator=generator) * (
            value[0].numel() ** -0.5 if value.ndim > 1 else 0.02
        )
        state[key] = noise + 1 if "norm" in key and key.endswith("weight") else noise
    return comfy.sd.VAE(sd=state, config={"params": config})


@pytest.fixture(scope="session")
def server(comfyui_path, tmp_path_factory):
    """A running ComfyUI with this pack, for the whole session: see `comfy_server.ComfyServer`."""
    from comfy_server import ComfyServer

    front_end = os.environ.get("COMFYUI_FRONT_END_ROOT")  # a folder of another front end's files
    extra = ("--front-end-root", front_end) if front_end else ()
    running = ComfyServer(comfyui_path, CHECKOUT, tmp_path_factory.mktemp("server"), extra)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()
