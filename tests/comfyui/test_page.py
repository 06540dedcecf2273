"""The real front end in a real browser: the example graphs open, look right, say what their files say, and run."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from comfy_workflow import workflow_to_prompt

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = sorted((CHECKOUT / "workflows").glob("*.json"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=2000,1200",
)
BROWSERS_OWN = 140  # pixels of height that are not the page's
READY = "return !!(window.app?.graph && app.extensionManager?.setting && app.extensionManager?.command)"

missing = [name for name, found in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if not found]
try:
    from selenium import webdriver
except ImportError:
    missing.append("the package selenium")
pytestmark = pytest.mark.skipif(bool(missing), reason=f"THE PAGE WAS NOT TESTED: no {', no '.join(missing)}")

every_workflow = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


class Page:
    """ComfyUI's page in a headless browser."""

    def __init__(self, url: str):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for argument in QUIET:
            options.add_argument(argument)
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.driver.set_script_timeout(120)
        self.driver.get(url)
        self.wait_for(READY, 120)
        self.set("Comfy.TutorialCompleted", True)  # else the template browser covers a new user's page

    def wait_for(self, expression: str, seconds: float = 30):
        """The first value of a `return ...` that is neither false nor null."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := self.driver.execute_script(expression):
                return value
            time.sleep(0.2)
        raise AssertionError(f"not within {seconds} s: {expression}")

    def js(self, body: str, *arguments):
        """Run the body of an async function; `args` are the arguments."""
        answer = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1], args = [...arguments].slice(0, -1);"
            f"(async () => {{ {body} }})()"
            ".then(value => done({value})).catch(error => done({error: String(error.stack)}))",
            *arguments,
        )
        assert "error" not in answer, answer["error"]
        return answer.get("value")

    def set(self, setting: str, value) -> None:
        self.js("await app.extensionManager.setting.set(args[0], args[1])", setting, value)

    def open(self, workflow: dict, name: str) -> None:
        self.js("await app.loadGraphData(args[0], true, true, args[1])", workflow, name)
        count = len(workflow["nodes"])
        self.wait_for(f"return app.graph._nodes.length === {count}")
        time.sleep(1)  # the page settles sizes after the next frames

    def prompt(self) -> dict:
        """What the queue button would send, titles left out."""
        sent = self.js("return (await app.graphToPrompt()).output")
        return {name: (node["class_type"], node["inputs"]) for name, node in sent.items()}

    def boxes(self) -> dict[str, tuple[float, float, float, float]]:
        """What each node covers on the canvas, as LiteGraph draws it."""
        rows = self.js("return app.graph._nodes.map(n => [n.type + ' ' + n.id, ...n.pos, ...n.size])")
        return {name: (x, y - 30, x + width, y + height) for name, x, y, width, height in rows}

    def drawn_boxes(self) -> dict[str, tuple[float, float, float, float]]:
        """The same in Nodes 2.0: measured on the elements."""
        self.js("app.canvas.ds.scale = 0.5; app.canvas.setDirty(true, true)")
        time.sleep(1)
        rows = self.js(
            "return [...document.querySelectorAll('[data-node-id]')].map(e => {"
            "  const b = e.getBoundingClientRect(), n = app.graph.getNodeById(e.dataset.nodeId);"
            "  return [n.type + ' ' + n.id, b.left, b.top, b.right, b.bottom] })"
        )
        return {name: tuple(edges) for name, *edges in rows}


def overlapping(boxes: dict) -> list[tuple[str, str]]:
    """Pairs of nodes that cover each other by more than a pixel."""
    names = sorted(boxes)
    pairs = [(one, other) for number, one in enumerate(names) for other in names[number + 1 :]]
    return [
        (one, other)
        for one, other in pairs
        if all(boxes[one][k] + 1 < boxes[other][k + 2] and boxes[other][k] + 1 < boxes[one][k + 2] for k in (0, 1))
    ]


@pytest.fixture(scope="module")
def page(server, comfyui_path):
    shutil.copy(comfyui_path / "input" / "example.png", server.base / "input" / "example.png")
    opened = Page(server.url)
    yield opened
    opened.driver.quit()


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "nodes 2.0"])
def drawn_by(request, page) -> bool:
    """Both ways in which the page draws nodes."""
    page.set("Comfy.VueNodes.Enabled", request.param)
    yield request.param
    page.set("Comfy.VueNodes.Enabled", False)


@every_workflow
def test_a_workflow_opens_complete_and_says_what_its_file_says(path, page, drawn_by, server):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    page.open(workflow, path.stem)
    unknown = page.js("return app.graph._nodes.map(n => n.type).filter(t => !LiteGraph.registered_node_types[t])")
    assert unknown == []
    expected = workflow_to_prompt(workflow, server.object_info())
    assert page.prompt() == {name: (node["class_type"], node["inputs"]) for name, node in expected.items()}


@every_workflow
def test_no_nodes_overlap_on_the_page(path, page, drawn_by):
    page.open(json.loads(path.read_text(encoding="utf-8")), path.stem)
    boxes = page.drawn_boxes() if drawn_by else page.boxes()
    assert len(boxes) == len(json.loads(path.read_text(encoding="utf-8"))["nodes"])
    assert overlapping(boxes) == []


@every_workflow
def test_a_workflow_is_readable_on_a_small_screen(path, page, drawn_by):
    """The classic page draws no text below 57%."""
    page.driver.set_window_size(1366, 768 + BROWSERS_OWN)
    try:
        page.open(json.loads(path.read_text(encoding="utf-8")), path.stem)
        page.js("await app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        page.wait_for("return app.canvas.ds.scale >= 0.699", 10)
    finally:
        page.driver.set_window_size(2000, 1200)


def test_a_socket_grows_when_one_is_connected(page, drawn_by):
    page.js(
        "app.graph.clear();"
        "const add = type => { const n = LiteGraph.createNode(type); app.graph.add(n); return n };"
        "add('SqueezeToyWorld'); add('SqueezeEncode')"
    )
    sockets = "app.graph._nodes[1].inputs.map(i => i.name)"
    for number in (1, 2):
        page.wait_for(f"return {sockets}.includes('images.picture_{number}')")
        assert f"images.picture_{number + 1}" not in page.js(f"return {sockets}")
        page.js(
            "const [picture, encode] = app.graph._nodes;"
            f"picture.connect(4, encode, encode.inputs.findIndex(i => i.name === 'images.picture_{number}'))"
        )
    page.wait_for(f"return {sockets}.includes('images.picture_3')")
    inputs = next(inputs for kind, inputs in page.prompt().values() if kind == "SqueezeEncode")
    assert inputs["images.picture_1"] == inputs["images.picture_2"]
    assert "images.picture_3" not in inputs


def test_the_toy_world_runs_by_the_queue_button(page, drawn_by, server):
    page.open(json.loads((CHECKOUT / "workflows" / "toy_world.json").read_text(encoding="utf-8")), "toy_world")
    page.js(
        "window.ended = null;"
        "app.api.addEventListener('execution_success', () => window.ended = 'success', {once: true});"
        "app.api.addEventListener('execution_error', e => window.ended = JSON.stringify(e.detail), {once: true})"
    )
    # By script, since a notice about a missing model of an earlier graph may lie over the button.
    page.js("document.querySelector('[data-testid=\"queue-button\"]').click()")
    assert page.wait_for("return window.ended", 120) == "success"
    time.sleep(1)  # the previews grow when their pictures are there
    assert overlapping(page.drawn_boxes() if drawn_by else page.boxes()) == []


def timelines(page: Page) -> list[str]:
    """What a screen reader says of each timeline, after the page has drawn."""
    page.js("app.canvas.setDirty(true, true); await new Promise(r => setTimeout(r, 500))")
    return page.js(
        "return [...document.querySelectorAll('.squeeze-gate-timeline')].filter(e => e.checkVisibility())"
        ".map(e => e.getAttribute('aria-label'))"
    )


def put_a_gate(page: Page) -> None:
    """Alone on an empty page, at the paper's taus: the page may remember those of a node of the same number."""
    page.js("app.graph.clear(); app.canvas.ds.scale = 1")
    page.js("app.graph.add(LiteGraph.createNode('SqueezeTimestepGate'))")
    for name, value in (("tau_1", 0.95), ("tau_2", 0.85), ("late", "keep")):
        turn(page, name, value)


