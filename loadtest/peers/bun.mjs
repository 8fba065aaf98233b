// Bun's own server and its publish, which are uWebSockets.

import { ROUTE, initialized, publication, subscriptionsOf } from './contract.mjs';

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  async fetch(request, server) {
    const { pathname, search } = new URL(request.url);
    if (request.method === 'POST' && pathname === ROUTE) {
      const { subscription, frame, answer } = publication(pathname + search, await request.text());
      server.publish(subscription, frame);
      return new Response(answer(server.subscriberCount(subscription)), {
        headers: { 'Content-Type': 'application/json' },
      });
    }
    const names = subscriptionsOf(pathname + search);
    if (server.upgrade(request, { data: { names } })) return undefined;
    return new Response(null, { status: 404 });
  },
  websocket: {
    perMessageDeflate: false,
    open(socket) {
      for (const name of socket.data.names) socket.subscribe(name);
      socket.send(initialized(socket.data.names));
    },
    message() {},
  },
});

console.log(`peer listening on 127.0.0.1:${server.port}`);
