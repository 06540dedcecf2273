"""`squeeze data build` on the toy world, which knows the truth."""

import errno
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from squeeze_core.cli import app
from squeeze_core.commands.data import roles_of
from squeeze_core.config_files import checked
from squeeze_core.data.music import build as building
from squeeze_core.data.music.build import STAGES, build
from squeeze_core.data.music.category_list import categories
from squeeze_core.data.music.config import MusicConfig, load_config
from squeeze_core.data.music.ledger import Ledger
from squeeze_core.data.music.record import Dropped, Kept, Record
from squeeze_core.data.music.work import Work
from squeeze_core.data.sources.music import Music
from squeeze_core.errors import SqueezeError
from squeeze_core.planning.checks import problems
from squeeze_core.planning.plan import ScenePlan
from squeeze_core.planning.sentence import pictures_named
from squeeze_core.toyworld.music import FAULTS, ToyRoles, quality
from squeeze_core.training.build import open_data
from squeeze_core.training.config_files import parse_config

CONFIG = Path(__file__).parents[3] / "configs" / "toy_music_data.yaml"


def config(samples=12, **changes):
    values = {"models": {"world": "toyworld"}, "samples": samples, "subjects": [2, 4], "resolution": 128}
    return checked({**values, **changes}, MusicConfig, ("real", "toy"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The shipped config, with all of its noise, of 60 samples."""
    out = tmp_path_factory.mktemp("music") / "toys"
    settings = load_config(CONFIG, ["samples=60"])
    return out, settings, build(out, settings, ToyRoles(settings))


def rows(out):
    return [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]


def test_every_sample_is_whole_and_sound(built):
    out, _, about = built
    samples = rows(out)
    assert len(samples) == about["samples"] > 40 and len({sample["id"] for sample in samples}) == len(samples)
    for sample in samples:
        plan = ScenePlan.parse(sample["plan"])
        count = len(sample["references"])
        assert 2 <= count == len(plan.subjects) and not problems(plan, count)
        assert set(pictures_named(sample["prompt"])) == set(range(1, count + 1))
        assert all((out / name).is_file() for name in (sample["target"], *sample["references"]))


def test_the_filters_catch_what_they_are_there_for(tmp_path):
    noise = {fault: 0.1 for fault in FAULTS if fault != "misjudged"} | {"false relation": 0.4}
    settings = config(80, models={"world": "toyworld", "noise": noise})
    build(tmp_path / "toys", settings, ToyRoles(settings))
    found = quality(tmp_path / "toys", ToyRoles(settings).truths)
    for name, each in found.items():
        assert each.caught > 0 and each.precision == 1.0, name
        # A box on a toy that is absent lies elsewhere: seen too, a stage later.
        assert each.recall == 1.0 or (name == "boxes" and each.recall > 0.8), name
    assert found["verification"].missed == 0


def test_a_judge_that_errs_costs_precision_and_recall(tmp_path):
    noise = {"another": 0.2, "misjudged": 0.2}
    settings = config(60, models={"world": "toyworld", "noise": noise})
    build(tmp_path / "toys", settings, ToyRoles(settings))
    each = quality(tmp_path / "toys", ToyRoles(settings).truths)["verification"]
    assert 0 < each.precision < 1 and 0 < each.recall < 1


def test_nothing_is_lost_or_doubled_when_it_is_killed(built, tmp_path):
    whole, settings, _ = built
    out, done = tmp_path / "toys", 0

    def killed(stage, records, roles, work, after):
        for number, each in enumerate(building.here(stage, records, roles, work)):
            if stage.name == after[0] and number == after[1]:
                raise KeyboardInterrupt
            yield each

    for after in (("categories", 7), ("boxes", 11), ("masks", 3), ("decimation", 5)):
        with pytest.raises(KeyboardInterrupt):
            build(out, settings, ToyRoles(settings), executor=partial(killed, after=after))
        newest = max((out / "stages").iterdir(), key=lambda path: path.name)
        with open(newest, "a") as file:
            file.write('{"id": "0000')  # what it was writing
        done += 1
    build(out, settings, ToyRoles(settings))
    assert done == 4
    for name in ("samples.jsonl", "data_card.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    for one in sorted(path.relative_to(whole) for path in whole.rglob("*.png")):
        assert (out / one).read_bytes() == (whole / one).read_bytes(), one


def test_seeds_are_by_record_whatever_the_batch(built, tmp_path):
    whole, settings, _ = built
    other = settings.model_copy(update={"batch": 3})
    build(tmp_path / "toys", other, ToyRoles(other))
    assert (tmp_path / "toys" / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()


def test_ray_makes_the_same_set(built, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: its executor is NOT tested here")
    from squeeze_core.data.music.ray_executor import RayExecutor

    whole, settings, _ = built
    executor = RayExecutor(partial(roles_of, settings), 2)
    build(tmp_path / "toys", settings, ToyRoles(settings), executor=executor)
    executor._ray.shutdown()
    assert (tmp_path / "toys" / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()


def test_without_ray_it_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    result = CliRunner().invoke(
        app(), ["data", "build", str(tmp_path / "x"), "--config", str(CONFIG), "--executor", "ray"]
    )
    assert isinstance(result.exception, SqueezeError) and "pip install" in str(result.exception)
    assert not (tmp_path / "x").exists()


def test_a_record_that_always_fails_is_set_aside_and_can_be_tried_again(tmp_path):
    settings = config(8)

    class Failing(ToyRoles):
        def model(self, role):
            return Broken(self.truths) if role == "judge" else super().model(role)

    class Broken:
        def __init__(self, truths):
            self.truths = truths

        def verify(self, record, picture, subject):
            if record.number == 3:
                raise ValueError("nonsense")
            return self.truths.verify(record, picture, subject)

        def tell(self, record, picture):
            return self.truths.tell(record, picture)

    about = build(tmp_path / "toys", settings, Failing(settings))
    assert about["stages"]["verification"]["failed"] == 1 and about["scenes"] == 7
    ledger = Ledger(tmp_path / "toys" / "stages" / "05_verification.jsonl")
    assert ledger.failed() == {"000003": "ValueError: nonsense"}
    build(tmp_path / "toys", settings, ToyRoles(settings))
    assert len({row["id"][:6] for row in rows(tmp_path / "toys")}) == 7
    about = build(tmp_path / "toys", settings, ToyRoles(settings), retry=True)
    assert about["scenes"] == 8


class Judging:
    """The toy judge, but for what it says of a box."""

    def __init__(self, settings, error):
        self.roles, self.error = ToyRoles(settings), error

    def names(self):
        return self.roles.names()

    def described(self):
        return {}

    def model(self, role):
        return self if role == "judge" else self.roles.model(role)

    def verify(self, record, picture, subject):
        raise self.error


def test_what_fails_for_every_record_ends_the_build(tmp_path):
    settings = config(30)
    with pytest.raises(SqueezeError, match=r"20 records in a row failed at stage verification.*no such thing"):
        build(tmp_path / "a", settings, Judging(settings, ValueError("no such thing")))
    assert build(tmp_path / "a", settings, ToyRoles(settings), retry=True)["scenes"] == 30
    full = RuntimeError("CUDA out of memory. Tried to allocate")
    with pytest.raises(SqueezeError, match="Memory does not suffice for a single record at stage verification"):
        build(tmp_path / "b", settings, Judging(settings, full))
    assert len(Ledger(tmp_path / "b" / "stages" / "05_verification.jsonl")) == 0


def test_a_full_disk_is_said_and_what_was_written_stays(tmp_path, monkeypatch):
    settings, keep, kept = config(8, batch=2), Work.keep, []

    def full(work, name, picture):
        if name.startswith("targets") and len(kept) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        kept.append(name)
        return keep(work, name, picture)

    monkeypatch.setattr(Work, "keep", full)
    with pytest.raises(SqueezeError, match=r"full .* at stage targets, 4 of 8 .* MiB more"):
        build(tmp_path / "toys", settings, ToyRoles(settings))
    assert len(Ledger(tmp_path / "toys" / "stages" / "03_targets.jsonl")) == 4
    monkeypatch.setattr(Work, "keep", keep)
    assert build(tmp_path / "toys", settings, ToyRoles(settings))["scenes"] == 8


def test_another_build_or_anything_else_in_the_folder_is_left_alone(tmp_path):
    settings, out = config(3), tmp_path / "toys"
    build(out, settings, ToyRoles(settings))
    other = config(3, seed=5)
    with pytest.raises(SqueezeError, match=r"another build: its seed is 0, and now 5"):
        build(out, other, ToyRoles(other))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(SqueezeError, match="no build"):
        build(tmp_path / "mine", settings, ToyRoles(settings))


def test_a_list_of_one_name_is_said(tmp_path):
    settings = config(3)

    class One(ToyRoles):
        def names(self):
            return ["cat", "cat"]

    with pytest.raises(SqueezeError, match="has 1 names"):
        build(tmp_path / "toys", settings, One(settings))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"subjects": [1, 4]}, "a scene has 2 to 12"),
        ({"candidates": 3}, "candidates is 3"),
        ({"models": {"world": "toyworld", "noise": {"fog": 1.0}}}, 'no noise "fog"'),
        ({"resolution": 256}, "128 pixels"),
        ({"stages": ["boxes"]}, 'unknown key "stages"'),
        ({"models": {"writer": "x"}}, 'lacks "models.painter"'),
        ({"models": {"world": "moon"}}, "models.world"),
    ],
)
def test_what_is_wrong_in_a_config_is_named(changes, said):
    with pytest.raises(SqueezeError, match=said):
        ToyRoles(config(**changes))


def test_the_shipped_configs_read():
    assert load_config(CONFIG).samples == 200
    real = load_config(CONFIG.with_name("music_data.yaml"))
    assert (real.samples, real.subjects, real.min_area, real.decimate) == (10_000, (2, 12), 0.01, True)


def test_objects365_has_its_names():
    names = categories("objects365")
    assert "cabinet" in names and "person" in names and 355 < len(names) <= 365


def test_training_reads_it(built, tmp_path):
    out, _, about = built
    examples = Music(out)
    assert len(examples) == about["samples"]
    first = examples[0]
    assert first.target.size == (128, 128) and len(first.references) == len(first.plan["subjects"])
    source = {"kind": "music", "folder": str(out), "fewest": 2, "most": 2}
    values = {
        "models": {"flux": "f", "mllm": "m"},
        "data": [source],
        "vae_references": True,
        "steps": 1,
        "batch_size": 1,
    }
    walk = open_data(parse_config(values))
    assert {len(walk.example(index).references) for index in range(10)} == {2}
    with pytest.raises(SqueezeError, match="Build it to its end"):
        Music(out, fewest=5)
    with pytest.raises(SqueezeError, match=r"samples\.jsonl"):
        Music(tmp_path)


def test_the_command_builds_and_says_what_went(tmp_path):
    out = tmp_path / "toys"
    result = CliRunner().invoke(app(), ["data", "build", str(out), "samples=6", "--config", str(CONFIG)])
    assert result.exit_code == 0, result.output
    assert (out / "data_card.md").read_text().count("|") > 50 and list((out / "sheets").iterdir())
    assert str(out) in result.output


def test_a_stage_answers_for_every_record():
    assert len({stage.name for stage in STAGES}) == 10


def test_a_ledger_keeps_whole_lines_only(tmp_path):
    ledger = Ledger(tmp_path / "x.jsonl")
    ledger.add("b", Kept((Record(id="b", number=1),)))
    ledger.add("a", Dropped("why", ("no box: cat",)))
    ledger.add("c", "broke")
    with open(ledger.path, "a") as file:
        file.write('{"id": "d", "kept"')
    again = Ledger(ledger.path)
    assert len(again) == 3 and again.counts() == ledger.counts()
    assert again.counts()["lost"] == {"no box": 1} and again.kept() == [Record(id="b", number=1)]
    again.add("d", "broke too")
    assert Ledger(ledger.path).failed() == {"c": "broke", "d": "broke too"}
    ledger.path.write_text("{}\n")
    with pytest.raises(SqueezeError, match="damaged"):
        Ledger(ledger.path)


def test_masks_are_kept_as_they_are(tmp_path):
    work = Work(config(), tmp_path, ())
    mask = torch.rand(40, 48) > 0.5
    assert torch.equal(work.mask(work.keep_mask("masks/a.png", mask)), mask)
