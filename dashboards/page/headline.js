// The one sentence that answers, the three counts, and the line above them.
import { el, mark, tag } from "./dom.js";
import { containing, ended, holds, refusal } from "./view.js";
import { clock, count, lasting, moment, name, of, percent, plural, rateOf, ratio, subject, tick, today } from "./words.js";

const OLD = 90_000; // evidence that a newer look has not confirmed: held mail says nothing new

/** "Seller s07's segment lapsed bounces 31 %, tolerated 10 %" as pieces; `most` letters of each name. */
export function complaint(incident, now, most) {
  const { state, rate, expected, until } = incident.evidence;
  const words = rateOf(incident.rule);
  const [before, after] = now - Date.parse(until) > OLD ? words.past : words.verb;
  const value = state === "no data" ? NaN : rate;
  const kind = Number.isFinite(value) ? "hot" : "gone";
  return [subject(incident.scope, { begin: true, most }), " ", before, el("span", { class: kind }, percent(value)), after, `, tolerated ${tick(expected)}`];
}

/** "paused until 10:21" as pieces. */
export function hold(lease, now) {
  const end = moment(lease.until, now);
  if (lease.deed === "throttle") return [`throttled to ${percent(lease.share)} until `, end];
  if (lease.deed === "reroute") return ["rerouted to ", name(lease.pool, 40), " until ", end];
  return ["paused until ", end];
}

const lapses = (sources) => sources.filter((source) => source.state !== "fresh");
const told = (sources) => sources.filter((source) => source.watermark);

function onFire(view) {
  const [worst] = view.incidents;
  const lease = containing(worst, view);
  const { evidence } = worst;
  const others = view.incidents.length - 1;
  const over = ended(worst, view);
  const why = refusal(worst)?.why;
  return {
    eyebrow: [tag("bad", "bad", worst.grade === "pause" ? "Pause grade" : "Alert grade"),
      lease && tag("pause", lease.deed === "pause" ? "pause" : "throttle", `${lasting(Date.parse(lease.until) - view.now, true)} left`),
      el("span", {}, `#${worst.id}, open ${lasting(view.now - Date.parse(worst.opened_at))}.`, others > 0 && ` ${plural(others, "more incident")} below.`)],
    answer: [...complaint(worst, view.now, 40), "; ", lease ? el("span", { class: "held" }, hold(lease, view.now)) : over ? ["its pause ended at ", moment(over.until, view.now)] : "nothing is paused", "."],
    more: [evidence.state === "no data" ? `No data: ${evidence.reason || "the sources are silent"}.` : [`${of(evidence.numerator, evidence.denominator)} ${rateOf(worst.rule).did} between `, moment(evidence.since, view.now), " and ", moment(evidence.until, view.now), "."],
      explained(evidence),
      !lease && why && ` Automation did not pause: ${why}.`],
    title: `${plainly(complaint(worst, view.now, 24))} · Mailvane`,
  };
}

const explained = ({ shares }) => shares?.length > 0 && [" Seller ", name(shares[0][0], 40), ` explains ${percent(shares[0][1])} of the excess.`];

const plainly = (pieces) => pieces.flat(9).map((piece) => piece.textContent ?? piece).join("");

function calm(view) {
  const { counts } = view.status;
  const decided = (counts?.sent ?? 0) + (counts?.bounced ?? 0);
  const leases = (view.leases ?? []).filter(holds);
  const still = leases.length > 0 && `; ${plural(leases.length, "pause")} still in force`;
  return {
    eyebrow: [tag("", "ok", "Calm"), el("span", {}, "No incident is open.")],
    answer: [decided ? `All calm: ${percent(ratio(counts.bounced, decided))} bounced in the last 5 minutes` : "All calm: no mail in the last 5 minutes", still, "."],
    more: decided ? `${of(counts.bounced, decided)} finally decided.` : "The sources answer, and report no mail.",
    title: "All calm · Mailvane",
  };
}

function nothingKnown(view) {
  const { sources } = view.status;
  return {
    eyebrow: [tag("none", "none", "No data yet"), el("span", {}, sources.length ? `0 of ${plural(sources.length, "source")} has told anything.` : "0 sources.")],
    answer: [sources.length ? `No data yet: ${sources.length === 1 ? "the source has" : "the sources have"} not told of any mail.` : "No data yet: no source is connected."],
    more: sources.length ? ["First rates come a few minutes after mail is sent. Old logs can be read with ", el("code", {}, "mailvane import sendlog FILE"), "."]
      : ["Connect the send log first, then look with ", el("code", {}, "mailvane check"), "; or see it at work with ", el("code", {}, "mailvane demo"), "."],
    title: "No data yet · Mailvane",
  };
}

