// The two charts: a rate each minute, and mail each minute by outcome. uPlot draws; the colours are the tokens'.
import { el, show } from "./dom.js";
import { drawable, extent, pauses, unknown } from "./view.js";
import { clock, count, keyOf, known, of, percent, rateOf, ratio, subject, tick } from "./words.js";

const LINES = 12; // as many as are in the table; the slots stay, so that a chart is never built anew
const OUTCOMES = [["sent", "chart-alt"], ["deferred", "warn-mark"], ["bounced", "bad-mark"], ["complaints", "bad-ink"], ["held", "pause-mark"]];

// A canvas cannot read light-dark(): a hidden element resolves each colour.
const probe = el("i", { hidden: true });
const resolved = new Map();
function colour(token) {
  if (!resolved.has(token)) {
    if (!probe.isConnected) document.body.append(probe);
    probe.style.color = `var(--${token})`;
    resolved.set(token, getComputedStyle(probe).color);
  }
  return resolved.get(token);
}

const font = () => `12px ${getComputedStyle(document.body).fontFamily}`;
const axis = (more) => ({ stroke: () => colour("ink-3"), font: font(), grid: { stroke: () => colour("chart-grid"), width: 1 }, ticks: { show: false }, gap: 6, ...more });

/** A pattern of slanted lines on a ground: what is not known, and outcomes that are no mail gone out. */
function hatch(ctx, line, ground) {
  const tile = document.createElement("canvas"), ratioOf = devicePixelRatio || 1, n = Math.round(7 * ratioOf);
  tile.width = tile.height = n;
  const t = tile.getContext("2d");
  if (ground) (t.fillStyle = colour(ground)), t.fillRect(0, 0, n, n);
  t.strokeStyle = colour(line);
  t.lineWidth = 1.5 * ratioOf;
  t.beginPath();
  for (const d of [-n, 0, n]) t.moveTo(d - 1, n + 1), t.lineTo(d + n + 1, -1);
  t.stroke();
  return ctx.createPattern(tile, "repeat");
}

/** uPlot in `place`; what comes back takes a view and its rows, the first of them the middles of `minutes(view)`. */
function base(place, { y, series, under, over, axes, hover }) {
  const tip = el("div", { class: "tip", hidden: true });
  let span = [0, 600];
  const plot = new uPlot({
    width: Math.max(200, place.clientWidth), height: place.clientHeight, padding: [10, 24, 0, 0], legend: { show: false },
    cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
    scales: { x: { time: true, range: () => span }, y: { range: y } },
    axes: [axis({ values: (u, at) => at.map((s) => clock(s * 1000)), space: 64, size: 28 }), axis({ size: 52, ...axes })],
    series: [{}, ...series],
    hooks: { drawAxes: [under], draw: [over], setCursor: [(u) => tell(u, tip, hover)] },
  }, [[], ...series.map(() => [])], place);
  place.append(tip);
  new ResizeObserver(() => plot.setSize({ width: Math.max(200, place.clientWidth), height: place.clientHeight })).observe(place);
  const paint = (view, rows) => {
    span = extent(view);
    plot.setData([minutes(view).map((at) => at + view.step / 2), ...rows]);
  };
  return { plot, paint };
}

function minutes(view) {
  const [from, until] = extent(view);
  return Array.from({ length: Math.round((until - from) / view.step) }, (_, i) => from + i * view.step);
}

function tell(plot, tip, hover) {
  const { idx, left } = plot.cursor;
  const at = idx == null || left < 0 ? undefined : plot.data[0][idx];
  tip.hidden = at === undefined;
  if (tip.hidden) return;
  show(tip, hover(idx, at));
  const x = plot.over.offsetLeft + left;
  const beside = x > plot.root.clientWidth / 2 ? x - tip.offsetWidth - 14 : x + 14;
  tip.style.transform = `translate(${Math.max(0, Math.round(beside))}px, 12px)`;
}

