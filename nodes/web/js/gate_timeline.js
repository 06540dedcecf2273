// A live timeline on every node that shows tau_1 or tau_2: the Timestep Gate, or a subgraph node that they are
// promoted to. It only draws: the graph runs, and is saved and queued, without it.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const COLOURS = ["#0072b2", "#009e73", "#e69f00"]; // early, middle, late: as Show Gate draws them
const HEIGHT = 44;

// The same formulas as squeeze_core/sigmas.py; FLUX's shift for 1024 x 1024.
const CURVES = {
  cosine: (u) => Math.cos((Math.PI / 2) * u),
  raised_cosine: (u) => (1 + Math.cos(Math.PI * u)) / 2,
  linear: (u) => 1 - u,
  flux: (u) => (Math.exp(1.15) * (1 - u)) / (1 + (Math.exp(1.15) - 1) * (1 - u)),
};

const WORDS = {
  en: ["early", "middle", "late", "steps", "of sigma 1 to 0", "tau_1 and tau_2 come over a link", "tau_1 must be at least tau_2", "as middle"],
  zh: ["早期", "中期", "晚期", "步", "按 sigma 从 1 到 0", "tau_1 和 tau_2 由连线给出", "tau_1 不得小于 tau_2", "同中期"],
  ja: ["初期", "中期", "後期", "ステップ", "sigma 1 から 0 まで", "tau_1 と tau_2 はリンクから来ます", "tau_1 は tau_2 以上にしてください", "中期と同じ"],
  fr: ["début", "milieu", "fin", "pas", "de sigma 1 à 0", "tau_1 et tau_2 viennent d'un lien", "tau_1 doit être au moins tau_2", "comme milieu"],
  ko: ["초기", "중기", "후기", "스텝", "sigma 1에서 0까지", "tau_1과 tau_2는 링크로 들어옵니다", "tau_1은 tau_2 이상이어야 합니다", "중기와 같음"],
  es: ["inicio", "medio", "final", "pasos", "de sigma 1 a 0", "tau_1 y tau_2 llegan por un enlace", "tau_1 debe ser al menos tau_2", "como medio"],
};
const words = () => WORDS[app.extensionManager?.setting?.get("Comfy.Locale")] ?? WORDS.en;

const widget = (node, name) => node?.widgets?.find((each) => each.name === name);
const connected = (node, name) => {
  const slot = node.inputs?.findIndex((each) => (each.widget?.name ?? each.name) === name) ?? -1;
  return slot >= 0 && node.isInputConnected(slot);
};

const gateOf = (node) => node.subgraph?.nodes?.find((each) => each.type === "SqueezeTimestepGate") ?? node;

/** A value of the gate: as the subgraph node shows it, else as the gate inside has it. */
const valueOf = (node, name) => (widget(node, name) ?? widget(gateOf(node), name))?.value;

/** The Squeeze Sigmas inside a subgraph node, else beside the gate; steps and curve are null where there is none. */
function schedule(node) {
  const near = [...(node.subgraph?.nodes ?? []), ...(node.subgraph ? [] : (node.graph?.nodes ?? []))];
  const sigmas = near.find((each) => each.type === "SqueezeSigmas");
  const steps = (node.subgraph && widget(node, "steps")) || widget(sigmas, "steps");
  const curve = widget(sigmas, "curve")?.value;
  if (!sigmas || !steps || !CURVES[curve]) return { steps: null, curve: null };
  return { steps: Math.max(1, Math.round(steps.value)), curve };
}

/** How much of the bar each stage takes: steps where they are known, else the share of sigma from 1 to 0. */
function shares(tau1, tau2, steps, curve) {
  if (steps == null) {
    const [first, second] = [Math.min(tau1, 1), Math.min(tau2, 1)];
    return [1 - first, first - second, second];
  }
  const counts = [0, 0, 0];
  for (let step = 0; step < steps; step++) {
    const sigma = CURVES[curve](step / steps);
    counts[sigma >= tau1 ? 0 : sigma >= tau2 ? 1 : 2]++;
  }
  return counts;
}