function halfBlind(view) {
  const { sources, complete_to: complete } = view.status;
  const behind = lapses(sources);
  const all = behind.length === sources.length;
  const who = behind.length === 1 ? ["source ", name(behind[0].name, 40), " is ", behind[0].state === "error" ? "failing" : behind[0].state === "stale" ? "stale" : "silent"] : [`${plural(behind.length, "source")} of ${sources.length} are not fresh`];
  return {
    eyebrow: [tag("none", "none", all ? "No data" : "Partly blind"), el("span", {}, "Silence is not calm: rules open and resolve nothing on it.")],
    answer: [all ? el("span", { class: "gone" }, ["No data since ", moment(complete ?? told(sources)[0]?.watermark, view.now)]) : "Nothing is on fire as far as is known", ": ", ...who, "."],
    more: "See Sources for what each last told.",
    title: `${all ? "No data" : "Partly blind"} · Mailvane`,
  };
}

const unread = () => ({
  eyebrow: [tag("none", "none", "No data")],
  answer: [el("span", { class: "gone" }, "The incidents could not be read"), ": whether all is calm is not known."],
  more: "The panel On fire says why.",
  title: "No data · Mailvane",
});

/** What the page answers now: `eyebrow`, `answer`, `more` as pieces and the window's `title`. */
export function answer(view) {
  const { sources } = view.status;
  if (!view.incidents) return unread();
  if (view.incidents.length) return onFire(view);
  if (!told(sources).length) return nothingKnown(view);
  if (lapses(sources).length) return halfBlind(view);
  return calm(view);
}

export function head(view) {
  const { eyebrow, answer: sentence, more } = answer(view);
  return [el("p", { class: "eyebrow" }, eyebrow), el("h1", { id: "headline" }, sentence), el("p", {}, more)];
}

// What is not known is hatched, and never a 0.
function stat(kind, icon, word, target, value, note) {
  const unknown = value === null;
  return el("a", { class: `stat ${kind}`, href: target }, el("span", { class: "k" }, mark(icon), word),
    el("span", { class: unknown ? "v nodata" : "v" }, unknown ? el("span", { class: "onhatch" }, "no data") : value), el("span", { class: "n" }, note));
}

/** On fire, paused, not fresh. */
export function stats(view) {
  const { sources, held_share: share } = view.status;
  const loose = view.incidents?.filter((incident) => !containing(incident, view)).length;
  const leases = view.leases?.filter(holds);
  const behind = lapses(sources).length;
  const blind = !view.incidents || (!view.incidents.length && !told(sources).length);
  const fires = blind ? null : (view.incidents.length >= 50 ? "50+" : count(view.incidents.length));
  return [
    stat(view.incidents?.length ? "bad" : "calm", "bad", "On fire", "#fire", fires, blind ? "nothing known yet" : !view.incidents.length ? (behind ? "as far as is known" : "nothing open") : loose ? `${loose} not contained` : "all contained"),
    stat(leases?.length ? "pause" : "calm", "pause", "Paused", "#paused", leases ? count(leases.length) : null, share === null || share === undefined ? "share not known" : `${percent(share)} of mail`),
    stat(behind || !sources.length ? "none" : "calm", "none", "Stale", "#sources", sources.length ? count(behind) : null, sources.length ? `of ${plural(sources.length, "source")}` : "no source yet"),
  ];
}

/** The top line: mode, demo, and to when all is known. */
export function bar(view, down) {
  const { mode, demo, complete_to: complete } = view.status;
  const dry = mode === "dry-run";
  return [
    el("span", { class: "crumbs" }, el("b", {}, "Now")),
    dry ? tag("warn", "gear", el("b", {}, "Dry run"), ": nothing is paused by itself") : tag("", "gear", el("b", {}, "Enforcing"), el("span", { class: "hide-s" }, ": automation pauses by itself")),
    demo && tag("", "series", "Demo: simulated mail"),
    el("span", { class: "right" },
      el("span", { class: down ? "live off" : "live" }, el("span", {}, down ? "Not live, " : "Live, ", complete ? ["complete to ", moment(complete, view.now)] : "nothing known yet")),
      el("span", { class: "hide-s" }, `${today(view.now)}, `, el("time", { datetime: new Date(view.now).toISOString() }, clock(view.now)))),
  ];
}

/** What a screen reader hears: it changes only with a count. */
export const spoken = (view) => `${plural(view.incidents?.length ?? NaN, "incident")} open, ${plural(view.leases?.filter(holds).length ?? NaN, "pause")} in force.`;
