'use strict';
// Lets a server end on SIGTERM without cutting anybody: no running request, and none that is on its way.

const net = require('net');

// After the stop, how long an idle connection may still send a request, and one that has not sent any yet.
const LAST_REQUEST_MS = 1_000;
const FIRST_REQUEST_MS = 5_000;

module.exports = function drain(server) {
  const running = new Set();
  const silent = new Set();
  let stopping = false;
  // Clients that keep their connection are told to go.
  const last = (response) => response.headersSent || response.setHeader('Connection', 'close');

  server.on('connection', (socket) => {
    silent.add(socket);
    socket.on('close', () => silent.delete(socket));
  });
  server.prependListener('request', (request, response) => {
    silent.delete(request.socket);
    if (stopping) last(response);
    running.add(response);
    response.on('close', () => running.delete(response));
  });
  process.on('SIGTERM', () => {
    if (stopping) return;
    stopping = true;
    running.forEach(last);
    // http's own close() would also close idle connections now, under requests that are on their way.
    net.Server.prototype.close.call(server);
    setInterval(() => server.closeIdleConnections(), LAST_REQUEST_MS).unref();
    setTimeout(() => silent.forEach((socket) => socket.destroy()), FIRST_REQUEST_MS).unref();
  });
};
