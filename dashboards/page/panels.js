// On fire, paused, sources, and what was done: each panel as { note, body, foot }.
import { el, mark, tag } from "./dom.js";
import { complaint, hold } from "./headline.js";
import { highest, spark } from "./spark.js";
import { about, containing, ended, everySeries, holds, refusal } from "./view.js";
import { chips, count, keyOf, lasting, moment, name, of, percent, plural, range, subject, tick } from "./words.js";

const empty = (...words) => el("div", { class: "pad note stack" }, words.map((line) => el("p", {}, line)));
const code = (text) => el("code", {}, text);

// ── On fire
export function fires(view) {
  if (!view.incidents) return { body: null };
  const open = view.incidents;
  const all = view.status?.sources ?? [];
  const calm = !all.some(({ watermark }) => watermark) ? empty("Nothing is known yet, so nothing can be seen burning.")
    : all.some(({ state }) => state !== "fresh") ? empty(["Nothing was on fire at ", moment(view.status.complete_to, view.now), ". What came later is not all known: see Sources."])
    : view.status.demo
    ? empty("Nothing is on fire yet.", "This is the demo: within two minutes a seller mails a bought list. It opens here, its segment is paused, and is let go again.")
    : empty("Nothing is on fire. A rule that breaks its limit opens an incident here.");
  return {
    note: open.length ? `${plural(open.length, "incident")} open` : "",
    body: open.length ? el("ul", { class: "fires" }, open.map((incident) => fire(incident, view))) : calm,
    foot: lately(view),
  };
}

function fire(incident, view) {
  const { evidence, scope, grade } = incident;
  const series = about(incident, view) && everySeries(view).get(keyOf(scope));
  const blind = evidence.state === "no data";
  return el("li", { class: "bad", "data-key": `incident-${incident.id}` },
    el("span", { class: "m" }, mark("bad", "", `On fire, ${grade} grade`)),
    el("div", { class: "say-it" }, el("b", {}, complaint(incident, view.now)), el("p", {}, done(incident, view)), shares(evidence)),
    series ? spark(series, view, { top: highest([series]), limit: evidence.expected }) : el("span", { class: "spark" }),
    el("div", { class: blind ? "fig nodata" : "fig" }, el("b", { class: blind ? "none-t" : "bad-t" }, blind ? "no data" : percent(evidence.rate)),
      el("span", {}, of(evidence.numerator, evidence.denominator)), el("br"), el("span", {}, `tolerated ${tick(evidence.expected)}`), el("br"),
      el("span", {}, `95${"\u202f"}% sure: ${range(evidence.lower, evidence.upper)}`)),
    el("div", { class: "who" }, chips(scope),
      el("span", {}, `#${incident.id}, rule `, name(incident.rule), ", ", grade, " grade, open since ", moment(incident.opened_at, view.now), ` (${lasting(view.now - Date.parse(incident.opened_at))}), seen `,
        moment(evidence.since, view.now), "–", moment(evidence.until, view.now))));
}

function done(incident, view) {
  const lease = containing(incident, view);
  if (lease) {
    const [first, ...rest] = hold(lease, view.now);
    return [lease.who === "automation" ? "Automation: " : [name(lease.who, 40), ": "], first, ...rest, `, ${lasting(Date.parse(lease.until) - view.now, true)} left.`];
  }
  const no = refusal(incident);
  if (no) return ["Not paused: ", name(no.why, 300), "."];
  const over = ended(incident, view);
  if (over) return ["Its pause ended at ", moment(over.until, view.now), "; a new one takes new evidence."];
  return incident.grade === "pause" ? "Nothing is paused for it." : "Told, not paused: below the pause grade.";
}

const shares = ({ shares: parts }) => parts?.length > 0 && el("p", {}, parts.slice(0, 3).map(([who, share], i) => [i > 0 && ", ", i > 0 ? "seller " : "Seller ", name(who, 40), ` explains ${percent(share)}`]), " of the excess.");

function lately(view) {
  const over = view.lately.filter((incident) => incident.resolved_at).slice(0, 3);
  return over.length > 0 && over.map((incident) => el("span", { "data-key": `over-${incident.id}` }, mark("ok", "s muted"), " ", moment(incident.resolved_at, view.now), ` resolved #${incident.id}: `, subject(incident.scope, { most: 40 })));
}

