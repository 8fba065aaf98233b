// Stands between k6 and a node and does to WebSocket frames what a broken node would: `faults.test.mjs` shows that a
// load run notices. HTTP passes as it is.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';

const HEAD_END = '\r\n\r\n';

export class Proxy {
  #server;
  #sockets = new Set();
  #handshakes = 0;

  /**
   * `fault` may have `refuse(number)`, which says whether to refuse a handshake, counted from 0; `text(text)`, which
   * answers a message of the node with the frames to send on instead (`textFrame`, `closeFrame`), or with `null` to let
   * it pass; and `delayMs`, for everything that the node sends.
   */
  static async start(upstream, fault = {}) {
    const proxy = new Proxy();
    proxy.#server = createServer((client) => proxy.#serve(client, upstream, fault));
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  stop() {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #serve(client, upstream, fault) {
    const { hostname, port } = new URL(upstream);
    const node = connect({ host: hostname, port: Number(port) });
    for (const [socket, other] of [[client, node], [node, client]]) {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        this.#sockets.delete(socket);
        // What was read from it may still be on its way.
        setTimeout(() => other.end(), fault.delayMs ?? 0);
      });
    }
    let request = '';
    client.on('data', (chunk) => {
      if (request !== null) request += chunk.toString('latin1');
      if (request?.includes(HEAD_END)) {
        const isHandshake = /^upgrade: *websocket/im.test(request);
        request = null;
        if (isHandshake && fault.refuse?.(this.#handshakes++)) {
          client.end('HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
          return node.destroy();
        }
      }
      node.write(chunk);
    });
    const pieces = splitter(fault);
    node.on('data', (chunk) => {
      for (const piece of pieces(chunk)) {
        if (fault.delayMs) setTimeout(() => client.write(piece), fault.delayMs);
        else client.write(piece);
      }
    });
  }
}

/** Cuts what a node sends into its response, as it is, and then frames, of which texts may be changed. */
function splitter(fault) {
  let buffer = Buffer.alloc(0);
  let mode = 'head';
  return (chunk) => {
    buffer = Buffer.concat([buffer, chunk]);
    const pieces = [];
    if (mode === 'head') {
      const end = buffer.indexOf(HEAD_END);
      if (end < 0) return pieces;
      mode = buffer.toString('latin1', 0, end).startsWith('HTTP/1.1 101') ? 'frames' : 'raw';
      const head = mode === 'raw' ? buffer.length : end + HEAD_END.length;
      pieces.push(buffer.subarray(0, head));
      buffer = buffer.subarray(head);
    }
    if (mode === 'raw' && buffer.length > 0) {
      pieces.push(buffer);
      buffer = Buffer.alloc(0);
    }
    for (let frame = frameOf(buffer); frame !== null; frame = frameOf(buffer)) {
      buffer = buffer.subarray(frame.bytes.length);
      const changed = frame.isText ? fault.text?.(frame.payload.toString()) : null;
      pieces.push(...(changed ?? [frame.bytes]));
    }
    return pieces;
  };
}

/** The first whole frame: a node masks none. */
function frameOf(buffer) {
  if (buffer.length < 2) return null;
  const short = buffer[1] & 0x7f;
  const start = short === 126 ? 4 : short === 127 ? 10 : 2;
  if (buffer.length < start) return null;
  const length = short === 126 ? buffer.readUInt16BE(2) : short === 127 ? Number(buffer.readBigUInt64BE(2)) : short;
  if (buffer.length < start + length) return null;
  const bytes = buffer.subarray(0, start + length);
  return { bytes, payload: bytes.subarray(start), isText: (bytes[0] & 0x0f) === 1 };
}

export function textFrame(message) {
  const payload = Buffer.from(JSON.stringify(message));
  const head = payload.length < 126 ? Buffer.from([0x81, payload.length]) : Buffer.from([0x81, 126, payload.length >> 8, payload.length & 0xff]);
  return Buffer.concat([head, payload]);
}

export function closeFrame(code, reason) {
  return Buffer.concat([Buffer.from([0x88, 2 + reason.length, code >> 8, code & 0xff]), Buffer.from(reason)]);
}
