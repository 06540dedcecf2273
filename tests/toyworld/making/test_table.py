"""The toy world's table: every row is measured once, on identities that no training shows."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from squeeze_core.errors import SqueezeError
from squeeze_core.files import write_text
from squeeze_core.shard import Shard
from squeeze_core.toyworld import scenes
from squeeze_core.toyworld.making import table


class Ideal:
    """Stands in for a pipeline: paints what the prompt asks for, or copies the reference."""

    def __init__(self, copies: bool) -> None:
        self.copies = copies
        self.asked = []

    def generate(self, prompt, references, settings):
        self.asked.append((prompt, settings))
        examples = table.ToyExamples(
            seed=table.SEED_OF_TEST_PAIRS, split="test", kinds={"one": 1.0}, plain_styles=True, carrying=0
        )
        pair = examples.pair(len(self.asked) - 1)
        picture = references[0] if self.copies else Image.fromarray(scenes.render(pair.target))
        return type("Result", (), {"images": [picture]})


def test_who_paints_what_is_asked_scores_full_and_who_copies_does_not_follow():
    row = table.rows()[0]
    painter, copier = Ideal(copies=False), Ideal(copies=True)
    painted, copied = (table.measured(each, row, 12, seed=0) for each in (painter, copier))
    assert painted["identity"] > 0.97 and painted["prompt"] > 0.97 and painted["pose_variation"] > 0.3
    assert copied["identity"] > 0.97 and copied["prompt"] < 0.7 and copied["pose_variation"] == 0.0
    seeds = [settings.seed for _, settings in painter.asked]
    assert len(set(seeds)) == 12 and all(settings.gate == row.gate for _, settings in painter.asked)


def test_test_pairs_show_only_identities_that_no_training_shows():
    for kind in ("one", "several"):
        examples = table.ToyExamples(
            seed=table.SEED_OF_TEST_PAIRS, split="test", kinds={kind: 1.0}, plain_styles=True, carrying=0
        )
        for number in range(30):
            assert all(scenes.held_out(subject.identity) for subject in examples.pair(number).target.subjects)


EVEN = ((512, 2.5), (1024, 2.5))


def test_every_row_has_a_name_of_its_own_and_table_c_is_whole():
    rows = table.rows()
    assert len({row.key for row in rows}) == len(rows)
    assert len({repr(replace(row, name="", table="")) for row in rows}) == len(rows), "nothing is measured twice"
    measured = {(row.gate.tau_1, row.gate.tau_2, row.settings.true_cfg) for row in rows if row.table == "C"}
    papers = {(*taus, 2.5) for taus in ((0.0, 0.0), (1.0, 1.0), (0.97, 0.90), (0.85, 0.70))}
    papers |= {(0.95, 0.85, cfg) for cfg in (1.5, 2.0, 2.5, 3.0, 4.0)}
    ours = {(1.1, 1.1, 2.5), (0.95, 0.70, 2.5), (0.85, 0.85, 2.5)}  # VAE only throughout; either tau alone
    ours |= {(*(table.as_at(side).tau_1, table.as_at(side).tau_2), cfg) for side, cfg in EVEN}
    assert measured == papers | ours and len(papers) == 9


def test_the_papers_taus_are_lower_where_pictures_have_few_tokens():
    """By hand: 1,024 tokens of 512 pixels are 16 times the toy's 64, so odds of noise are a quarter."""
    even = table.GATED
    for ours, papers in ((even.tau_1, 0.95), (even.tau_2, 0.85)):
        assert ours / (1 - ours) == pytest.approx(papers / (1 - papers) / 4)
    assert table.as_at(scenes.SIDE) == table.PAPERS


def test_measuring_fills_only_what_is_missing(toy_paths, tmp_path):
    """On the untrained toy world, which paints noise: the machinery is what is tested."""
    from safetensors.torch import load_file, save_file

    weights = tmp_path / "weights"
    weights.mkdir()
    save_file(load_file(toy_paths.flux / "diffusion_pytorch_model.safetensors"), weights / "flux.safetensors")
    save_file(load_file(toy_paths.vae_file), weights / "vae.safetensors")
    save_file(load_file(toy_paths.mllm / "model.safetensors"), weights / "mllm.safetensors")
    (weights / "adapter.safetensors").write_bytes(toy_paths.adapter.read_bytes())
    quick = [replace(row, settings=replace(row.settings, steps=2)) for row in table.rows()[:2]]
    absent = replace(quick[0], name="not trained", adapter="table6_single")
    seen = []
    for rows in (quick[:1], [*quick, absent]):
        table.fill(tmp_path, rows, pairs=1, seeds=[0], progress=lambda *done: seen.append(done))
    assert [name for name, *_ in seen] == [row.name for row in quick]
    result = json.loads(next((tmp_path / "measured").glob("*.json")).read_text())
    assert set(result) == set(table.MEASURES) and 0 <= result["identity"] <= 1
    made = table.markdown(tmp_path, [*quick, absent], pairs=1, seeds=[0])
    assert made.count("\n") == 4 and "not trained" not in made
    # Two processes share the rows; another precision is measured anew.
    seen.clear()
    for part in (1, 2):
        shared = {"dtype": "bf16", "shard": Shard(part, 2), "progress": lambda *done: seen.append(done)}
        table.fill(tmp_path, quick, pairs=1, seeds=[0], **shared)
        assert [name for name, *_ in seen] == [row.name for row in quick[:part]]
    assert table.markdown(tmp_path, quick, pairs=1, seeds=[0], dtype="bf16").count("\n") == 4
    assert len(list((tmp_path / "measured").iterdir())) == 4
    with pytest.raises(SqueezeError, match=r"None of the adapters of these rows \(table6_single\)"):
        table.fill(tmp_path, [absent], pairs=1, seeds=[0])


def test_without_trained_weights_the_command_to_make_them_is_said(tmp_path):
    with pytest.raises(SqueezeError, match="squeeze toyworld train"):
        table.fill(tmp_path, table.rows(), pairs=1, seeds=[0])


def test_spreads_are_those_between_seeds(tmp_path):
    row = table.rows()[0]
    for seed, identity in enumerate((0.5, 0.7)):
        path = table._result(tmp_path, row, seed, 10, "default")
        write_text(path, json.dumps({**dict.fromkeys(table.MEASURES, 1.0), "identity": identity, "exact": None}))
    line = table.markdown(tmp_path, [row], pairs=10, seeds=[0, 1]).splitlines()[2]
    assert f"0.600 ± {np.std([0.5, 0.7], ddof=1):.3f}" in line and line.endswith("| 2 |")


def test_the_table_replaces_what_stood_between_the_marks(tmp_path):
    document = tmp_path / "toyworld.md"
    document.write_text("before\n<!-- table -->\nold\n<!-- end of table -->\nafter\n")
    table.write_into(document, "new\n")
    assert document.read_text() == "before\n<!-- table -->\nnew\n<!-- end of table -->\nafter\n"
    document.write_text("no marks")
    with pytest.raises(SqueezeError, match="lacks the lines"):
        table.write_into(document, "new\n")
