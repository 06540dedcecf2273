"""The user study: a blind page that works by keyboard in a real browser, and answers counted with care."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from squeeze_core.errors import SqueezeError
from squeeze_core.evaluation.user_study.analysis import PUBLISHED, analyse, markdown
from squeeze_core.evaluation.user_study.answers import Vote, Votes, parse_sheet, read_answers
from squeeze_core.evaluation.user_study.building import Case, Key, build, choose, key_path

METHODS = ("UNO", "DreamO", "Ours")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
try:
    from selenium import webdriver
    from selenium.webdriver.common.keys import Keys
except ImportError:
    DRIVER = None
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="THE PAGE WAS NOT TESTED: no chromium, chromedriver or selenium"
)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods")
    made = []
    for number in range(3):
        files = {}
        for shade, method in enumerate(METHODS):
            files[method] = folder / f"{method}_{number}.png"
            notes = PngInfo()
            notes.add_text("squeeze", f"made by {method}")
            Image.new("RGB", (64, 48), (80 * shade, 60 * number, 200)).save(files[method], pnginfo=notes)
        reference = folder / f"reference_{number}.png"
        Image.new("RGB", (64, 64), (0, 200, 60 * number)).save(reference)
        made.append(Case(f"dog/{number}", f"a dog </script> & {number}", (reference,), files))
    return made


@pytest.fixture
def study(cases, tmp_path):
    return build(cases, tmp_path / "study"), tmp_path / "study"


def sheet(key: Key, participant: str, score) -> dict:
    """Answers as the page writes them. score: called with case and method."""
    answers = [
        {"question": q, "order": list(c.pictures), "scores": {p: score(c.name, m) for p, m in c.pictures.items()}}
        for q, c in key.questions.items()
    ]
    return {
        "format": "squeeze user study answers",
        "version": 1,
        "study": key.study,
        "participant": participant,
        "answers": answers,
    }


def test_nothing_that_participants_get_tells_which_picture_is_whose(study):
    key, folder = study
    for path in folder.rglob("*"):
        if path.is_file():
            assert not any(method.encode() in path.read_bytes() for method in METHODS), path
            assert not any(method in path.name for method in METHODS)
    assert key_path(folder).parent == folder.parent and Key.read(key_path(folder)) == key
    for case in key.questions.values():
        assert sorted(case.pictures.values()) == sorted(METHODS)


def test_each_picture_of_the_page_is_the_one_that_the_key_says(study, cases):
    key, folder = study
    by_name = {case.name: case for case in cases}
    for question in key.questions.values():
        for picture, method in question.pictures.items():
            shown = np.asarray(Image.open(folder / "pictures" / f"{picture}.png"))
            assert (shown == np.asarray(Image.open(by_name[question.name].pictures[method]))).all()


def test_an_existing_study_is_never_written_over(study, cases):
    with pytest.raises(SqueezeError, match="new folder"):
        build(cases, study[1])


def test_the_key_of_a_study_whose_folder_was_moved_away_is_kept(cases, tmp_path):
    key = build(cases, tmp_path / "study")
    (tmp_path / "study").rename(tmp_path / "with participants")
    with pytest.raises(SqueezeError, match=r"study\.key\.json"):
        build(cases, tmp_path / "study")
    assert Key.read(key_path(tmp_path / "study")) == key


def test_a_broken_picture_is_named_and_leaves_no_half_study(cases, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    spoiled = [Case("x", "x", (broken,), cases[0].pictures)]
    with pytest.raises(SqueezeError, match=r"broken\.png"):
        build(spoiled, tmp_path / "study")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.png"]


def test_only_cases_that_every_method_has_are_chosen_the_same_ones_each_time(cases):
    lacking = Case("cat/0", "a cat", (), {"UNO": Path("a.png")})
    chosen = choose([*cases, lacking], count=2, seed=3)
    assert len(chosen) == 2 and lacking not in chosen
    assert choose([lacking, *reversed(cases)], count=2, seed=3) == chosen
    assert len(choose(cases, count=10)) == 3
    with pytest.raises(SqueezeError, match="two or more"):
        choose([lacking])
    with pytest.raises(SqueezeError, match="same scheme"):
        choose([lacking, Case("b", "b", (), {"DreamO": Path("b.png")})])


def test_answers_become_votes_for_the_right_methods_and_odd_files_are_named(study, tmp_path):
    key, _ = study
    points = {"UNO": 4, "DreamO": 6, "Ours": 9}
    good = sheet(key, "p1", lambda _, method: points[method])
    partial = sheet(key, "p2", lambda _, method: points[method])
    partial["answers"].pop()
    partial["answers"][0]["scores"].popitem()
    files = {
        "a.json": json.dumps(good),
        "b.json": json.dumps(partial),
        "c.json": "{",
        "d.json": json.dumps({**good, "study": "other"}),
        "e.json": json.dumps(good | {"answers": [{"question": "x", "scores": {"y": 11}}]}),
        "f.json": json.dumps(sheet(key, "p1", lambda _, method: points[method] - 1)),
        "g.json": json.dumps(sheet(key, "p3", lambda _, method: True)),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    votes = read_answers([tmp_path / name for name in files], key)
    of = {(v.participant, v.method) for v in votes.votes}
    assert {participant for participant, _ in of} == {"p1", "p2"}
    assert len([v for v in votes.votes if v.participant == "p2"]) == 5
    assert all(v.score == points[v.method] - (v.participant == "p1") for v in votes.votes)
    for name in ("b", "c", "d", "e", "f", "g"):
        assert any(problem.startswith(f"{name}.json: ") for problem in votes.problems), name
    assert not any(problem.startswith("a.json") for problem in votes.problems)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["format", "version", "study", "participant", "answers", "x"]), inner)
        ),
    )
)
def test_whatever_a_file_holds_it_is_read_or_refused_with_a_phrase(value):
    with pytest.raises(ValueError, match=r"\.$"):
        parse_sheet(json.dumps(value))


@given(st.binary(max_size=60))
def test_bytes_that_are_no_sheet_are_refused_with_a_phrase(data):
    with pytest.raises(ValueError, match=r"\.$"):
        parse_sheet(data)


def votes_of(table: dict[str, dict[str, list[int]]]) -> Votes:
    """participant -> method -> score of each question."""
    return Votes(
        tuple(
            Vote(p, str(q), m, score)
            for p, methods in table.items()
            for m, scores in methods.items()
            for q, score in enumerate(scores)
        ),
        (),
    )


def test_the_analysis_equals_counting_by_hand():
    votes = votes_of({"p": {"A": [5, 7], "B": [6, 10]}, "q": {"A": [3, 3], "B": [3, 8]}})
    found = analyse(votes)
    assert [row.method for row in found.methods] == ["B", "A"]
    assert found.methods[0].score.mean == 27 / 4 and found.methods[1].score.mean == 18 / 4
    assert (found.participants, found.questions, found.votes) == (2, 2, 8)
    difference = found.comparisons["A", "B"]
    assert difference.difference == 9 / 4 and (difference.wins, difference.losses, difference.ties) == (3, 0, 1)
    assert found.methods[0].mean_rank == (1 + 1 + 1.5 + 1) / 4
    assert (difference.low, difference.high) == (2.0, 2.5)  # the means of the two participants


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    held = 0
    for run in range(200):
        people = {}
        for person in range(30):
            habit = random.normal(0, 1.5)  # some score everything high: votes of one person are not independent
            people[str(person)] = {"A": list(np.clip(random.normal(5.5 + habit, 1, 10), -20, 30))}
        found = analyse(votes_of(people), resamples=500, seed=run).methods[0].score
        held += found.low <= 5.5 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_the_report_names_scores_and_sets_the_published_apart():
    text = markdown(analyse(votes_of({"p": {"A": [5, 7], "B": [6, 10]}, "q": {"A": [3, 3], "B": [3, 8]}})))
    assert "| B | 6.75 |" in text and "| B - A | +2.25 | +2.00 to +2.50 |" in text
    assert "Published" in text and all(str(score) in text for score in PUBLISHED.values())
    assert "0 votes" in markdown(analyse(Votes((), ())))


class Page:
    def __init__(self, folder: Path, downloads: Path):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-background-networking", "--window-size=1600,1000")  # fmt: skip
        for argument in quiet:
            options.add_argument(argument)
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.driver.get((folder / "index.html").as_uri())

    def js(self, expression: str):
        return self.driver.execute_script(f"return {expression}")

    def press(self, *keys):
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def order(self) -> list[str]:
        return self.js("[...document.querySelectorAll('fieldset')].map(f => f.dataset.picture)")

    def heading(self) -> str:
        return self.js("document.querySelector('h1').textContent")


@pytest.fixture
def page(study, tmp_path):
    (tmp_path / "downloads").mkdir()
    opened = Page(study[1], tmp_path / "downloads")
    yield opened
    opened.driver.quit()


@needs_browser
def test_a_participant_scores_everything_by_keyboard_and_the_analysis_gets_it_right(page, study, tmp_path):
    key, _ = study
    points = {"UNO": 4, "DreamO": 10, "Ours": 7}
    seen_orders = []
    page.press(Keys.ENTER)  # Start has the focus
    for number in range(3):
        assert page.heading() == f"Question {number + 1} of 3"
        order = page.order()
        loaded = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
        assert page.js(loaded) and page.js("document.images.length") == 4
        question = next(q for q in key.questions.values() if set(q.pictures) == set(order))
        assert question.prompt in page.js("document.querySelector('.prompt').textContent")
        seen_orders.append([question.pictures[picture] for picture in order])
        for picture in order:
            page.press(str(points[question.pictures[picture]] % 10))
        page.press(Keys.ENTER)
    assert page.heading() == "Thank you!"
    page.press(Keys.ENTER)  # Save has the focus
    deadline = time.monotonic() + 20
    while not (files := list((tmp_path / "downloads").glob("answers-*.json"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    votes = read_answers(files, key)
    assert not votes.problems and len(votes.votes) == 9
    assert all(vote.score == points[vote.method] for vote in votes.votes)
    assert [row.method for row in analyse(votes).methods] == ["DreamO", "Ours", "UNO"]
    assert json.loads(page.js("document.querySelector('#answers').value")) == json.loads(files[0].read_text())
    answered = json.loads(files[0].read_text())["answers"]
    assert all(answer["seconds"] > 0 for answer in answered)
    assert [[key.questions[a["question"]].pictures[p] for p in a["order"]] for a in answered] == seen_orders
    assert not [entry for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"]


@needs_browser
def test_a_question_cannot_be_left_unfinished_and_says_what_is_missing(page):
    page.press(Keys.ENTER, "5", Keys.ARROW_RIGHT, "8", Keys.ENTER)
    assert page.heading() == "Question 1 of 3"
    assert page.js("document.querySelector('#message').textContent") == "Please score picture B."
    assert page.js("[...document.querySelectorAll('fieldset')].findIndex(f => f.matches('.current'))") == 1
    page.press("1", Keys.ENTER)
    assert page.heading() == "Question 2 of 3"


@needs_browser
def test_answers_survive_a_reload_and_can_be_changed_later_with_the_mouse(page):
    page.press(Keys.ENTER, "5", "6", "7", Keys.ENTER, "3")
    order = page.order()
    time.sleep(1)  # the browser's storage is another process: a person's reload never comes within milliseconds
    page.driver.refresh()
    assert page.heading() == "Question 2 of 3" and page.order() == order
    scored = "[...document.querySelectorAll('input:checked')].map(i => i.name + '=' + i.value)"
    assert page.js(scored) == ["score-0=3"]
    page.driver.find_element("id", "back").click()
    assert page.js(scored) == ["score-0=5", "score-1=6", "score-2=7"]
    page.driver.find_element("css selector", "input[name='score-1'][value='10']").click()
    assert page.js(scored) == ["score-0=5", "score-1=10", "score-2=7"]


@needs_browser
def test_the_order_of_methods_differs_between_participants(page, study):
    key, _ = study
    orders = set()
    for _ in range(12):
        page.js("localStorage.clear()")
        page.driver.refresh()
        page.press(Keys.ENTER)
        question = page.order()
        methods = next(q for q in key.questions.values() if set(q.pictures) == set(question)).pictures
        orders.add(tuple(methods[picture] for picture in question))
    assert len(orders) >= 3


@needs_browser
def test_every_control_has_a_name_that_a_screen_reader_can_say(page):
    page.press(Keys.ENTER)
    unnamed = page.js(
        "[...document.querySelectorAll('input, button, img, progress')].filter(e => !(e.alt || e.ariaLabel "
        "|| e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.[0]?.textContent.trim()))"
        ".map(e => e.outerHTML)"
    )
    assert unnamed == []
