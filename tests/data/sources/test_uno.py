import json
import shutil

import pytest

from squeeze_core.data.examples import BrokenExample
from squeeze_core.data.sources.uno import UNO
from squeeze_core.errors import SqueezeError

from .. import pictures


def test_reference_is_picture_1_target_picture_2_and_its_caption_the_prompt(tmp_path):
    data = UNO(pictures.uno(tmp_path, [pictures.uno_row(number) for number in range(3)]))
    example = data[2]
    assert example.prompt == "second 2" and example.name == "split1/2_2.png"
    assert example.target.getpixel((0, 0)) == (0, 200, 2)
    assert [reference.getpixel((0, 0)) for reference in example.references] == [(200, 2, 0)]


def test_only_full_scores_are_kept_and_the_misread_one_is_not(tmp_path):
    scores = [4.0, 3.9, 4, 131184.66666666666, 0.0, None, "4", float("nan"), True]
    data = UNO(pictures.uno(tmp_path, [pictures.uno_row(number, score) for number, score in enumerate(scores)]))
    assert [data[i].prompt for i in range(len(data))] == ["second 0", "second 2"]
    assert data.dropped_score == 7
    assert len(UNO(tmp_path, min_score=3.5)) == 3


def test_rows_with_something_missing_are_counted_and_left_out(tmp_path):
    rows = [pictures.uno_row(number) for number in range(5)]
    rows[0]["caption"]["img_path2"] = "  "
    rows[1]["caption"] = None
    rows[2]["vlm_filter_cot"] = None
    folder = pictures.uno(tmp_path, rows)
    del rows[3]["img_path2"]
    (folder / "uno_1m_total_labels.json").write_text(json.dumps(rows))
    data = UNO(folder)
    assert len(data) == 1 and (data.incomplete, data.dropped_score) == (3, 1)


@pytest.mark.parametrize("by_split", [True, False])
def test_only_the_splits_that_were_extracted_are_taken(tmp_path, by_split):
    rows = [pictures.uno_row(number, split=split) for number, split in enumerate(["split2", "split3", "split2"])]
    folder = pictures.uno(tmp_path, rows, by_split=by_split)
    shutil.rmtree(folder / "images" / "split3")
    data = UNO(folder)
    assert [data[i].prompt for i in range(len(data))] == ["second 0", "second 2"] and data.not_there == 1


def test_splits_come_in_the_order_of_their_numbers(tmp_path):
    rows = [pictures.uno_row(number, split=split) for number, split in enumerate(["split10", "split2", "split1"])]
    folder = pictures.uno(tmp_path, rows, by_split=True)
    data = UNO(folder)
    assert [data[i].prompt for i in range(len(data))] == ["second 2", "second 1", "second 0"]


def test_another_choice_of_rows_is_another_data_set(tmp_path):
    scores = [4.0, 3.6, 4.0]
    folder = pictures.uno(tmp_path, [pictures.uno_row(number, score) for number, score in enumerate(scores)])
    assert UNO(folder).identity() == UNO(folder).identity() != UNO(folder, min_score=3.5).identity()


def test_a_truncated_picture_is_named(tmp_path):
    folder = pictures.uno(tmp_path, [pictures.uno_row(0)])
    path = folder / "images" / "split1" / "0_1.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(BrokenExample, match=r"0_1\.png"):
        UNO(folder)[0]


@pytest.mark.parametrize(
    ("labels", "said"), [("{", "as JSON"), ('{"a": 1}', "no list of rows"), ("[1]", "no list of rows")]
)
def test_labels_that_do_not_read_are_named(tmp_path, labels, said):
    (tmp_path / "uno_1m_total_labels.json").write_text(labels)
    with pytest.raises(SqueezeError, match=said):
        UNO(tmp_path)


def test_a_folder_that_is_not_the_data_set_is_refused(tmp_path):
    with pytest.raises(SqueezeError, match="There is no folder"):
        UNO(tmp_path / "none")
    with pytest.raises(SqueezeError, match="holds neither"):
        UNO(tmp_path)
