// How numbers, times and names are said. Whole sentences are made where they are shown.
import { el } from "./dom.js";

const LANG = "en-GB";
const THIN = "\u202f"; // a narrow space that does not break, before the per cent sign
const whole = new Intl.NumberFormat(LANG);
const big = new Intl.NumberFormat(LANG, { maximumSignificantDigits: 2 });
const small = new Intl.NumberFormat(LANG, { maximumSignificantDigits: 2, minimumSignificantDigits: 2 });
const tenths = new Intl.NumberFormat(LANG, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const plainNumber = new Intl.NumberFormat(LANG, { maximumFractionDigits: 2 });
const minute = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const clockOf = new Intl.DateTimeFormat(LANG, minute);
const dayOf = new Intl.DateTimeFormat(LANG, { weekday: "short", day: "numeric", month: "short" });
const utcOf = new Intl.DateTimeFormat(LANG, { day: "numeric", month: "short", year: "numeric", ...minute, second: "2-digit", timeZone: "UTC" });

export const NO_DATA = "no data";
export const known = (value) => typeof value === "number" && Number.isFinite(value);
export const count = (n) => (known(n) ? whole.format(n) : NO_DATA);
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

const figure = (rate) => {
  const percent = rate * 100;
  return percent === 0 ? "0" : (Math.abs(percent) < 9.95 ? small : big).format(percent);
};
/** A rate of 0 to 1 with two digits that count; "no data" for what is not known. */
export const percent = (rate) => (known(rate) ? `${figure(rate)}${THIN}%` : NO_DATA);
/** The same for the edge of a chart: no more digits than it takes. */
export const tick = (rate) => `${plainNumber.format(rate * 100)}${THIN}%`;
/** The same for a column: one decimal, no sign. */
export const tenth = (rate) => tenths.format(rate * 100);
export const range = (low, high) => (known(low) && known(high) ? `${figure(low)}–${percent(high)}` : NO_DATA);
export const ratio = (numerator, denominator) => (denominator > 0 ? numerator / denominator : NaN);
export const of = (numerator, denominator) => `${count(numerator)} of ${count(denominator)}`;

/** A length of time: "42 s", "4 min", "1 h 18 min", "3 d"; `exact` adds the seconds up to ten minutes: "1 min 05 s". */
export function lasting(milliseconds, exact = false) {
  const s = Math.max(0, Math.floor(milliseconds / 1000));
  const m = Math.floor(s / 60), h = Math.floor(m / 60);
  if (s < 60) return `${s} s`;
  if (m < 10 && exact) return `${m} min ${String(s % 60).padStart(2, "0")} s`;
  if (h < 1) return `${m} min`;
  if (h < 10) return `${h} h ${m % 60} min`;
  return h < 72 ? `${h} h` : `${Math.floor(h / 24)} d`;
}

/** Local wall time, 24 h. */
export const clock = (at) => clockOf.format(new Date(at));
const utc = (at) => `${utcOf.format(new Date(at))} UTC`;

/** A <time> in local time, its day added when that is not today, UTC in its title; "no data" without one. */
export function moment(at, now) {
  const when = new Date(at ?? NaN);
  if (Number.isNaN(when.getTime())) return NO_DATA;
  const today = when.toDateString() === new Date(now).toDateString();
  const text = today ? clock(when) : `${dayOf.format(when)}, ${clock(when)}`;
  return el("time", { datetime: when.toISOString(), title: utc(when) }, text);
}

export const today = (now) => dayOf.format(new Date(now));

// Marks that turn the reading direction of what follows, control characters, and heaps of accents on one letter.
const plain = (text) => text.replace(/[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu, "\ufffd").replace(/(\p{M}{3})\p{M}+/gu, "$1");

/** A name that others chose: set apart from the text's direction, shortened in its middle, whole in its title. */
export function name(text, most = 120) {
  const letters = [...plain(String(text))];
  if (letters.length <= most) return el("bdi", { class: "name" }, letters.join(""));
  const half = Math.floor((most - 1) / 2);
  return el("bdi", { class: "name", title: letters.join("") }, `${letters.slice(0, half).join("")}…${letters.slice(-half).join("")}`);
}

const PLACES = [["ip", " from "], ["provider", " at "], ["domain", ", domain "], ["stream", ", stream "], ["region", ", region "]];
const OWNED = [["segment", "segment "], ["campaign", "campaign "], ["variant", "variant "]];

/** What a scope is in a sentence, as pieces: "Seller s07's segment lapsed", "203.0.113.8 at Gmail", "All mail". */
export function subject(scope, { begin = false, most } = {}) {
  const at = (text) => (begin ? text[0].toUpperCase() + text.slice(1) : text);
  const said = new Set();
  const take = (label) => (said.add(label), name(scope[label], most));
  const pieces = [];
  if (scope.tenant) {
    pieces.push(at("seller "), take("tenant"));
    let link = "'s ";
    for (const [label, word] of OWNED) if (scope[label]) pieces.push(link, word, take(label)), (link = ", ");
  } else if (scope.ip) pieces.push(take("ip"));
  else if (scope.provider) pieces.push(at("mail to "), take("provider"));
  else if (scope.domain) pieces.push(at("mail from domain "), take("domain"));
  else if (scope.stream) pieces.push(at("stream "), take("stream"));
  else if (scope.region) pieces.push(at("region "), take("region"));
  else return [at("all mail")];
  for (const [label, link] of PLACES) if (scope[label] && !said.has(label)) pieces.push(link, take(label));
  return pieces;
}

const LABELS = ["ip", "domain", "provider", "stream", "tenant", "segment", "campaign", "variant", "region"];
/** One string for each scope, whatever the order in which its labels came. */
export const keyOf = (scope) => JSON.stringify(LABELS.map((label) => scope?.[label] ?? ""));
export const called = (label) => (label === "tenant" ? "seller" : label);
/** Whether all mail of `inner` lies in `outer`; an empty label means any. */
export const covers = (outer, inner) => LABELS.every((label) => !outer[label] || outer[label] === inner[label]);
/** The labels of a scope, each as a chip. */
export const chips = (scope) => el("span", { class: "chips" }, LABELS.filter((label) => scope[label]).map((label) =>
  el("span", { class: label === "ip" ? "chip mono" : "chip" }, el("i", {}, called(label)), " ", name(scope[label]))));

// A rule's name begins with the rate that it watches.
const RATES = {
  bounce: { verb: ["bounces ", ""], past: ["bounced ", ""], did: "bounced", of: "bounced of finally decided", title: "Bounce rate" },
  deferral: { verb: ["has ", " deferred"], past: ["had ", " deferred"], did: "were deferred", of: "deferred of first attempts", title: "Deferral rate" },
  complaint: { verb: ["draws ", " complaints"], past: ["drew ", " complaints"], did: "were complained about", of: "complaints of delivered", title: "Complaint rate" },
  return: { verb: ["has ", " returned"], past: ["had ", " returned"], did: "came back after delivery", of: "returned of delivered", title: "Return rate" },
};
/** The words of a rate, by its name or by a rule's. */
export const rateOf = (rule) => RATES[String(rule).split("-")[0]] ?? { verb: ["is at ", ` by rule ${rule}`], past: ["was at ", ` by rule ${rule}`], did: "were bad", of: "bad of all", title: String(rule) };
