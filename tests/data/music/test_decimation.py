from squeeze_core.data.music import decimation
from squeeze_core.data.music.config import MusicConfig
from squeeze_core.data.music.record import Record, Subject
from squeeze_core.data.music.work import Work
from squeeze_core.planning.plan import ScenePlan


def record():
    boxes = ((0.0, 0.0, 0.4, 0.9), (0.45, 0.5, 0.2, 0.2), (0.7, 0.1, 0.3, 0.8))
    names = ("cat", "cup", "dog")
    subjects = tuple(Subject(name=name, box=box, reference="x") for name, box in zip(names, boxes))
    plan = ScenePlan(
        thought="subject 1 sits. subject 2 is before subject 3. subject 3 looks at picture 1.",
        scene="in a park",
        subjects=[
            {"number": number, "name": name, "picture": number, "caption": f"a {name}"}
            for number, name in enumerate(names, start=1)
        ],
        relations=[
            {"subject": 1, "relation": "left of", "object": 3},
            {"subject": 2, "relation": "left of", "object": 3},
        ],
        grid="1 1 1 . . 3 3 3\n" * 4 + "1 1 1 2 2 3 3 3\n" * 3 + ". . . . . . . .",
    )
    return Record(
        id="7",
        number=7,
        names=names,
        subjects=subjects,
        grid=plan.grid,
        target="t.png",
        prompt="The cat of picture 1 sits. The cup of picture 2 is left of the dog of picture 3. In a park.",
        plan=plan.model_dump(mode="json"),
    )


def test_the_smallest_goes_and_the_others_get_new_numbers(tmp_path):
    config = MusicConfig(models={"world": "toyworld"}, samples=1)
    (kept,) = decimation.run([record()], None, Work(config, tmp_path, ()))
    first, second = kept.records
    assert first == record() and second.id == "7-2" and second.names == ("cat", "dog")
    assert second.target == "t.png" and second.number == 7
    # The sentence that named the cup went, and with it the dog, who is named anew.
    assert second.prompt == "The cat of picture 1 sits. In a park. The dog of picture 2 is there."
    plan = ScenePlan.parse(second.plan)
    assert plan.thought == "subject 1 sits. subject 2 looks at picture 1."
    assert [(s.number, s.name, s.picture) for s in plan.subjects] == [(1, "cat", 1), (2, "dog", 2)]
    assert [str(relation) for relation in plan.relations] == ["1 left of 2"]
    assert {label for row in plan.grid for label in row} == {0, 1, 2}


def test_it_can_be_left_out(tmp_path):
    config = MusicConfig(models={"world": "toyworld"}, samples=1, decimate=False)
    (kept,) = decimation.run([record()], None, Work(config, tmp_path, ()))
    assert kept.records == (record(),)


def test_numbers_of_two_digits_are_no_others():
    text = "subject 1 is left. subject 12 is right."
    assert decimation.renumbered(text, {12: 2}) == "subject 2 is right."
