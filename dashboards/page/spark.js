// A small line of a rate over the time that the charts show, as SVG: lengths that depend on data are attributes.
import { el } from "./dom.js";
import { drawable, extent, pauses, unknown } from "./view.js";
import { percent } from "./words.js";

const WIDE = 116, HIGH = 34;

/** The highest rate that sparklines of these series have to show; minutes with next to no mail don't count. */
export const highest = (seriesList) => Math.max(0.05, ...seriesList.flatMap(({ points }) => points.filter(([, , total]) => total >= 20).map(([, bad, total]) => bad / total)));

/** `top` is the rate at the upper edge, `limit` the tolerated rate. */
export function spark(series, view, { top, limit }) {
  const [from, until] = extent(view);
  const x = (at) => Math.round(((at - from) / (until - from)) * WIDE * 10) / 10;
  const y = (rate) => Math.round((HIGH - 2 - Math.min(1, rate / top) * (HIGH - 5)) * 10) / 10;
  const drawn = [];
  for (const [a, b] of unknown(view)) drawn.push(el("rect", { class: "unknown", x: x(a), y: 0, width: x(b) - x(a), height: HIGH, fill: "url(#hatch)" }));
  for (const [a, b] of pauses(series.scope, view)) if (b > from && a < until) drawn.push(heldIn(x(Math.max(from, a)), x(Math.min(until, b))));
  if (limit > 0 && limit < top) drawn.push(el("line", { class: "limit", x1: 0, x2: WIDE, y1: y(limit), y2: y(limit) }));
  drawn.push(el("path", { d: trace(drawable(series, view).filter(([at]) => at >= from), view.step, x, y) }));
  const last = drawable(series, view).at(-1);
  const say = last ? `Rate over the last ${Math.round((until - from) / 60)} minutes; last ${percent(last[1] / last[2])}` : "No mail";
  return el("svg", { class: "spark", viewBox: `0 0 ${WIDE} ${HIGH}`, width: WIDE, height: HIGH, preserveAspectRatio: "none", role: "img", "aria-label": say }, drawn);
}

const heldIn = (begin, end) => el("rect", { class: "held", x: begin, y: 0, width: Math.max(1, end - begin), height: HIGH });

// A minute that is missing breaks the line; a minute alone is a line as long as the minute.
function trace(points, step, x, y) {
  return points.map(([at, bad, total], i) => {
    const height = y(bad / total);
    if (at - points[i - 1]?.[0] <= step) return `L${x(at + step / 2)} ${height}`;
    return points[i + 1]?.[0] - at <= step ? `M${x(at + step / 2)} ${height}` : `M${x(at)} ${height}H${x(at + step)}`;
  }).join("");
}
