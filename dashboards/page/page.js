// Asks the API every two seconds while somebody looks, and shows what it said.
import { rateChart, recolour, volumeChart, volumeLegend } from "./charts.js";
import { el, mark, show, tag } from "./dom.js";
import { answer, bar, head, spoken, stats } from "./headline.js";
import { did, failed, fires, paused, sources } from "./panels.js";
import { refusals } from "./refusals.js";
import { arrow, fleet, sellers } from "./tables.js";
import { burningHere, front, holds, pauses, recent, viewOf } from "./view.js";
import { keyOf, moment, of, percent, rateOf, subject } from "./words.js";

const EVERY = 2000;
const PATIENCE = 8000;
const $ = (id) => document.getElementById(id);
const root = document.documentElement;

// ── What is asked. `each`: in every how many rounds; sums over many series are asked for less often.
const rated = (path) => () => `v1/series?${path}&minutes=30&gaps=omit&rate=${ui.rate}`;
const feed = (url, each = 1) => ({ url, each, answer: null, at: null, failing: null, why: "" });
const feeds = {
  status: feed(() => "v1/status"),
  incidents: feed(() => "v1/incidents?state=open&limit=50"),
  leases: feed(() => "v1/leases"),
  actions: feed(() => "v1/actions?limit=50"),
  volume: feed(() => "v1/volume?minutes=30"),
  flow: feed(rated("by=&top=1"), 2),
  sellers: feed(rated("by=tenant,segment&top=100"), 2),
  fleet: feed(rated("by=ip,provider&top=100"), 3),
  lately: feed(() => "v1/incidents?state=all&limit=8", 3),
  classes: feed(() => "v1/replies/classes?minutes=60&limit=200", 15),
  unknown: feed(() => "v1/replies/unknown?minutes=1440&limit=50", 30),
};
const ui = { rate: "bounce", chosen: null, cell: null, copied: null };
let ahead = 0; // the server's clock minus ours
let round = 0, timer;

const clockNow = () => Date.now() + ahead;

async function ask(one) {
  const url = one.url();
  try {
    const reply = await fetch(url, { headers: { Accept: "application/json" }, cache: "no-cache", signal: AbortSignal.timeout(PATIENCE) });
    if (reply.status === 401) return signIn();
    if (!reply.ok) throw new Error(`It said ${reply.status}`);
    const told = await reply.json();
    if (url !== one.url()) return; // the reader chose another rate meanwhile
    Object.assign(one, { answer: told, failing: null, why: "" });
    if (one === feeds.status) ahead = Date.parse(told.now) - Date.now() || 0;
    one.at = clockNow();
  } catch (problem) {
    one.failing ??= clockNow();
    one.why = problem.name === "TimeoutError" ? `No answer in ${PATIENCE / 1000} s` : problem.message;
  }
}

// ── Who is signed in; nobody is where anybody may look
let me = null;

const signIn = () => location.assign(`login?next=${encodeURIComponent(location.pathname + location.search + location.hash)}`);

async function askWho() {
  const reply = await fetch("v1/me", { cache: "no-cache", signal: AbortSignal.timeout(PATIENCE) });
  me = reply.ok ? await reply.json() : null;
  const person = me?.way === "person" && me.name.replace(/^person:/, "");
  show($("foot-person"), person && [mark("person"), el("span", { class: "name" }, "Signed in: ", el("b", {}, person))]);
  $("leave").hidden = !person;
}

async function poll(everything = false) {
  clearTimeout(timer);
  const mine = ++round;
  const due = Object.values(feeds).filter((one) => everything || one.answer === null || mine % one.each === 0);
  await Promise.all(due.map(ask));
  if (mine !== round) return;
  if (!document.hidden) timer = setTimeout(poll, EVERY); // before showing: one odd answer must not end the asking
  render();
  drawCharts();
}

// ── What is shown
const view = () => viewOf(Object.fromEntries(Object.entries(feeds).map(([key, one]) => [key, one.answer])), clockNow(), ui.rate);

const PANELS = [["fire", fires, ["incidents"]], ["paused", paused, ["leases"]], ["sources", sources, ["status"]], ["did", did, ["actions"]], ["sellers", sellers, ["sellers"]], ["fleet", fleet, ["fleet"]], ["refusals", refusals, ["classes"]]];
const slot = (panel, which) => $(panel).querySelector(`[data-slot="${which}"]`);

function render() {
  const seen = view();
  const down = feeds.status.failing !== null;
  $("main").setAttribute("aria-busy", String(down || !feeds.status.answer));
  trouble(down, seen);
  if (seen.status) top(seen, down);
  for (const [id, build, needs] of PANELS) panel(id, build, needs, seen, down);
  chartWords(seen, down);
}

function trouble(down, seen) {
  const since = feeds.status.failing;
  const from = feeds.status.at;
  if (!down) return show($("trouble"));
  if (!from) show($("answer"), el("h1", { id: "headline" }, el("span", { class: "gone" }, "Mailvane does not answer.")), el("p", {}, "It asks again every 2 seconds. Is ", el("code", {}, "mailvane run"), " still running?"));
  return show($("trouble"), el("p", { class: "trouble" }, mark("error", "bad"), el("span", {}, "Mailvane does not answer since ", moment(since, seen.now), from ? ["; data shown is from ", moment(from, seen.now), "."] : ".", ` ${feeds.status.why}.`),
    el("button", { class: "btn small", type: "button", "data-act": "again" }, "Try again")));
}