function draw(node, element) {
  const [tau1, tau2] = ["tau_1", "tau_2"].map((name) => Number(valueOf(node, name)));
  // Late steps hear what middle steps hear, unless the empty prompt stands in.
  const keep = valueOf(node, "late") === "keep" && !connected(gateOf(node), "null");
  const { steps, curve } = schedule(node);
  const [early, middle, late, stepsWord, overSigma, overLink, wrongOrder, asMiddle] = words();
  const unknown = connected(node, "tau_1") || connected(node, "tau_2") || Number.isNaN(tau1 + tau2);
  const wrong = !unknown && tau1 < tau2;
  const key = [tau1, tau2, steps, curve, unknown, keep, early].join();
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  const parts = unknown || wrong ? [0, 0, 0] : shares(tau1, tau2, steps, curve);
  const [bar, text] = element.children;
  bar.replaceChildren(
    ...parts.map((part, stage) => {
      const drawn = document.createElement("div");
      // One stripe a step, as long as they can be told apart.
      const stripes =
        steps == null || steps > 60 || !part
          ? "linear-gradient(transparent, transparent)"
          : `repeating-linear-gradient(90deg, transparent 0 calc(100% / ${part} - 1px), #0008 0 calc(100% / ${part}))`;
      drawn.style.cssText = `flex: ${part} 0 0; background: ${stripes}, ${COLOURS[keep ? Math.min(stage, 1) : stage]}`;
      return drawn;
    }),
  );
  bar.style.background = wrong ? "#a33" : "#8883";
  const names = [early, middle, late];
  const said = (count) => names.map((name, stage) => `${name} ${count(parts[stage])}`).join(" · ") + (keep ? ` (${asMiddle})` : "");
  text.textContent = unknown
    ? overLink
    : wrong
      ? wrongOrder
      : steps == null
        ? `${said((part) => `${Math.round(100 * part)}%`)} ${overSigma}`
        : `${said((part) => part)} / ${steps} ${stepsWord}`;
  element.setAttribute("aria-label", text.textContent);
}

const shown = new Set(); // redraw functions of all timelines on the page

function attach(node) {
  if (!(widget(node, "tau_1") || widget(node, "tau_2")) || widget(node, "gate_timeline")) return;
  const element = document.createElement("div");
  element.className = "squeeze-gate-timeline";
  element.setAttribute("role", "img");
  element.style.cssText = "display:flex; flex-direction:column; gap:4px; padding:2px 4px; pointer-events:none; overflow:hidden";
  element.innerHTML =
    '<div style="display:flex; height:12px; border-radius:3px; overflow:hidden"></div>' +
    '<div style="font:11px sans-serif; color:var(--input-text,#ddd); white-space:nowrap; text-align:center; text-overflow:ellipsis; overflow:hidden"></div>';
  const height = () => HEIGHT;
  const options = { serialize: false, hideOnZoom: true, margin: 6, getMinHeight: height, getMaxHeight: height };
  const timeline = node.addDOMWidget("gate_timeline", "squeeze_gate_timeline", element, options);
  timeline.serialize = false; // not in the file's widgets_values; options.serialize: not in what is queued

  const redraw = () => (node.graph ? draw(node, element) : shown.delete(redraw)); // a cleared graph tells no node
  const follow = (owner, name, always) => {
    const before = owner[name];
    owner[name] = function () {
      const answer = before?.apply(this, arguments);
      always();
      return answer;
    };
  };
  for (const name of ["tau_1", "tau_2", "late", "steps"]) {
    const each = widget(node, name);
    if (each) follow(each, "callback", redraw);
  }
  follow(node, "onAdded", () => shown.add(redraw) && redraw());
  follow(node, "onConnectionsChange", redraw);
  follow(node, "onDrawForeground", redraw); // the classic page, while a value is dragged
  follow(node, "onRemoved", () => shown.delete(redraw));

  const needed = node.computeSize()[1];
  if (node.size[1] < needed) node.setSize([node.size[0], needed]);
  if (node.graph) shown.add(redraw);
  draw(node, element);
}

const gatesInside = (node) => node.subgraph && gateOf(node) !== node;

app.registerExtension({
  name: "Squeeze.GateTimeline",
  setup() {
    // Undo, another tab, a promoted value, a change of Squeeze Sigmas: whatever changed the graph.
    api.addEventListener("graphChanged", () => {
      for (const node of app.graph?.nodes ?? []) if (gatesInside(node)) attach(node);
      for (const redraw of shown) redraw();
    });
  },
  nodeCreated(node) {
    if (node.comfyClass === "SqueezeTimestepGate") attach(node);
  },
  loadedGraphNode(node) {
    if (gatesInside(node)) attach(node);
  },
  afterConfigureGraph() {
    for (const node of app.graph.nodes) if (gatesInside(node)) attach(node);
  },
});
