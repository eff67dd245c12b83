// The top sellers and segments as a table of sparklines; the fleet as a map of IP by mailbox provider.
import { el, mark, tag } from "./dom.js";
import { highest, spark } from "./spark.js";
import { burning, burningHere, cellState, extent, front, held, partly, recent } from "./view.js";
import { count, keyOf, moment, name, of, percent, rateOf, tenth } from "./words.js";

const natural = new Intl.Collator("en", { numeric: true }).compare;
const nothing = (text) => el("div", { class: "pad note hatch" }, el("p", { class: "onhatch" }, text));

// ── Sellers
export function sellers(view, ui) {
  if (!view.top) return { body: null };
  if (!view.top.length) return { note: "", body: nothing("No data: no seller's mail was reported in the last 30 minutes.") };
  const top = highest(view.top);
  const shown = keyOf(front(view, ui.chosen)?.scope ?? {});
  const rank = (series) => (burning(series.scope, view) ? 0 : held(series.scope, view) ? 1 : 2);
  const listed = view.top.toSorted((a, b) => rank(a) - rank(b) || natural(a.scope.tenant ?? "", b.scope.tenant ?? "") || natural(a.scope.segment ?? "", b.scope.segment ?? ""));
  const head = el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Seller"), el("th", { scope: "col" }, "Segment"), el("th", { scope: "col" }, "Since ", moment(extent(view)[0] * 1000, view.now)), el("th", { scope: "col", class: "num" }, "5 min to ", moment(view.complete && view.complete * 1000, view.now)), el("th", { scope: "col", class: "num" }, "Of"), el("th", { scope: "col" }, "State")));
  return {
    note: rateOf(view.rate).of,
    body: el("table", { class: "table tight cards" }, el("caption", { class: "vh" }, `${rateOf(view.rate).title} of the top sellers and segments`), head, el("tbody", {}, listed.map((series) => sellerRow(series, view, top, shown)))),
  };
}

function sellerRow(series, view, top, shown) {
  const { scope } = series;
  const key = keyOf(scope);
  const incident = burning(scope, view), lease = held(scope, view);
  const now = recent(series, view);
  const part = !lease && partly(scope, view);
  const state = incident ? tag("bad", "bad", "on fire") : lease ? tag("pause", lease.deed === "pause" ? "pause" : "throttle", lease.deed === "pause" ? "paused" : "throttled") : part ? tag("pause", "pause", "partly paused") : "";
  const figures = now.state === "rate" ? el("b", { class: incident && "bad-t" }, percent(now.rate))
    : el("span", { class: now.state === "no mail" ? "nomail" : "nodata" }, now.state);
  return el("tr", { class: incident ? "bad" : lease ? "pause" : false, "data-key": key },
    el("td", { class: "first" }, el("button", { class: "pick", type: "button", "data-act": "pick", "data-series": key, "aria-pressed": String(key === shown), title: "Show in the chart" },
      el("b", {}, name(scope.tenant || "no seller", 40)))),
    el("td", { class: "second" }, scope.segment ? name(scope.segment, 60) : el("span", { class: "muted" }, "no segment")),
    el("td", { class: "line" }, spark(series, view, { top, limit: burningHere(scope, view)?.evidence.expected })),
    el("td", { class: "num" }, figures), el("td", { class: "num of" }, now.state === "rate" && of(now.numerator, now.denominator)),
    el("td", { class: "state" }, state, (lease || part) && el("span", { class: "pause-t" }, incident && (lease ? " paused" : " partly paused"), " until ", moment((lease ?? part).until, view.now))));
}

// ── Fleet
const LEVELS = { alert: "h2", pause: "h3" };
const COLUMNS = 8, ROWS = 32;

