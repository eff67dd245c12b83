// Why mail is refused, by what the replies mean; and the replies that nobody has explained yet, so that somebody does.
import { el } from "./dom.js";
import { count, moment, name, percent, plural } from "./words.js";

const MOST = 10, TEMPLATES = 8, PROVIDERS = 3;
const empty = (text) => el("div", { class: "pad note" }, el("p", {}, text));
const SAID = {
  invalid_recipient: "No such recipient", inactive_mailbox: "Mailbox inactive", quota: "Mailbox full", bad_domain: "No such domain",
  dns_failure: "DNS failure", routing: "Routing", protocol: "Protocol", policy: "Policy", authentication: "Authentication",
  spam_content: "Spam: content", spam_block: "Spam: block", reputation_ip: "Reputation of the IP", reputation_domain: "Reputation of the domain",
  listed: "On a blocklist", rate_limited: "Rate limited", greylisted: "Greylisted", too_many_recipients: "Too many recipients",
  message_too_large: "Message too large", expired: "Given up", sender_invalid: "Sender refused", tls: "TLS", transient: "Passing trouble",
  held: "Held by Mailvane", other: "Not understood",
};

/** "listed:pbl" as people say it. */
function said(reason) {
  if (reason === null) return "No reply told";
  const [kind, list] = reason.split(":");
  return [SAID[kind] ?? name(kind, 40), list && (list === "doubtful" ? ", in doubt" : [": ", name(list, 60)])];
}

export function refusals(view) {
  if (!view.classes) return { body: null };
  if (!view.classes.length) return { note: "", body: empty("No mail was refused in the last hour, as far as is known.") };
  const reasons = grouped(view.classes);
  const all = reasons.reduce((sum, { total }) => sum + total, 0);
  const shown = reasons.slice(0, MOST);
  const head = el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Why"), el("th", { scope: "col" }, "Where"), el("th", { scope: "col", class: "num" }, "Refusals"), el("th", { scope: "col", class: "num" }, "Share")));
  return {
    note: el("span", {}, "60 min to ", moment(view.complete && view.complete * 1000, view.now), reasons.length > MOST && `; ${MOST} of ${count(reasons.length)} reasons shown`),
    body: [el("table", { class: "table tight cards" }, el("caption", { class: "vh" }, "Deferrals, bounces and expiries by what the replies mean"), head, el("tbody", {}, shown.map((one) => row(one, all)))), unknown(view)],
  };
}

function grouped(classes) {
  const found = new Map();
  for (const one of classes) {
    const here = found.get(one.class) ?? { reason: one.class, total: 0, at: new Map() };
    here.total += one.count;
    here.at.set(one.provider, (here.at.get(one.provider) ?? 0) + one.count);
    found.set(one.class, here);
  }
  return [...found.values()].sort((a, b) => b.total - a.total);
}

function row({ reason, total, at }, all) {
  const first = [...at].sort(([, a], [, b]) => b - a);
  const where = first.slice(0, PROVIDERS).map(([provider, n], place) => [place > 0 && ", ", name(provider ?? "unknown provider", 40), ` ${count(n)}`]);
  return el("tr", { "data-key": `why-${reason}` }, el("td", { class: "first" }, el("b", {}, said(reason))),
    el("td", {}, where, first.length > PROVIDERS && `, ${plural(first.length - PROVIDERS, "other")}`),
    el("td", { class: "num" }, count(total)), el("td", { class: "num of" }, percent(total / all)));
}

function unknown({ unknown: told }) {
  if (!told) return false;
  if (!told.count) return empty("Every reply of the last day was understood.");
  return el("details", { class: "pad note", "data-key": "unknown" },
    el("summary", {}, `${plural(told.count, "refusal")} of the last day not understood, in ${plural(told.clusters.length, "form")}`),
    el("ul", {}, told.clusters.slice(0, TEMPLATES).map(({ template, count: n, examples }) =>
      el("li", { "data-key": `form-${template}` }, `${count(n)} × `, el("code", { title: examples[0] ?? "" }, name(template, 300))))));
}
