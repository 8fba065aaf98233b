// What a node must never do to a client, frame by frame and at the end of a connection (docs/protocol.md). Pure,
// without k6. What the frames of one subscription must be to each other is `model.mjs`'s.

/** Everything that makes a load run fail at once, by the name under which it is counted. */
export const REASONS = {
  no_correlation_id: 'a frame without a valid correlation_id',
  no_timestamp: 'a frame without a timestamp',
  bad_shape: 'a frame that the schema does not allow, or no JSON',
  bad_order: 'a frame at a time at which it cannot come',
  unexpected_error: 'an error or data_error that nothing had asked for',
  wrong_close: 'a connection closed without the notice and code that the contract has for it',
  silent_gap: 'publications missing that no coalesced, replay or snapshot explains',
  lost_publication: 'an acknowledged publication that is not in the log, although the log has no hole',
  wrong_correlation_id: 'a publication that does not carry the id of its publisher',
  rate_limit: 'the rate limit is not as documented',
  no_answer: 'a ping or a close that was not answered in time',
  publish_failed: 'a publication that was not acknowledged after repeats',
};

const ID = /^[A-Za-z0-9._:-]{1,128}$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,9}Z$/;

/** A node that goes away sends its sessions off; that is no fault of its. */
const SENT_OFF = { 1012: 'draining' };

/** Of a text that is quoted. */
const QUOTED_MAX = 200;

const FINE = { correlation_id: 'c', timestamp: '2026-01-01T00:00:00.000Z' };

function matches(value, pattern) {
  return typeof value === 'string' && pattern.test(value);
}

export function violation(reason, detail) {
  if (REASONS[reason] === undefined) throw new Error(`${reason} is no reason`);
  return { reason, detail };
}

/** Watches one client over all of its connections. */
export class Contract {
  #check;
  #errors;
  #closes;
  // The frame that has to come next; `null` once the session stands.
  #awaits = 'connection_established';
  #notice = null;

  /** `check` is that of `schema.mjs`; `errors` are the codes that this client provokes, `closes` what it risks. */
  constructor(check, { errors = [], closes = {} } = {}) {
    this.#check = check;
    this.#errors = errors;
    this.#closes = { ...SENT_OFF, ...closes };
  }

  /** A new connection is made. */
  begin() {
    this.#awaits = 'connection_established';
    this.#notice = null;
  }

  get notice() {
    return this.#notice;
  }

  /** Reads a message: `{frame, violations}`, where `frame` is `null` when it is none that can be followed. */
  read(text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return { frame: null, violations: [violation('bad_shape', `no JSON: ${String(text).slice(0, QUOTED_MAX)}`)] };
    }
    const violations = this.#shape(frame, text);
    const isReadable = violations.every(({ reason }) => reason !== 'bad_shape');
    if (isReadable) violations.push(...this.#place(frame));
    if (frame?.type === 'disconnect_notice') this.#notice = frame;
    return { frame: isReadable ? frame : null, violations };
  }

  /** The connection ended; `asked` if the client had closed it. `null`, or what is wrong with it. */
  ended(code, asked) {
    const allowed = asked ? code === undefined || code === 1000 : this.isSentOff(code);
    if (allowed) return null;
    const notice = this.#notice === null ? 'no notice' : `the notice ${this.#notice.reason} (${this.#notice.code})`;
    const how = asked ? 'the client had asked for 1000' : `after ${notice}`;
    return violation('wrong_close', `closed with ${code ?? 'no code'}, ${how}`);
  }

  /** Whether the contract has this end, and announced it: the client is to come back, or risked it. */
  isSentOff(code) {
    return this.#notice?.code === code && this.#closes[code] === this.#notice?.reason;
  }

  #shape(frame, text) {
    const missing = [];
    const isObject = typeof frame === 'object' && frame !== null && !Array.isArray(frame);
    if (isObject && !matches(frame.correlation_id, ID)) missing.push('no_correlation_id');
    if (isObject && !matches(frame.timestamp, TIME)) missing.push('no_timestamp');
    const quoted = text.slice(0, QUOTED_MAX);
    const violations = missing.map((reason) => violation(reason, quoted));
    // The schema would only say the same again.
    const whole = missing.length > 0 ? { ...frame, ...FINE } : frame;
    const wrong = this.#check(whole);
    if (wrong !== null) violations.push(violation('bad_shape', `${wrong}: ${quoted}`));
    return violations;
  }

  #place(frame) {
    const { type } = frame;
    if ((type === 'error' || type === 'data_error') && !this.#errors.includes(frame.code)) {
      return [violation('unexpected_error', `${frame.code}: ${frame.message ?? frame.error}`)];
    }
    // Between the first two frames there may be faults of the handshake and a warning about the version.
    const early = this.#awaits === 'dashboard_initialized' && ['error', 'version_warning'].includes(type);
    if (type === this.#awaits) {
      this.#awaits = type === 'connection_established' ? 'dashboard_initialized' : null;
      return [];
    }
    if (this.#awaits !== null && !early) return [violation('bad_order', `${type} before ${this.#awaits}`)];
    const again = type === 'connection_established' || type === 'dashboard_initialized';
    return again ? [violation('bad_order', `${type} again`)] : [];
  }
}