export function fleet(view, ui) {
  if (!view.fleet) return { body: null };
  if (!view.fleet.length) return { note: "", body: nothing("No data: no IP's mail was reported in the last 30 minutes.") };
  const cells = new Map(view.fleet.map((series) => [keyOf(series.scope), series]));
  const mail = (label) => view.fleet.reduce((sums, { scope, points }) => sums.set(scope[label] ?? "", (sums.get(scope[label] ?? "") ?? 0) + points.reduce((n, [, , total]) => n + total, 0)), new Map());
  const volumes = mail("provider");
  const providers = [...volumes.keys()].sort((a, b) => volumes.get(b) - volumes.get(a)).slice(0, COLUMNS).sort(natural);
  const ips = [...mail("ip").keys()].sort(natural);
  const head = el("thead", {}, el("tr", {}, el("th", { scope: "col" }, `${rateOf(view.rate).title}, %`), providers.map((provider) => el("th", { scope: "col", "data-key": `p-${provider}` }, name(provider || "unknown", 40)))));
  const rows = ips.slice(0, ROWS).map((ip) => el("tr", { "data-key": `ip-${ip}` }, el("th", { scope: "row" }, name(ip || "unknown", 45)), providers.map((provider) => cell({ ip, provider }, cells, view, ui))));
  const left = [volumes.size > COLUMNS && `${COLUMNS} of ${count(volumes.size)} providers`, ips.length > ROWS && `${ROWS} of ${count(ips.length)} IPs`].filter(Boolean);
  return {
    note: el("span", {}, "5 min to ", moment(view.complete && view.complete * 1000, view.now), left.length > 0 && `; ${left.join(", ")} shown`),
    body: el("div", { class: "heatwrap" }, el("table", { class: "heat" }, el("caption", { class: "vh" }, `${rateOf(view.rate).title} in per cent over the last 5 minutes, by sending IP and mailbox provider`), head, el("tbody", {}, rows)),
      el("p", { class: "inspect", id: "heat-line" }, ui.cell && cells.has(ui.cell) ? sentence(cells.get(ui.cell), view) : "Point at a cell for its numbers; press it to see it in the chart.")),
    foot: LEGEND.map((build) => build()),
  };
}

function cell(scope, cells, view, ui) {
  const key = keyOf(scope);
  const series = cells.get(key);
  const now = recent(series ?? { points: [] }, view);
  if (!series || now.state !== "rate") return el("td", { class: now.state === "no data" ? "nodata" : "nomail", "data-key": key }, el("span", { class: "vh" }, now.state));
  const state = cellState(scope, view);
  const first = ui.cell ?? cells.keys().next().value;
  return el("td", { class: LEVELS[state.grade] ?? "", "data-key": key },
    el("button", { type: "button", "data-act": "pick", "data-series": key, "data-cell": key, tabindex: key === first ? 0 : -1, "aria-label": sentence(series, view), "aria-pressed": String(ui.chosen === key) },
      tenth(now.rate), state.held && mark("pause", state.grade === "pause" ? "s onheat" : "s pause")));
}

/** "198.51.100.21 at Gmail: 4.8 %, 1,212 of 25,240" as text. */
function sentence(series, view) {
  const now = recent(series, view);
  const { ip, provider } = series.scope;
  const state = cellState(series.scope, view);
  const said = now.state === "rate" ? `${percent(now.rate)}, ${of(now.numerator, now.denominator)} ${rateOf(view.rate).of}` : now.state;
  return `${ip || "unknown IP"} at ${provider || "unknown provider"}: ${said}${state.grade ? `, ${state.grade} grade` : ""}${state.held ? ", partly paused" : ""}`;
}

const swatch = (kind, text) => el("span", {}, el("i", { class: `sw ${kind}`.trim() }), text);
const LEGEND = [
  () => swatch("", "nothing open"), () => swatch("h2", "alert grade"), () => swatch("h3", "pause grade"),
  () => el("span", {}, mark("pause", "pause s"), "partly paused"), () => swatch("nomail", "no mail"), () => swatch("hatch", "no data"),
];

/** Moves the map's one tab stop with the arrow keys; the cell that has it now, or undefined. */
export function arrow(event) {
  const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
  const here = event.target.closest?.(".heat td");
  if (!move || !here) return undefined;
  const rows = [...here.closest("tbody").rows];
  let y = rows.indexOf(here.parentElement), x = here.cellIndex;
  do [y, x] = [y + move[0], x + move[1]]; while (rows[y]?.cells[x] && !rows[y].cells[x].querySelector("button"));
  const next = rows[y]?.cells[x]?.querySelector("button");
  if (next) event.preventDefault();
  return next ?? undefined;
}
