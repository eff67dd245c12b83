// May this mail go? Keeps the leases by long-poll, so that mail which none of them covers costs no question at all.
// The gate is asked about the rest: it knows which of several leases decides, and who passes a throttle.
//
//   import { Brake } from "./check.mjs";
//   const brake = new Brake("http://127.0.0.1:8026");
//   await brake.ready;
//   const answer = await brake.held({ tenant: "s07", segment: "lapsed", stream: "marketing", key: messageId });
//   if (answer) keep(message, Math.min(answer.ttl, 60)); else send(message);
//
// By hand: node check.mjs tenant=s07 segment=lapsed; it ends with 0: send, or with 75: held. Needs Node 20.3 or newer.

import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const PATIENCE = 200; // milliseconds; no answer in time means send
const WAIT = 30; // seconds of one long-poll
const LARGEST = 16 << 20; // characters of a set

export class Brake {
  #gate;
  #known;
  #leases = [];
  #generation = null;
  #over = new AbortController();

  /** `key`: of the gate's, with the scope check. */
  constructor(gate = "http://127.0.0.1:8026", key = process.env.MAILVANE_KEY ?? "") {
    this.#gate = gate;
    this.#known = key ? { Authorization: `Bearer ${key}` } : {};
    this.ready = new Promise((heard) => this.#listen(heard));
  }

  close() {
    this.#over.abort();
  }

  /** The gate's answer where it holds such mail, else null. Also null when it gives no answer in time: then send. */
  async held({ key = "", ...labels }) {
    const now = performance.now();
    if (!this.#leases.some(({ scope, ends }) => ends > now && covers(scope, labels))) return null;
    try {
      const question = new URLSearchParams({ ...labels, key });
      const patience = { headers: this.#known, signal: AbortSignal.timeout(PATIENCE) };
      const response = await fetch(`${this.#gate}/v1/check?${question}`, patience);
      const answer = await response.json();
      return answer.answer === "held" ? answer : null;
    } catch {
      return null;
    }
  }

  async #listen(heard) {
    while (!this.#over.signal.aborted) {
      try {
        await this.#poll();
        heard();
        await sleep(100); // no storm, whatever stands between us and the gate
      } catch {
        await sleep(500 + 1000 * Math.random());
      }
    }
  }

  async #poll() {
    const known = this.#generation;
    const [path, headers] =
      known === null ? ["/v1/leases", {}] : [`/v1/leases?wait=${WAIT}`, { "If-None-Match": `"${known}"` }];
    const signal = AbortSignal.any([this.#over.signal, AbortSignal.timeout((WAIT + 10) * 1000)]);
    const response = await fetch(this.#gate + path, { headers: { ...headers, ...this.#known }, signal });
    if (response.status === 304) return;
    if (!response.ok) throw new Error(`the gate answered ${response.status}`);
    const { generation, leases } = JSON.parse(await bounded(response));
    // By our own monotonic clock: a lease ends although the gate may never answer again.
    const now = performance.now();
    this.#leases = leases.map(({ scope, ttl }) => ({ scope: Object.entries(scope), ends: now + 1000 * ttl }));
    this.#generation = generation;
  }
}

// Each label that the lease names equals the message's.
function covers(scope, labels) {
  return scope.every(([label, value]) => labels[label] === value);
}

async function bounded(response) {
  const decoder = new TextDecoder();
  let text = "";
  for await (const piece of response.body) {
    text += decoder.decode(piece, { stream: true });
    if (text.length > LARGEST) throw new Error("too large an answer");
  }
  return text;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const brake = new Brake(process.env.MAILVANE_GATE);
  await Promise.race([brake.ready, sleep(PATIENCE)]);
  const answer = await brake.held(
    Object.fromEntries(process.argv.slice(2).map((word) => [word.split("=", 1)[0], word.slice(word.indexOf("=") + 1)])),
  );
  if (answer) console.log(JSON.stringify(answer));
  brake.close();
  process.exit(answer ? 75 : 0);
}