// ── Paused now
export function paused(view, ui) {
  if (!view.leases) return { body: null };
  const leases = view.leases.toSorted((a, b) => Date.parse(a.until) - Date.parse(b.until));
  const holding = leases.filter(holds).length;
  const share = view.status?.held_share;
  const none = empty("Nothing is paused.", ["By hand: ", code("mailvane pause SCOPE --for 60m --why …")]);
  return {
    note: leases.length > holding ? `${plural(leases.length - holding, "allow")} beside` : "",
    body: leases.length ? el("ul", { class: "items" }, leases.map((lease) => leaseRow(lease, view, ui))) : none,
    foot: leases.length > 0 && el("span", {}, share == null ? "The share of mail held back is not known." : `${percent(share)} of the expected mail is held back.`),
  };
}

const DEEDS = { pause: ["pause", "Pause"], throttle: ["throttle", "Throttle"], reroute: ["throttle", "Reroute"], allow: ["key", "Allow"] };

function leaseRow(lease, view, ui) {
  const end = Date.parse(lease.until), begin = Date.parse(lease.since);
  const [icon, word] = DEEDS[lease.deed] ?? ["pause", lease.deed];
  const left = Math.max(0, end - view.now);
  const over = Math.min(100, Math.max(0, Math.round(((view.now - begin) / (end - begin)) * 100)));
  const what = { throttle: `, to ${percent(lease.share)}`, reroute: [", to pool ", name(lease.pool, 40)], allow: ", not to be paused" }[lease.deed];
  return el("li", { "data-key": `lease-${lease.id}`, class: holds(lease) ? "held" : "allowed" },
    el("span", { class: "m" }, mark(icon, holds(lease) ? "pause" : "muted", word)),
    el("b", {}, subject(lease.scope, { begin: true })), el("span", { class: "end" }, el("span", { "data-left": "" }, lasting(left, true)), " left"),
    el("p", {}, lease.who === "automation" ? "Automation" : name(lease.who, 40), what, ", ", moment(lease.since, view.now), "–", moment(lease.until, view.now), lease.incident > 0 && `, #${lease.incident}`),
    lease.why && el("p", { class: "why" }, name(lease.why, 300)),
    el("svg", { class: "lease", role: "img", "aria-label": `${over} % of the lease is over` },
      el("rect", { class: "all", x: 0.5, y: 0.5, width: "99.7%", height: 5, rx: 2.5 }), el("rect", { class: "done", width: `${over}%`, height: 6, rx: 3 })),
    command(`mailvane resume ${quoted(lease.id)}`, ui));
}

