// Whether and when to come back after a connection ended (docs/protocol.md, "When the connection closes").
// Pure: the feed says how it ended and how long it lived, and brings the randomness. Held to
// `schemas/vectors/client.json` like the Rust client.

/** Exponential backoff with full jitter: a random part of a ceiling that doubles. Milliseconds. */
const USUAL = { floor: 0, base: 500, cap: 30_000 };

/** After the node said that it has too much to do: everybody else was told the same. */
const OVERLOAD = { floor: 1_000, base: 5_000, cap: 60_000 };

/** After the node closed for abuse: coming back soon would be more of it. */
const ABUSE = { floor: 30_000, base: 60_000, cap: 600_000 };

/** A hint longer than this is a mistake, not a plan. */
const HINT_MAX_MS = 600_000;

/** A connection that lived this long was a good one: the next loss begins with short waits again. */
const STABLE_AFTER_MS = 30_000;

/**
 * A connection that lived this long and was then lost without a word from the node: the node, or the way to
 * it, has died, and others are well.
 */
const SERVED_AFTER_MS = 1_000;

/** What a browser says when the node said nothing. */
const LOST = [undefined, 1005, 1006];

/** Doubling stops here; every ceiling has reached its cap long before. */
const DOUBLINGS_MAX = 16;

export class Policy {
  #attempt = 0;
  #hint;

  /** A `disconnect_notice` came; its `retry_after_ms`, if any, counts for the end that follows. */
  onNotice(retryAfterMs) {
    this.#hint = retryAfterMs;
  }

  /**
   * Decides after an end: `{code}` of a close frame, `{status, retryAfterMs}` of a refused handshake (which
   * a browser never tells), or `{}`. Answers `{wait_ms}` or `{stop: why}`.
   */
  next(ended, livedMs, random) {
    const hint = this.#hint;
    this.#hint = undefined;
    const lost = ended.status === undefined && LOST.includes(ended.code);
    if (livedMs >= (lost ? SERVED_AFTER_MS : STABLE_AFTER_MS)) this.#attempt = 0;
    const attempt = this.#attempt;
    this.#attempt += 1;
    if (ended.status !== undefined) return afterRefusal(ended.status, attempt, random, ended.retryAfterMs);
    return afterClose(ended.code, attempt, random, hint);
  }
}

function afterClose(code, attempt, random, hint) {
  switch (code) {
    case 1000:
      return { stop: 'normal' };
    case 1002:
    case 1003:
    case 1007:
    case 1009:
      return { stop: 'protocol' };
    case 1008:
      return wait(ABUSE, attempt, random, hint);
    case 1012:
      // A draining node spreads its clients over time: the hint is this client's own slot.
      return hint === undefined ? wait(USUAL, attempt, random) : { wait_ms: Math.min(hint, HINT_MAX_MS) };
    case 1013:
      return wait(OVERLOAD, attempt, random, hint);
    case 4401:
      return { stop: 'credential' };
    case 4403:
      return { stop: 'forbidden' };
    case 4408:
      // The node was well; only this connection had gone quiet.
      return attempt === 0 ? { wait_ms: Math.min(hint ?? 0, HINT_MAX_MS) } : wait(USUAL, attempt, random, hint);
    default:
      return wait(USUAL, attempt, random, hint);
  }
}

function afterRefusal(status, attempt, random, retryAfterMs) {
  if (status === 401) return { stop: 'credential' };
  if (status === 403) return { stop: 'forbidden' };
  if (status === 429 || status === 503) return wait(OVERLOAD, attempt, random, retryAfterMs);
  if (status === 408 || (status >= 500 && status <= 599)) return wait(USUAL, attempt, random, retryAfterMs);
  return { stop: 'refused' };
}

/** The jittered wait, but never less than the node asked for. */
function wait({ floor, base, cap }, attempt, random, hint = 0) {
  const ceiling = Math.min(base * 2 ** Math.min(attempt, DOUBLINGS_MAX), cap);
  return { wait_ms: Math.max(floor + (ceiling - floor) * random, Math.min(hint, HINT_MAX_MS)) };
}
