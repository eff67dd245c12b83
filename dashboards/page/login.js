// Signs a person in, by a password or at the identity provider, and goes on to the page that was wanted.
import { el, mark, show } from "./dom.js";

const PATIENCE = 15_000;
const $ = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);

/** The page that was wanted, if it is one of ours: nobody is led elsewhere by a link to this one. */
function wanted() {
  const text = asked.get("next") ?? "/";
  try {
    const url = new URL(text, location.origin);
    const ours = text.startsWith("/") && url.origin === location.origin && url.pathname !== location.pathname;
    return ours ? url.href : `${location.origin}/`;
  } catch {
    return `${location.origin}/`;
  }
}

// ── What can go wrong at the identity provider: what happened, and what to do
const BEGIN = "Begin again.";
const WHY = {
  unreachable: "The identity provider does not answer. Try again in a minute; in need, sign in by the break-glass account below.",
  expired: `That way to sign in is over: it took longer than 10 minutes, began in another window, or was gone before. ${BEGIN}`,
  denied: `The identity provider did not let you in, or you turned back. ${BEGIN}`,
  invalid: "What the identity provider said can’t be trusted, so nobody was signed in. An admin finds the reason in the log.",
  role: "You are in no group that has a role here. Ask an admin which group that is.",
  domain: "Your address is not verified, or not of a domain that may come in. Ask an admin.",
  name: "The identity provider does not say what you are called. Ask an admin: access.oidc.name says where to look.",
  taken: "Somebody else has your name here. Ask an admin.",
  disabled: "Your account is disabled. Ask an admin.",
  busy: "Others are signing in. Try again in a moment.",
};

function trouble(kind, icon, ...words) {
  show($("trouble"), words.length > 0 && el("p", { class: `trouble ${kind}` }, mark(icon), el("span", {}, ...words)));
}
const bad = (...words) => trouble("bad", "error", ...words);

/** "at 10:46, in 4 min": the time is told, since what is left would be wrong a moment later. */
function waits(seconds) {
  const at = new Date(Date.now() + seconds * 1000);
  const shown = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
  const left = seconds < 90 ? `${seconds} s` : `${Math.ceil(seconds / 60)} min`;
  trouble("warn", "late", "Too many tries from here. Try again at ", el("time", { datetime: at.toISOString() }, shown), `, in ${left}. From elsewhere you can sign in now.`);
}

// ── Signing in
const ask = (path, options = {}) => fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE), ...options });

function wrongField(id) {
  for (const field of [$("name"), $("password")]) field.removeAttribute("aria-invalid");
  if (!id) return;
  $(id).setAttribute("aria-invalid", "true");
  $(id).focus();
}

let busy = false;
function under(way) {
  busy = way;
  $("go").setAttribute("aria-disabled", String(way));
  $("go").textContent = way ? "Signing in…" : "Sign in";
}

async function signIn(again = true) {
  const body = JSON.stringify({ name: $("name").value.trim(), password: $("password").value });
  const reply = await ask("v1/session", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (reply.ok) return location.replace(wanted());
  const seconds = Number(reply.headers.get("Retry-After")) || 60;
  if (reply.status === 429 && seconds <= 2 && again) {
    await new Promise((done) => setTimeout(done, seconds * 1000));
    return signIn(false);
  }
  if (reply.status === 429) return seconds <= 2 ? bad(WHY.busy) : waits(seconds);
  if (reply.status === 403) return location.reload(); // signed in meanwhile, in another window
  bad(reply.status === 401 ? "No such name, or another password." : `Mailvane could not sign you in: it said ${reply.status}.`);
  $("password").select();
  wrongField("password");
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (busy) return;
  const empty = ["name", "password"].find((id) => !$(id).value.trim());
  if (empty) {
    bad(empty === "name" ? "Write your name." : "Write your password.");
    return wrongField(empty);
  }
  wrongField();
  trouble();
  under(true);
  try {
    await signIn();
  } catch (problem) {
    bad("Mailvane does not answer. Is ", el("code", {}, "mailvane run"), " still running? Try again.");
    console.info(problem.name);
  } finally {
    under(false);
  }
});

$("reveal").addEventListener("click", () => {
  const shown = $("password").type === "password";
  $("password").type = shown ? "text" : "password";
  $("reveal").setAttribute("aria-pressed", String(shown));
  $("reveal").textContent = shown ? "Hide password" : "Show password";
});

// ── What there is to choose
function offer({ local, oidc }) {
  $("provider").hidden = !oidc;
  if (oidc) {
    $("abroad").textContent = `Sign in with ${oidc.label}`;
    // Built here and not told by anybody: the rest of the link is data.
    $("abroad").search = new URLSearchParams({ next: wanted().slice(location.origin.length) }).toString();
  }
  $("by-password-is").hidden = !oidc;
  $("by-password-is").textContent = local ? "Sign in by password" : "Break-glass account";
  $("glass").hidden = local;
  $("forgot").hidden = !local;
  $("by-password").open = !oidc || asked.get("why") === "unreachable";
  if (document.activeElement === document.body) $(oidc ? "abroad" : "name").focus();
}

async function begin() {
  const why = asked.get("why");
  if (why === "locked") waits(Math.min(Number(asked.get("seconds")) || 60, 3600));
  else if (Object.hasOwn(WHY, why ?? "")) bad(WHY[why]);
  try {
    const reply = await ask("v1/session/ways");
    if (!reply.ok) throw new Error(`It said ${reply.status}`);
    const ways = await reply.json();
    // A link from elsewhere comes without the cookie, which the browser has nonetheless.
    if (ways.person) return location.replace(wanted());
    offer(ways);
  } catch {
    bad("Mailvane does not answer. Is ", el("code", {}, "mailvane run"), " still running? Load the page again.");
  }
  $("main").setAttribute("aria-busy", "false");
}

try {
  const theme = localStorage.getItem("mailvane-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // storage is blocked: the system decides
}
begin();
