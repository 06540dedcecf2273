"""The real models' code on tiny random ones: form, seeds and refusals, not sense."""

import json

import pytest
import torch
from PIL import Image

from squeeze_core.config_files import checked
from squeeze_core.data.music import answers
from squeeze_core.data.music.build import build
from squeeze_core.data.music.config import MusicConfig
from squeeze_core.data.music.models import FluxPainter, LanguageModel, RealRoles, Sam2, VisionJudge
from squeeze_core.data.music.record import Record, Subject
from squeeze_core.errors import SqueezeError
from squeeze_core.mllm.loading import load as load_mllm
from squeeze_core.vision.backbones import load_clip

from ...evaluation import models as evaluation_models
from ...mllm import checkpoints
from . import models

CPU = torch.device("cpu")
BOXES = ((0.0, 0.0, 0.5, 0.9), (0.5, 0.1, 0.4, 0.6))
SUBJECTS = tuple(Subject(name=name, box=box) for name, box in zip(("cat", "cup"), BOXES))
RECORD = Record(id="000004", number=4, names=("cat", "cup"), caption="a cat and a cup", subjects=SUBJECTS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("real")
    return {
        "writer": models.qwen3(root / "qwen3"),
        "painter": models.flux(root / "flux"),
        "lora": root / "flux" / "uno.safetensors",
        "detector": evaluation_models.grounding_dino(root / "dino"),
        "judge": checkpoints.qwen(root / "vlm"),
        "segmenter": models.sam2(root / "sam2"),
        "likeness": evaluation_models.clip(root / "clip"),
    }


@pytest.fixture(scope="module")
def config(folders):
    values = {
        "models": {name: str(path) for name, path in folders.items()} | {"dtype": "fp32", "judge_dtype": "fp32"},
        "samples": 3,
        "subjects": [2, 3],
        "candidates": 4,
        "resolution": 64,
        "reference_side": 64,
        "steps": 2,
        "min_area": 0.0,
    }
    return checked(values, MusicConfig)


def picture(side=64):
    return Image.effect_noise((side, side), 80).convert("RGB")


def test_the_llm_chooses_candidates_and_writes_by_the_records_seed(folders):
    writer = LanguageModel.load(str(folders["writer"]), 0, CPU)
    names = [writer.categories(RECORD, ["cat", "cup", "dog", "tree"], 2, 3) for _ in range(2)]
    assert names[0] == names[1] and set(names[0]) <= {"cat", "cup", "dog", "tree"}
    captions = [writer.caption(each) for each in (RECORD, RECORD, RECORD.model_copy(update={"number": 5}))]
    assert captions[0] == captions[1] != captions[2] and 0 < len(captions[0]) <= 1200


def test_a_model_without_a_chat_template_is_no_llm(folders):
    with pytest.raises(SqueezeError, match=r"hf download Qwen/Qwen3-8B"):
        LanguageModel.load(str(folders["judge"] / "nothing"), 0, CPU)


def test_flux_paints_alike_in_any_batch_and_views_hear_the_crop_and_the_lora(config):
    painter = FluxPainter.load(config, CPU)
    other = RECORD.model_copy(update={"number": 9, "caption": "a dog"})
    both, alone = painter.paint([RECORD, other]), painter.paint([other])
    assert both[0].size == (64, 64) and differ(both[0], both[1]) > 1
    assert differ(both[1], alone[0]) < 1
    red, noise = Image.new("RGB", (40, 60), "red"), picture()
    views = painter.redraw([RECORD] * 3, [SUBJECTS[0]] * 3, [red, noise, red])
    assert views[0].size == (64, 64) and differ(views[0], views[2]) == 0 and differ(views[0], views[1]) > 0
    painter.pipe.set_adapters("views", 0.0)
    assert differ(painter.redraw([RECORD], [SUBJECTS[0]], [red])[0], views[0]) > 0


def differ(one, other):
    pixels = [torch.tensor(list(each.getdata()), dtype=torch.float32) for each in (one, other)]
    return float((pixels[0] - pixels[1]).abs().max())


def test_a_lora_that_is_not_there_is_said(config):
    other = config.models.model_copy(update={"lora": "none.safetensors"})
    with pytest.raises(SqueezeError, match="bytedance-research/UNO"):
        FluxPainter.load(config.model_copy(update={"models": other}), CPU)


def test_the_vlms_answers_have_their_form(folders):
    judge = VisionJudge(load_mllm(folders["judge"], "fp32"), 0)
    shown = picture()
    verdict = judge.verify(RECORD, shown, SUBJECTS[0])
    assert isinstance(verdict.same, bool) and 0 <= verdict.count <= 9
    told = judge.tell(RECORD, shown)
    assert len(told.captions) == len(told.depths) == 2 and told.instruction
    assert told == judge.tell(RECORD, shown)


def test_what_a_vlm_would_say_is_read():
    said = {
        "thought": "subject 1 sits.",
        "instruction": "the cat of picture 1 by the cup of picture 2.",
        "scene": "indoors",
        "captions": ["a cat", "a cup"],
        "relations": [{"subject": 1, "relation": "left of", "object": 2}],
        "depths": [1, 2],
    }
    told = answers.told(json.dumps(said))
    assert str(told.relations[0]) == "1 left of 2" and told.depths == (1, 2)
    assert answers.judged('{"answer": "yes"}', '{"count": 3}') == answers.Judged(True, 3)


def test_sam2_masks_a_box_and_clip_chooses(folders):
    sam = Sam2(str(folders["segmenter"]), load_clip(folders["likeness"]), CPU)
    shown = picture(96)
    mask = sam.mask(RECORD, shown, SUBJECTS[0])
    assert mask.shape == (96, 96) and mask.dtype == torch.bool
    everything = torch.ones(96, 96, dtype=torch.bool)
    assert sam.prefers(RECORD, shown, SUBJECTS[0], everything) is False  # the same as the box, not better


def test_clip_chooses_the_mask_where_it_is_nearer_to_the_words(folders, monkeypatch):
    sam = Sam2(str(folders["segmenter"]), load_clip(folders["likeness"]), CPU)
    shown, half = picture(96), torch.zeros(96, 96, dtype=torch.bool)
    half[:, :24] = True
    words = torch.nn.functional.normalize(torch.ones(1, 8), dim=-1)
    monkeypatch.setattr(sam.clip, "encode_texts", lambda texts: words)
    for nearer in (0, 1):  # the masked one stands first
        seen = torch.stack([words[0] * (1.0 if row == nearer else 0.5) for row in range(2)])
        monkeypatch.setattr(sam.clip, "encode", lambda pictures, seen=seen: seen)
        assert sam.prefers(RECORD, shown, SUBJECTS[0], half) is (nearer == 0)


def test_a_model_that_is_not_there_is_said_before_anything_begins(config):
    other = config.models.model_copy(update={"segmenter": "nowhere"})
    with pytest.raises(SqueezeError, match=r'no segmenter at "nowhere".*hf download facebook/sam2'):
        RealRoles(config.model_copy(update={"models": other}))


def test_all_stages_run_on_the_real_code_and_one_model_is_held_at_a_time(config, tmp_path, monkeypatch):
    roles, held = RealRoles(config), []
    load = roles._load

    def loading(kind):
        assert roles._held is None
        held.append(kind)
        return load(kind)

    monkeypatch.setattr(roles, "_load", loading)
    about = build(tmp_path / "out", config, roles)
    assert about["stages"]["categories"]["failed"] == about["stages"]["captions"]["failed"] == 0
    assert about["stages"]["captions"]["in"] > 0 and set(about["models"]) == set(config.models.model_dump()) - {
        "dtype",
        "judge_dtype",
    }
    assert held[0] == "writer" and held.count("writer") == 1
