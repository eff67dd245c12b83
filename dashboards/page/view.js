// What the answers of the API mean at this moment: no elements here, and no clock.
import { covers, keyOf, ratio } from "./words.js";

const MINUTE = 60;
const RECENT = 5; // minutes, as the window of the rules and as the counts of v1/status
const HOLDS = new Set(["pause", "throttle", "reroute"]);

/** All that the panels read, from the newest answer of each feed; an answer that never came is null. */
export function viewOf(answers, now, rate) {
  const { status, incidents, lately, leases, actions, volume, flow, sellers, fleet, classes, unknown } = answers;
  const inForce = leases?.leases?.filter((lease) => Date.parse(lease.until) > now) ?? null;
  const view = {
    now, rate, status,
    incidents: incidents?.incidents ?? null,
    lately: lately?.incidents ?? [],
    leases: inForce,
    actions: actions?.actions ?? null,
    volume: volume?.points ?? null,
    step: volume?.step ?? MINUTE,
    flow: flow?.series?.[0] ?? null,
    sellers: sellers?.series ?? null,
    fleet: fleet?.series ?? null,
    classes: classes?.classes ?? null,
    unknown: unknown ?? null,
    complete: status?.complete_to ? Date.parse(status.complete_to) / 1000 : null,
  };
  view.minutes = new Set((view.volume ?? []).map(([at]) => at));
  view.incidents = view.incidents?.toSorted((a, b) => rank(a, view) - rank(b, view) || Date.parse(b.opened_at) - Date.parse(a.opened_at)) ?? null;
  view.top = view.sellers && pressing(view);
  return view;
}

const MOST = 12;
const urgency = (series, view) => (burning(series.scope, view) ? 0 : held(series.scope, view) ? 1 : 2);
// The API puts most mail first; what burns or is held is not left out for being small. The sort keeps that order.
const pressing = (view) => view.sellers.toSorted((a, b) => urgency(a, view) - urgency(b, view)).slice(0, MOST);

// What needs a person first: pause grade and not contained, then contained, then what is only told.
const rank = (incident, view) => (incident.grade !== "pause" ? 2 : containing(incident, view) ? 1 : 0);

export const holds = (lease) => HOLDS.has(lease.deed);

/** The lease in force that an incident led to, or that a person set over its scope. */
export const containing = (incident, { leases }) =>
  leases?.find((lease) => holds(lease) && (lease.incident === incident.id || covers(lease.scope, incident.scope)));

/** Why automation left it alone, if its last deed for the incident is a refusal. */
export function refusal(incident) {
  const last = (incident.actions ?? []).toSorted((a, b) => (b.seq ?? 0) - (a.seq ?? 0))[0];
  return last?.deed === "refuse" ? last : undefined;
}

/** The pause, throttle or reroute of an incident that is over, where nothing holds it now. */
export const ended = (incident, { now }) =>
  (incident.actions ?? []).filter((action) => HOLDS.has(action.deed) && Date.parse(action.until) <= now).at(-1);

/** The open incident whose scope has all of this one. */
export const burning = (scope, { incidents }) => incidents?.find((incident) => covers(incident.scope, scope));
// Receipts are protected, so that a pause names the stream: a series without one is held all the same.
const anyStream = (scope) => ({ ...scope, stream: "" });
/** The lease that holds this scope. */
export const held = (scope, { leases }) => leases?.find((lease) => holds(lease) && covers(anyStream(lease.scope), scope));
/** The stretches, as seconds from and until, in which the scope was or is held, as far as the newest actions tell. */
export function pauses(scope, view) {
  const here = (one) => HOLDS.has(one.deed) && one.until && covers(anyStream(one.scope), scope);
  const actions = view.actions ?? [];
  const resumed = new Map(actions.filter(({ lease }) => lease).map(({ lease, at }) => [lease, at]));
  const known = new Map(actions.filter(here).map(({ id, at, until }) => [id, [at, resumed.get(id) ?? until]]));
  for (const { id, since, until } of (view.leases ?? []).filter(here)) known.set(id, [since, until]); // a lease bears its action's id
  return [...known.values()].map((times) => times.map((at) => Date.parse(at) / 1000));
}

