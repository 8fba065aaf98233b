// Elements and words for the plain page. Whatever comes from the network becomes text here, never markup:
// nothing on this page parses HTML, and the page's policy (Trusted Types) forbids it.

/** An element with attributes and children; strings become text nodes. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children);
  return element;
}

/** Changes the text only when it differs, so that screen readers hear of changes and nothing else. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const TONES = {
  good: ['active', 'healthy', 'completed', 'done', 'ok', 'ready', 'success'],
  busy: ['busy', 'in_progress', 'running', 'assigned'],
  warn: ['blocked', 'degraded', 'stale', 'warning', 'paused'],
  bad: ['error', 'failed', 'unhealthy', 'critical', 'offline'],
};

/** A status as a badge. The colour only repeats what the word says. */
export function badge(status) {
  const text = typeof status === 'string' ? status : JSON.stringify(status) ?? 'unknown';
  const tone = Object.keys(TONES).find((tone) => TONES[tone].includes(text)) ?? 'plain';
  return el('span', { class: `badge ${tone}` }, cut(words(text), 40));
}

/** `in_progress` → `in progress`. */
export const words = (name) => name.replaceAll('_', ' ');

/** The name of a figure without its unit, which `figure` shows with the value. */
export const label = (name) => words(name.replace(/_(percent|bytes|seconds|ms|at)$/, ''));

export const cut = (text, max) => (text.length > max ? `${text.slice(0, max - 1)}…` : text);

const two = (number) => String(number).padStart(2, '0');

/** Local time of day with milliseconds. */
export function timeOfDay(date) {
  if (Number.isNaN(date.getTime())) return '–';
  const ms = String(date.getMilliseconds()).padStart(3, '0');
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3_600).toFixed(1)} h`;
}

export function bytes(count) {
  if (count < 1_024) return `${count} B`;
  if (count < 1_024 ** 2) return `${(count / 1_024).toFixed(1)} KiB`;
  return `${(count / 1_024 ** 2).toFixed(1)} MiB`;
}

/** A figure the way a person reads it; the unit is in the member's name. */
export function figure(name, value) {
  if (value === null || value === undefined) return '–';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value === 'number') {
    if (name.endsWith('_percent')) return `${Math.round(value * 10) / 10} %`;
    if (name.endsWith('_rate')) return `${Math.round(value * 1_000) / 10} %`;
    if (name.endsWith('_bytes')) return bytes(value);
    if (name.endsWith('_seconds')) return duration(value);
    if (name.endsWith('_ms')) return `${Math.round(value * 100) / 100} ms`;
    return String(value);
  }
  if (typeof value === 'string') {
    const isTime = name.endsWith('_at') && !Number.isNaN(Date.parse(value));
    return isTime ? new Date(value).toLocaleTimeString() : cut(words(value), 60);
  }
  return cut(JSON.stringify(value), 60);
}