const tipRow = (label, value, kind = "") => el("div", { class: `tip-row ${kind}`.trim() }, el("span", {}, label), el("b", {}, value));

/** Hatches what is not known, and shades where the series in front was or is held; the running minute has a line. */
function ground(plot, view, stretches = []) {
  const { ctx, bbox } = plot;
  const x = (at) => plot.valToPos(at, "x", true);
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.fillStyle = hatch(ctx, "none-hatch");
  for (const [a, b] of unknown(view)) ctx.fillRect(x(a), bbox.top, x(b) - x(a), bbox.height);
  for (const [begin, end] of stretches.map((stretch) => stretch.map(x))) {
    ctx.fillStyle = colour("pause-wash");
    ctx.fillRect(begin, bbox.top, end - begin, bbox.height);
    ctx.fillStyle = colour("pause-mark");
    ctx.fillRect(begin, bbox.top, 2 * devicePixelRatio, bbox.height);
  }
  const now = Math.round(x(view.now / 1000));
  ctx.fillStyle = colour("line-2");
  ctx.fillRect(now, bbox.top, devicePixelRatio, bbox.height);
  ctx.restore();
}

function limitLine(plot, limit) {
  const { ctx, bbox } = plot;
  const y = Math.round(plot.valToPos(limit, "y", true));
  if (y < bbox.top) return;
  ctx.save();
  ctx.strokeStyle = colour("bad-mark");
  ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.lineWidth = devicePixelRatio;
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.fillStyle = colour("bad-ink");
  ctx.font = `${12 * devicePixelRatio}px ${getComputedStyle(document.body).fontFamily}`;
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  ctx.fillText(`tolerated ${tick(limit)}`, bbox.left + 6 * devicePixelRatio, y - 5 * devicePixelRatio);
  ctx.restore();
}

// A minute between two without mail has no line to be on: it gets a dot.
const alone = (plot, i) => {
  const values = plot.data[i];
  return values.flatMap((value, at) => (value != null && values[at - 1] == null && values[at + 1] == null ? [at] : []));
};

/** A chart of rates: grey lines of all sellers, dashed all mail, and in front the series that matters. */
export function rateChart(place) {
  let state = null;
  const line = (more) => ({ spanGaps: false, points: { show: true, filter: alone, size: 5, fill: more.stroke }, ...more });
  const grey = Array.from({ length: LINES }, () => line({ stroke: () => colour("control"), width: 1 }));
  const all = line({ stroke: () => colour("chart-alt"), width: 1.5, dash: [5, 4] });
  const first = line({ stroke: () => colour(state?.incident ? "series-2" : "series-1"), width: 2.5 });
  const { plot, paint } = base(place, {
    series: [...grey, all, first],
    y: () => [0, state?.top ?? 0.05],
    axes: { values: (u, at) => at.map(tick) },
    under: (u) => state && ground(u, state.view, state.stretches),
    over: (u) => state?.incident && limitLine(u, state.incident.evidence.expected),
    hover: (i, at) => rateTip(state, at),
  });
  const draw = (view, series, incident) => {
    state = rateState(view, series, incident);
    paint(view, state.rows);
  };
  return { draw, plot };
}

function rateState(view, series, incident) {
  const at = minutes(view);
  const column = (one) => {
    const points = new Map((one ? drawable(one, view) : []).map(([minute, bad, total]) => [minute, ratio(bad, total)]));
    return at.map((minute) => (known(points.get(minute)) ? points.get(minute) : null));
  };
  const others = view.top ?? [];
  // A minute with next to no mail may have any rate: it may leave the chart at its top, and the tooltip says it.
  const heights = [series, view.flow, ...others].flatMap((one) => one?.points ?? []).filter(([minute, , total]) => minute >= at[0] && total >= 20).map(([, bad, total]) => bad / total);
  const tolerated = incident?.evidence.expected ?? 0;
  return {
    view, series, incident, others, stretches: series ? pauses(series.scope, view) : [], top: Math.max(0.05, tolerated * 1.25, ...heights.map((rate) => rate * 1.12)),
    rows: [...Array.from({ length: LINES }, (_, i) => column(others[i])), column(view.flow), column(series)],
  };
}