// The id goes into a person's shell: anything but plain letters is quoted.
const quoted = (id) => (/^[\w@:.+,-]+$/.test(id) ? id : `'${String(id).replaceAll("'", `'\\''`)}'`);

const command = (line, ui) => el("p", { class: "undo" }, code(line), el("span", { class: "vh" }, " ends it. "),
  el("button", { class: "btn quiet small", type: "button", "data-act": "copy", "data-copy": line, "aria-label": `Copy ${line}` }, ui.copied === line ? "Copied" : "Copy"));

// ── Sources
const STATES = { fresh: ["ok", "ok", "fresh"], stale: ["warn", "late", "stale"], error: ["bad", "error", "error"] };

export function sources(view) {
  const all = view.status?.sources;
  if (!all) return { body: null };
  const worst = ["error", "no data", "stale", "fresh"];
  const listed = all.toSorted((a, b) => worst.indexOf(a.state) - worst.indexOf(b.state) || a.name.localeCompare(b.name));
  const none = [empty("No source is connected. Without the send log there are counts but no rates:"),
    el("pre", {}, '# mailvane.toml\n[collector.sends]\nkind = "sendlog"'), empty(["Then ", code("mailvane check"), " tells every mistake at once, with its remedy."])];
  const failing = [...listed.map((source) => sourceRow(source, view)), ...others(view)];
  return { note: listed.length ? `${listed.filter(({ state }) => state === "fresh").length} of ${listed.length} fresh` : "", body: [!listed.length && none, failing.length > 0 && el("ul", { class: "items" }, failing)] };
}

// What tells people or dispatchers, where it fails; sources tell their own errors.
function others({ status }) {
  const broken = Object.entries(status.errors ?? {}).filter(([plugin]) => !plugin.startsWith("collector."));
  const rows = broken.map(([plugin, why]) => el("li", { class: "bad", "data-key": `plugin-${plugin}` }, el("span", { class: "m" }, mark("error")), el("b", {}, name(plugin, 60)), el("span", { class: "end bad-t" }, "error"), el("p", { class: "why" }, name(why, 300))));
  const owed = status.notices_owed > 0 && el("li", { class: "warn", "data-key": "owed" }, el("span", { class: "m" }, mark("late")), el("b", {}, "Notices"), el("span", { class: "end warn-t" }, "late"), el("p", {}, `${plural(status.notices_owed, "message")} not delivered yet; tried again until it is.`));
  return owed ? [...rows, owed] : rows;
}

function sourceRow(source, view) {
  const [kind, icon, word] = STATES[source.state] ?? ["none", "none", "no data"];
  const behind = source.watermark && view.now - Date.parse(source.watermark);
  const complete = source.watermark ? ["complete to ", moment(source.watermark, view.now), `, ${lasting(behind)} behind`] : "has told nothing yet";
  const heard = source.seen_at ? ["; heard of at ", moment(source.seen_at, view.now)] : "; never heard of";
  return el("li", { class: kind, "data-key": `source-${source.name}-${source.node}` },
    el("span", { class: "m" }, mark(icon)), el("b", {}, name(source.name)), el("span", { class: `end ${kind}-t` }, kind === "none" ? el("span", { class: "nodata" }, el("span", { class: "onhatch" }, word)) : word),
    el("p", {}, name(source.kind, 40), source.node && [" on ", name(source.node, 60)], ", ", complete, source.state === "fresh" ? "" : heard, "."),
    source.error && el("p", { class: "why" }, name(source.error, 300)));
}

// ── What automation did
const SHOWN = 7;

export function did(view) {
  if (!view.actions) return { body: null };
  const entries = together(view.actions);
  if (!entries.length) return { note: "", body: empty(view.status?.mode === "dry-run" ? "Nothing yet. In dry run it writes here what it would pause, and pauses nothing." : "Nothing yet. Each pause, and each refusal with its reason, is written here.") };
  const line = (entry) => deedRow(entry, view);
  const more = entries.length > SHOWN && el("details", { class: "more", "data-key": "earlier" }, el("summary", {}, `${count(entries.length - SHOWN)} earlier`), el("ol", { class: "timeline" }, entries.slice(SHOWN).map(line)));
  return { note: "newest first", body: [el("ol", { class: "timeline" }, entries.slice(0, SHOWN).map(line)), more] };
}

// The same refusal each minute is one line that says how often.
function together(actions) {
  const entries = [];
  for (const action of actions) {
    const last = entries.at(-1);
    const same = last && action.deed === "refuse" && last.deed === "refuse" && last.why === action.why && keyOf(last.scope) === keyOf(action.scope);
    if (same) (last.times += 1), (last.first = action.at);
    else entries.push({ ...action, times: 1, first: action.at });
  }
  return entries;
}

const SAID = { pause: "paused", throttle: "throttled", reroute: "rerouted", allow: "allowed", resume: "resumed", refuse: "did not pause" };

function deedRow(action, view) {
  const person = action.who !== "automation";
  const said = SAID[action.deed] ?? action.deed;
  const icon = { refuse: ["refuse", "muted"], resume: ["ok", "ok"], allow: ["key", "muted"], throttle: ["throttle", "pause"] }[action.deed] ?? ["pause", "pause"];
  const sentence = [person ? [name(action.who, 40), ` ${said} `] : `${said[0].toUpperCase()}${said.slice(1)} `, subject(action.scope), action.deed === "throttle" && ` to ${percent(action.share)}`, action.until && [" until ", moment(action.until, view.now)]];
  return el("li", { "data-key": `action-${action.seq}` }, moment(action.at, view.now), el("span", {}, mark(...icon)),
    el("span", {}, sentence, action.times > 1 && `, ${action.times} times since `, action.times > 1 && moment(action.first, view.now),
      el("span", { class: "sub" }, action.incident > 0 && `#${action.incident}`, action.incident > 0 && action.why && ": ", action.why && name(action.why, 300))));
}

/** The error of one panel: its content stays, and this says how old it is. */
export const failed = (feed, now) => [tag("bad", "error", "not answered since ", moment(feed.failing, now)), el("span", { class: "meta" }, ` ${feed.why}. Shown is from `, moment(feed.at, now), ". It tries again by itself.")];