def turn(page: Page, number: str, value: float) -> None:
    """Set a number of the first node that shows it, as a person does."""
    page.js(
        "const w = app.graph._nodes.flatMap(n => n.widgets ?? []).find(w => w.name === args[0]);"
        "w.value = args[1]; w.callback?.(args[1])",
        number,
        value,
    )


def test_the_gate_draws_its_stages_while_the_taus_are_turned(page, drawn_by):
    put_a_gate(page)
    assert timelines(page) == ["early 5% · middle 10% · late 85% (as middle) of sigma 1 to 0"]
    turn(page, "tau_2", 0.5)
    turn(page, "late", "drop")
    assert timelines(page) == ["early 5% · middle 45% · late 50% of sigma 1 to 0"]
    turn(page, "tau_2", 0.99)
    assert timelines(page) == ["tau_1 must be at least tau_2"]
    turn(page, "tau_2", 0.5)
    page.js("app.graph.add(LiteGraph.createNode('SqueezeSigmas'))")
    turn(page, "tau_1", 0.9)  # of the steps beside it
    (said,) = timelines(page)
    assert re.fullmatch(r"early \d+ · middle \d+ · late \d+ / \d+ steps", said), said


def test_a_subgraph_that_shows_the_taus_has_the_timeline(page, drawn_by):
    page.open(json.loads((CHECKOUT / "workflows" / "toy_world.json").read_text(encoding="utf-8")), "toy_world")
    page.js("app.canvas.ds.scale = 1")
    assert timelines(page) == ["early 11 · middle 6 · late 11 / 28 steps"]
    turn(page, "tau_1", 0.7)
    assert timelines(page) == ["early 15 · middle 2 · late 11 / 28 steps"]
    turn(page, "steps", 14)
    (said,) = timelines(page)
    assert said.endswith("/ 14 steps")


