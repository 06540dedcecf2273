import json

import pytest

from squeeze_core.data.sources.musar import MUSAR
from squeeze_core.errors import SqueezeError

from .. import pictures


def rows(folder, count=2):
    for number in range(count):
        for name, colour in (("a", (9, 0, number)), ("b", (0, 9, number)), ("t", (0, 0, 90 + number))):
            pictures.picture(folder / f"pictures/{number}_{name}.png", colour)
    return [
        {
            "cond_img_0": f"pictures/{number}_a.png",
            "cond_img_1": f"pictures/{number}_b.png",
            "tgt_img": f"pictures/{number}_t.png",
            "cond_prompt_0": "a cup",
            "cond_prompt_1": "a dog",
            "prompt": f"a cup and a dog {number}",
        }
        for number in range(count)
    ]


@pytest.mark.parametrize("name", ["train.json", "train.jsonl"])
def test_two_references_in_order_then_the_target(tmp_path, name):
    made = rows(tmp_path)
    text = "\n".join(map(json.dumps, made)) if name.endswith("l") else json.dumps(made)
    (tmp_path / name).write_text(text)
    data = MUSAR(tmp_path)
    example = data[1]
    assert len(data) == 2 and example.prompt == "a cup and a dog 1"
    assert [reference.getpixel((0, 0)) for reference in example.references] == [(9, 0, 1), (0, 9, 1)]
    assert example.target.getpixel((0, 0)) == (0, 0, 91)


def test_incomplete_rows_are_counted_and_left_out(tmp_path):
    made = rows(tmp_path, 3)
    del made[0]["cond_img_1"]
    made[1]["prompt"] = " "
    (tmp_path / "train.json").write_text(json.dumps(made))
    data = MUSAR(tmp_path)
    assert len(data) == 1 and data.incomplete == 2


def test_the_label_file_must_be_clear(tmp_path):
    with pytest.raises(SqueezeError, match="there is none"):
        MUSAR(tmp_path)
    for name in ("a.json", "b.jsonl"):
        (tmp_path / name).write_text(json.dumps(rows(tmp_path, 1)))
    with pytest.raises(SqueezeError, match=r"a\.json, b\.jsonl"):
        MUSAR(tmp_path)
    assert len(MUSAR(tmp_path, labels="a.json")) == 1
