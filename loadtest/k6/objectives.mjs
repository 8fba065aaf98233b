// What a load run takes from `deploy/slo/objectives.json`: the one place that knows the form of that file. Pure.

/** `{delivery, handshake}` as ratios, and `{latency: {percent, ms}}`. */
export function objectivesOf(file) {
  const { delivery, handshake, latency } = file.objectives;
  const found = {
    delivery: delivery.target,
    handshake: handshake.target,
    latency: { percent: rounded(latency.target * 100), ms: rounded(latency.sli.threshold_seconds * 1_000) },
  };
  for (const number of [found.delivery, found.handshake, found.latency.percent, found.latency.ms]) {
    if (!(number > 0)) throw new Error('deploy/slo/objectives.json: an objective is missing');
  }
  return found;
}

/** 0.95 × 100 and its like, without what binary fractions leave behind. */
function rounded(number) {
  return Math.round(number * 1e6) / 1e6;
}
