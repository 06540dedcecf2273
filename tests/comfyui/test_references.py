"""Reference pictures through the node and ComfyUI's VAE."""

import io

import pytest
import torch
from PIL import Image
from skimage import data


@pytest.fixture(scope="module")
def node(pack):
    return pack("nodes.references").ReferenceTokens


@pytest.fixture(scope="module")
def error(pack):
    return pack("squeeze_core.errors").SqueezeError


def photograph(name: str) -> torch.Tensor:
    return torch.from_numpy(getattr(data, name)())[None].float() / 255


def run(node, vae, image, **inputs):
    """(references, images) of the node."""
    return node.execute(vae, image, **{"long_side": 0, "placement": "auto", **inputs}).args


@pytest.mark.parametrize("fit", ["resize", "pad"])
@pytest.mark.parametrize("name", ["cat", "coffee", "astronaut"])
def test_the_image_shown_is_the_one_encoded(node, tiny_vae, name, fit, clean_memory):
    references, (shown,) = run(node, tiny_vae, photograph(name), long_side=128, fit=fit)
    assert all(side % 16 == 0 for side in shown.shape[1:3]) and max(shown.shape[1:3]) == 128
    latent = references.latents[0]
    assert latent.shape == (1, 16, shown.shape[1] // 8, shown.shape[2] // 8)
    assert torch.equal(tiny_vae.encode(shown), latent)


def test_one_reference_is_512_and_two_are_320_wherever_they_join(node, tiny_vae, clean_memory):
    first, _ = run(node, tiny_vae, photograph("cat"))
    assert max(first.latents[0].shape[-2:]) == 512 // 8
    both, images = run(node, tiny_vae, photograph("astronaut"), references=first)
    assert [max(latent.shape[-2:]) for latent in both.latents] == [320 // 8, 320 // 8]
    assert len(images) == 2  # of two sizes, so one by one
    own, _ = run(node, tiny_vae, photograph("coffee"), references=first, long_side=256)
    assert [max(latent.shape[-2:]) for latent in own.latents] == [320 // 8, 256 // 8]


def test_a_batch_is_several_pictures_and_one_mask_serves_all(node, tiny_vae, clean_memory):
    batch = torch.cat([photograph("cat"), photograph("cat").flip(2)])
    mask = torch.zeros(1, *batch.shape[1:3])
    mask[:, :150] = 1
    references, (shown,) = run(node, tiny_vae, batch, mask=mask, long_side=128)
    assert len(references.latents) == 2 and len(shown) == 2
    assert (shown[:, -20:] - 0.5).abs().max() < 1e-6  # below the mask all is neutral
    assert (shown[:, :30] - 0.5).abs().max() > 0.1


def test_what_an_alpha_channel_hides_is_white_as_for_the_mllm(node, pack, tiny_vae, clean_memory):
    picture = photograph("cat")
    alpha = torch.ones_like(picture[..., :1])
    alpha[:, :150] = 0
    alpha[:, 150:160] = 0.5
    cut = torch.cat([picture, alpha], -1)
    (shown,) = run(node, tiny_vae, cut, long_side=448)[1]
    (read,) = pack("nodes.images").pictures({"picture_1": cut})
    white = pack("squeeze_core.images").to_tensor(read)[None]
    (expected,) = run(node, tiny_vae, white, long_side=448)[1]
    assert shown[:, :140].min() > 0.999 and shown[:, -100:].min() < 0.5
    assert (shown - expected).abs().max() < 2 / 255  # that of the MLLM is rounded to 8 bits


class AnotherModelsVAE:
    """One of SD 1.5's shape, or of a video model's."""

    def __init__(self, *shape: int):
        self.shape = shape

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.zeros(self.shape)


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 48, 1, 8, 8)])
def test_the_vae_of_another_model_is_refused(node, error, shape):
    with pytest.raises(error, match=r"16 channels.*ae\.safetensors") as refusal:
        run(node, AnotherModelsVAE(*shape), photograph("cat"), long_side=64)
    assert str(list(shape)) in str(refusal.value)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(1, 300, 451), "black everywhere"),
        (torch.eye(64)[None], "64 x 64 px and the picture 451 x 300 px"),
        (torch.ones(1, 64, 64), "leave mask unconnected"),
        (torch.ones(3, 300, 451), "1 pictures and 3 masks"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(node, tiny_vae, error, mask, message):
    with pytest.raises(error, match=message):
        run(node, tiny_vae, photograph("cat"), mask=mask)


def test_placements_of_a_chain_must_agree(node, tiny_vae, error, clean_memory):
    first, _ = run(node, tiny_vae, photograph("cat"), long_side=64, placement="uxo")
    assert run(node, tiny_vae, photograph("cat"), long_side=64, references=first)[0].placement == "uxo"
    with pytest.raises(error, match="placed alike"):
        run(node, tiny_vae, photograph("cat"), long_side=64, references=first, placement="index")


def test_a_vae_that_gives_nan_is_refused_by_name(node, tiny_vae, error, clean_memory, monkeypatch):
    encode = tiny_vae.encode
    monkeypatch.setattr(tiny_vae, "encode", lambda pixels: encode(pixels) * float("nan"))
    with pytest.raises(error, match=r"The VAE gave latents .*another VAE"):
        run(node, tiny_vae, photograph("cat"), long_side=128)


def test_the_vae_of_qwen_and_wan_gives_latents_of_five_dimensions(node, comfy, clean_memory):
    import comfy.sd
    from comfy.ldm.wan.vae import WanVAE

    small = {"dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
    net = WanVAE(**small, temperal_downsample=[False, True, True], image_channels=3, conv_out_channels=3)
    draw = torch.Generator().manual_seed(0)
    state = {name: torch.randn(value.shape, generator=draw) * 0.05 for name, value in net.state_dict().items()}
    made = comfy.sd.VAE(sd=state, device=torch.device("cpu"), dtype=torch.float32)
    references, (shown,) = run(node, made, photograph("cat"), long_side=64)
    (latent,) = references.latents
    height, width = shown.shape[1:3]
    assert latent.shape == (1, 16, 1, height // 8, width // 8) and latent.any()


def test_a_long_side_of_0_is_the_adapters_own_where_it_is_given(server):
    """The toy adapter was trained at 128 px; by itself a lone reference is 512."""
    sizes = []
    for more in ({}, {"for_adapter": ["toy", 3]}):
        graph = {
            "toy": {"class_type": "SqueezeToyWorld", "inputs": {"subject": 0}},
            "tokens": {
                "class_type": "SqueezeReferenceTokens",
                "inputs": {
                    "vae": ["toy", 1],
                    "image": ["toy", 4],
                    "long_side": 0,
                    "placement": "auto",
                    "fit": "resize",
                    **more,
                },
            },
            "seen": {"class_type": "PreviewImage", "inputs": {"images": ["tokens", 1]}},
        }
        (entry,) = server.run_graph(graph)["seen"]["images"]
        sizes.append(Image.open(io.BytesIO(server.image(entry))).size)
    assert sizes == [(512, 512), (128, 128)]