function top(seen, down) {
  show($("bar"), bar(seen, down));
  show($("answer"), head(seen));
  show($("stats"), stats(seen));
  document.title = answer(seen).title;
  const dry = seen.status.mode === "dry-run";
  show($("foot-mode"), mark("gear"), `Automation: ${dry ? "dry run" : "enforcing"}`);
  show($("foot-version"), `mailvane ${seen.status.version}`);
  if ($("spoken").textContent !== spoken(seen)) $("spoken").textContent = spoken(seen);
  counted("fire", "bad", seen.incidents?.length);
  counted("paused", "pause", seen.leases?.filter(holds).length);
  counted("sources", "none", seen.status.sources.filter(({ state }) => state !== "fresh").length);
}

function counted(what, icon, n) {
  show(document.querySelector(`[data-count="${what}"]`), n > 0 && [mark(icon, `${icon} s`), n]);
  show(document.querySelector(`[data-sup="${what}"]`), n > 0 && n);
}

function panel(id, build, needs, seen, down) {
  const broken = needs.map((need) => feeds[need]).find(({ failing }) => failing !== null);
  $(id).setAttribute("aria-busy", String(Boolean(broken)));
  let built;
  try {
    built = build(seen, ui);
  } catch (problem) {
    console.error(id, problem); // one answer that is not as agreed must not stop the others
    built = { note: tag("bad", "error", "could not be shown") };
  }
  const { note, body, foot } = built;
  show(slot(id, "note"), broken && !down ? failed(broken, seen.now) : note);
  if (body) show(slot(id, "body"), body);
  else if (body === null && !slot(id, "body").hasChildNodes()) show(slot(id, "body"), el("p", { class: "pad note" }, broken ? "Nothing could be read yet." : "Asking…"));
  const bottom = slot(id, "foot");
  if (bottom && body) show(bottom, foot), (bottom.hidden = !foot);
}

function chartWords(seen, down) {
  const broken = [feeds.flow, feeds.sellers, feeds.volume].find(({ failing }) => failing !== null);
  $("series").setAttribute("aria-busy", String(Boolean(broken)));
  show(slot("series", "note"), broken && !down ? failed(broken, seen.now) : "");
  for (const button of $("rates").children) button.setAttribute("aria-pressed", String(button.dataset.rate === ui.rate));
  const first = front(seen, ui.chosen);
  const now = first && recent(first, seen);
  const figure = !now ? "no data" : now.state === "rate" ? [el("b", {}, percent(now.rate)), ` (${of(now.numerator, now.denominator)}) in the 5 min to `, moment(seen.complete * 1000, seen.now)] : now.state;
  const hot = first && burningHere(first.scope, seen);
  show($("rate-legend"), el("span", { class: "front" }, el("i", { class: hot ? "sw line hot" : "sw line" }), " ", el("b", {}, subject(first?.scope ?? {}, { begin: true, most: 40 })), " ", figure),
    first !== seen.flow && el("span", {}, el("i", { class: "sw dash" }), "all mail"), el("span", {}, el("i", { class: "sw thin" }), "other sellers and segments"),
    ui.chosen && el("button", { class: "btn quiet small", type: "button", "data-act": "unpick" }, "Back to the worst"));
  show($("volume-legend"), volumeLegend(seen));
  show(slot("series", "foot"), el("span", {}, `${rateOf(ui.rate).title}: ${rateOf(ui.rate).of}, minute by minute.`), el("span", {}, el("i", { class: "sw hatch" }), "no data"), first && pauses(first.scope, seen).length > 0 && el("span", {}, el("i", { class: "sw held" }), "paused"));
}

let charts;
function drawCharts() {
  charts ??= { rate: rateChart($("rate-chart")), volume: volumeChart($("volume-chart")) };
  const seen = view();
  const first = front(seen, ui.chosen);
  charts.rate.draw(seen, first, first && burningHere(first.scope, seen));
  charts.volume.draw(seen);
}

// ── What the reader does
const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
const repaint = () => charts && recolour(charts.rate, charts.volume);
const kept = (value) => {
  try {
    if (value) localStorage.setItem("mailvane-theme", value);
    return localStorage.getItem("mailvane-theme");
  } catch {
    return null; // storage is blocked: the theme lasts as long as the page
  }
};

const acts = {
  theme: () => ((root.dataset.theme = dark() ? "light" : "dark"), kept(root.dataset.theme), repaint()),
  again: () => poll(true),
  leave: async () => {
    const reply = await fetch("v1/session", { method: "DELETE", headers: { "X-CSRF-Token": me?.csrf ?? "" }, signal: AbortSignal.timeout(PATIENCE) });
    if (reply.ok) location.assign("login");
    else await askWho(); // somebody else is signed in by now
  },
  rate: ({ rate }) => {
    ui.rate = rate;
    for (const one of [feeds.flow, feeds.sellers, feeds.fleet]) one.answer = null;
    poll();
  },
  pick: ({ series }) => ((ui.chosen = ui.chosen === series ? null : series), again()),
  unpick: () => ((ui.chosen = null), again()),
  copy: async ({ copy }) => {
    await navigator.clipboard.writeText(copy);
    ui.copied = copy;
    setTimeout(() => ((ui.copied = null), render()), 2000);
    render();
  },
};
const again = () => (render(), drawCharts());

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-act]");
  if (button) acts[button.dataset.act](button.dataset);
});
const point = (target) => {
  const key = target.closest?.("[data-cell]")?.dataset.cell;
  if (key && key !== ui.cell) (ui.cell = key), render();
};
document.addEventListener("focusin", (event) => point(event.target));
document.addEventListener("mouseover", (event) => point(event.target));
document.addEventListener("keydown", (event) => arrow(event)?.focus());
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll(true)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

if (kept()) root.dataset.theme = kept();
document.fonts.ready.then(repaint);
setInterval(() => !document.hidden && render(), 1000); // what is left of each pause
poll(true);
askWho().catch(() => {}); // the panels say that nothing answers
