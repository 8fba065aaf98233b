// The WebSocket of k6, which has moved: `k6/experimental/websockets` in 1.1, `k6/websockets` later. Only `require` can
// look for the one and then take the other; an `import` of a module that is not there ends the script.

function find() {
  try {
    return require('k6/websockets');
  } catch {
    return require('k6/experimental/websockets');
  }
}

module.exports = { WebSocket: find().WebSocket };