/** The lease that holds a part of a seller's segment, such as one campaign. */
export const partly = ({ tenant, segment }, { leases }) =>
  leases?.find((lease) => holds(lease) && tenant && lease.scope.tenant === tenant && (!lease.scope.segment || lease.scope.segment === segment));

/** The same, where it is about the rate that is shown. */
export const burningHere = (scope, view) => {
  const incident = burning(scope, view);
  return incident && about(incident, view) ? incident : undefined;
};
/** Whether an incident is about the rate that is shown: a rule's name begins with its rate. */
export const about = (incident, { rate }) => String(incident.rule).split("-")[0] === rate;

/** Whether a rule of some grade is broken at an (ip, provider), and whether part of that mail is held there. */
export function cellState(scope, { incidents, leases }) {
  const place = ({ ip, provider }) => ({ ip, provider });
  const here = (other) => (other.ip || other.provider) && !other.tenant && covers(place(other), scope);
  const grades = (incidents ?? []).filter((incident) => here(incident.scope)).map((incident) => incident.grade);
  return {
    grade: grades.includes("pause") ? "pause" : grades[0],
    held: (leases ?? []).some((lease) => holds(lease) && here(lease.scope)),
  };
}

/** The points that a line is drawn through: the running minute only once it says something. */
export const drawable = ({ points }, { now, step }) => points.filter(([at, , total]) => total > 0 && (at + step <= now / 1000 || total >= 20));

/** A series over the five minutes up to the watermark: its numbers and rate; or why there is none, "no mail" or "no data". */
export function recent(series, view) {
  if (view.complete === null) return { state: "no data" };
  const newest = Math.floor(view.complete / MINUTE) * MINUTE;
  const within = (at) => at > newest - RECENT * MINUTE && at <= newest;
  let numerator = 0, denominator = 0;
  for (const [at, bad, total] of series.points) if (within(at)) (numerator += bad), (denominator += total);
  if (denominator) return { state: "rate", numerator, denominator, rate: ratio(numerator, denominator) };
  return { state: [...view.minutes].some(within) ? "no mail" : "no data" };
}

/** Every series that can be put in front, by the key of its scope. */
export const everySeries = ({ flow, sellers, fleet }) =>
  new Map([...(fleet ?? []), ...(sellers ?? []), ...(flow ? [flow] : [])].map((series) => [keyOf(series.scope), series]));

/** The series that the reader chose, else that of what burns worst, else all mail; null where nothing is known. */
export function front(view, chosen) {
  const series = everySeries(view);
  if (chosen && series.has(chosen)) return series.get(chosen);
  const worst = view.incidents?.map((incident) => series.get(keyOf(incident.scope))).find(Boolean);
  return worst ?? view.flow;
}

/** Seconds from and to that the charts show: from the first mail, at least six minutes, to the end of this minute. */
export function extent(view) {
  const until = (Math.floor(view.now / 1000 / MINUTE) + 1) * MINUTE;
  const first = view.volume?.length ? view.volume[0][0] : until;
  return [Math.max(until - 30 * MINUTE, Math.min(first - MINUTE, until - 6 * MINUTE)), until];
}

/** The stretches of which nothing is known: minutes without any mail reported, and what is past the watermark. */
export function unknown(view) {
  const [from, until] = extent(view);
  const now = view.now / 1000;
  const stretches = [];
  const add = (a, b) => {
    const last = stretches.at(-1);
    if (b <= a) return;
    if (last && last[1] >= a) last[1] = Math.max(last[1], b);
    else stretches.push([a, b]);
  };
  const complete = view.complete ?? from;
  for (let at = from; at < until && at < now; at += MINUTE) {
    if (!view.minutes.has(at) && at + MINUTE <= now) add(at, at + MINUTE);
    else if (complete < Math.min(at + MINUTE, now)) add(Math.max(at, complete), Math.min(at + MINUTE, now));
  }
  // A live source is always a few seconds behind: a sliver of hatching would only flicker.
  return stretches.filter(([a, b]) => b - a >= 15);
}