function rateTip({ view, series, others }, at) {
  const minute = at - view.step / 2;
  const row = (one, kind) => {
    const point = one?.points.find(([when]) => when === minute);
    const value = point ? `${percent(ratio(point[1], point[2]))} (${of(point[1], point[2])})` : view.minutes.has(minute) ? "no mail" : "no data";
    return tipRow(subject(one?.scope ?? {}, { begin: true, most: 28 }), value, kind);
  };
  const rate = (one) => { const point = one.points.find(([when]) => when === minute); return point ? ratio(point[1], point[2]) : -1; };
  const mine = keyOf(series?.scope ?? {});
  const rest = others.filter((one) => keyOf(one.scope) !== mine && rate(one) >= 0).sort((a, b) => rate(b) - rate(a)).slice(0, 4);
  return [el("p", {}, `${clock(minute * 1000)}, ${rateOf(view.rate).of}`), row(series, "first"), series !== view.flow && row(view.flow), rest.map((one) => row(one))];
}

/** A chart of mail each minute, its outcomes stacked. */
export function volumeChart(place) {
  let state = null;
  const bars = uPlot.paths.bars({ size: [0.86, 160], gap: 1 });
  const fill = { sent: (u) => colour("chart-alt"), deferred: (u) => hatch(u.ctx, "warn-mark", "surface"), bounced: () => colour("bad-mark"), complaints: () => colour("bad-ink"), held: (u) => hatch(u.ctx, "pause-mark", "pause-wash") };
  const series = OUTCOMES.toReversed().map(([outcome, token]) => ({ stroke: () => colour(token), width: 0, fill: fill[outcome], paths: bars, points: { show: false } }));
  const { plot, paint } = base(place, {
    series, y: (u, low, high) => [0, Math.max(10, (high ?? 0) * 1.1)], axes: { values: (u, at) => at.map((n) => (n % 1 ? "" : count(n))), space: 36 },
    under: (u) => state && ground(u, state), over: () => {},
    hover: (i, at) => volumeTip(state, at - state.step / 2),
  });
  const draw = (view) => {
    state = view;
    const points = new Map(view.volume?.map((point) => [point[0], point.slice(1)]));
    // Each bar stands for its outcome and all below it, and those below are painted over it.
    const stack = (counts, outcomes) => counts?.slice(0, outcomes).reduce((sum, n) => sum + n, 0) ?? null;
    paint(view, OUTCOMES.map((_, i) => minutes(view).map((at) => stack(points.get(at), OUTCOMES.length - i))));
  };
  return { draw, plot };
}

function volumeTip(view, minute) {
  const point = view.volume?.find(([at]) => at === minute);
  return [el("p", {}, `${clock(minute * 1000)}${minute + view.step > view.now / 1000 ? ", still running" : ""}`), point ? OUTCOMES.map(([outcome], i) => tipRow(outcome, count(point[i + 1]))) : tipRow("mail", "no data")];
}

/** What each colour of the volume chart means, with its count over the last five minutes. */
export function volumeLegend({ status, complete, now }) {
  const counts = complete !== null && now / 1000 - complete < 300 ? status?.counts : undefined; // else they count minutes of which nothing is known
  const names = { complaints: "complaint" };
  return [el("b", {}, "Mail each minute"), OUTCOMES.map(([outcome]) => el("span", {}, el("i", { class: `sw o-${outcome}` }), `${outcome} `, el("b", {}, count(counts?.[names[outcome] ?? outcome])))), el("span", { class: "muted" }, "in the last 5 min")];
}

/** After a change of theme: the colours are looked up again. */
export function recolour(...charts) {
  resolved.clear();
  for (const { plot } of charts) plot.redraw();
}
