// The npm package `ws`: one process, the loop over the clients that its documentation shows, the frame made
// into bytes once.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { ROUTE, initialized, publication, subscriptionsOf } from './contract.mjs';

const { WebSocket, WebSocketServer } = createRequire(`${process.env.PEERS}/package.json`)('ws');

const subscribers = new Map();
const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false });

const server = createServer((request, response) => {
  if (request.method !== 'POST' || !request.url.startsWith(ROUTE)) {
    response.writeHead(404, { 'Content-Length': 0 }).end();
    return;
  }
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    const { subscription, frame, answer } = publication(request.url, Buffer.concat(pieces).toString());
    const bytes = Buffer.from(frame);
    const clients = subscribers.get(subscription) ?? new Set();
    for (const client of clients) {
      if (client.readyState === WebSocket.OPEN) client.send(bytes, { binary: false });
    }
    const body = answer(clients.size);
    response.writeHead(200, {
      'Content-Type': 'application/json',
      'Content-Length': Buffer.byteLength(body),
    });
    response.end(body);
  });
});

server.on('upgrade', (request, socket, head) => {
  sockets.handleUpgrade(request, socket, head, (client) => {
    const names = subscriptionsOf(request.url);
    for (const name of names) {
      if (!subscribers.has(name)) subscribers.set(name, new Set());
      subscribers.get(name).add(client);
    }
    client.on('close', () => names.forEach((name) => subscribers.get(name).delete(client)));
    client.on('error', () => client.terminate());
    client.send(initialized(names));
  });
});

server.listen(0, '127.0.0.1', 4096, () => {
  console.log(`peer listening on 127.0.0.1:${server.address().port}`);
});