def test_the_timeline_is_neither_saved_nor_queued(page, drawn_by):
    put_a_gate(page)
    assert len(timelines(page)) == 1
    saved = page.js("return app.graph.serialize().nodes[0].widgets_values")
    shown = page.js("return app.graph._nodes[0].widgets.filter(w => w.name !== 'gate_timeline').map(w => w.value)")
    assert saved == shown
    ((_, inputs),) = page.prompt().values()
    assert "gate_timeline" not in inputs


def test_the_blueprint_opens_and_runs_as_its_four_nodes(page, drawn_by, server):
    """Put between a toy world and a node that saves, as a user would."""
    (path,) = (CHECKOUT / "subgraphs").glob("*.json")
    blueprint = json.loads(path.read_text(encoding="utf-8"))
    page.open(blueprint, "blueprint")
    page.js(
        "const [use] = app.graph._nodes;"
        "const add = type => { const n = LiteGraph.createNode(type); app.graph.add(n); return n };"
        "const to = (node, slot, name) => node.connect(slot, use, use.inputs.findIndex(i => i.name === name));"
        "const toy = add('SqueezeToyWorld'), picture = add('LoadImage'), save = add('SqueezeSaveConditioning');"
        "to(toy, 1, 'vae'); to(toy, 2, 'mllm'); to(toy, 3, 'dla'); to(picture, 0, 'image');"
        "picture.widgets[0].value = 'example.png';"
        "use.connect(use.outputs.findIndex(o => o.name === 'positive'), save, 0)"
    )
    sent = page.js("return (await app.graphToPrompt()).output")
    inside = {node["class_type"] for name, node in sent.items() if ":" in name}
    assert inside == {"SqueezeEncode", "SqueezeAggregate", "SqueezeReferenceTokens", "SqueezeTimestepGate"}
    server.run_graph(sent)


def test_the_help_page_opens_from_the_node(page, drawn_by):
    page.js("app.graph.clear(); app.graph.add(LiteGraph.createNode('SqueezeTimestepGate'))")
    page.js("app.canvas.selectItems([...app.graph._nodes])")
    page.wait_for("return document.querySelector('[data-testid=\"info-button\"]') !== null")
    page.js("document.querySelector('[data-testid=\"info-button\"]').click()")
    page.wait_for("return document.body.innerText.includes('equation 5 of the paper')")


@pytest.mark.parametrize(
    "words, among", [("consistency", 3), ("identity", 3), ("character", 7), ("Kontext", 7), ("subject", 7)]
)
def test_a_users_own_word_finds_the_gate_and_the_encoder(page, words, among):
    """By the search of the page itself, which puts nodes with the word in their very name before all others."""
    found = page.js(
        "const pinia = document.querySelector('#vue-app').__vue_app__.config.globalProperties.$pinia;"
        "const hits = pinia._s.get('nodeDef').nodeSearchService.searchNode(args[0], []);"
        "return hits.slice(0, args[1]).map(hit => hit.name)",
        words,
        among,
    )
    assert {"SqueezeTimestepGate", "SqueezeEncode"} <= set(found), found


def test_a_language_renames_nodes_and_sockets(page, server):
    page.set("Comfy.Locale", "fr")
    try:
        page.driver.refresh()
        page.wait_for(READY, 120)
        page.js("await new Promise(r => setTimeout(r, 1000)); app.graph.clear()")
        page.js("app.graph.add(LiteGraph.createNode('SqueezeReferenceTokens'))")
        title, sockets = page.js(
            "const [n] = app.graph._nodes; return [n.title, n.inputs.map(i => i.localized_name)]"
        )
        translated = server.get("/i18n")["fr"]["nodeDefs"]["SqueezeReferenceTokens"]
        assert title == translated["display_name"]
        assert translated["inputs"]["mask"]["name"] in sockets
    finally:
        page.set("Comfy.Locale", "en")
