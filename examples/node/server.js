'use strict';
// A web server on Node's own `http` that can be replaced without losing a request.
//
// What matters for that, and what any Node server would do the same way:
//
// - it takes its listening socket from LISTEN_FDS (systemd's protocol) and binds $PORT only without one;
// - on SIGTERM it stops accepting, finishes what it has accepted, tells keep-alive clients to go
//   (`Connection: close`), and ends with 0 when the last connection has. Without a handler, Node would
//   drop everything at once.
//
// Node has no datagram Unix sockets, so it cannot say READY=1: its first successful probe makes it ready.

const fs = require('fs');
const http = require('http');
const net = require('net');
const path = require('path');

// The first descriptor that systemd's protocol passes.
const LISTEN_FDS_START = 3;
// Node calls listen() on a socket that it was given and would cut its queue to 511.
const BACKLOG = 4096;
// Longer than clients usually pool connections, so that it is the client that closes idle ones.
const KEEP_ALIVE_MS = 75_000;
// After the stop, an idle connection may send one more request for this long. A request that is already on its
// way is then answered instead of being met by a closed connection.
const LAST_REQUEST_MS = 1_000;
// How long a connection may take to send a request's head, so that a silent one cannot hold up the end.
const HEAD_MS = 5_000;

/** Switches for bad behaviour: words in $BEHAVIOUR and lines of the file `behaviour` beside this one. */
function readBehaviour() {
  let words = (process.env.BEHAVIOUR ?? '').split(/\s+/);
  const file = path.join(__dirname, 'behaviour');
  if (fs.existsSync(file)) words = words.concat(fs.readFileSync(file, 'utf8').split(/\s+/));
  const known = ['never-healthy', 'crash-after', 'ignore-term', 'exit-at-start', 'slow-start'];
  const switches = new Map();
  for (const word of words.filter(Boolean)) {
    const [name, value = ''] = word.split('=');
    if (!known.includes(name)) {
      console.error(`unknown behaviour ${word}: use one of ${known.join(', ')}`);
      process.exit(1);
    }
    switches.set(name, value);
  }
  return switches;
}

const behaviour = readBehaviour();
let stopping = false;

/** Who answers, and what was asked: enough for a client to account for every request. */
function identity(request) {
  return {
    release: process.env.BATON_RELEASE ?? 'none',
    pid: process.pid,
    generation: process.env.BATON_GENERATION ?? 'none',
    conn: request.headers['x-conn'] ?? null,
    seq: request.headers['x-seq'] ?? null,
  };
}

function head(response, status, headers) {
  if (stopping) response.setHeader('Connection', 'close');
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
}

function answer(response, status, content) {
  const body = JSON.stringify(content) + '\n';
  head(response, status, { 'Content-Length': Buffer.byteLength(body) });
  response.end(body);
}

/** Sends an answer in parts, spread over this time. */
function trickle(response, who, milliseconds, parts = 5) {
  head(response, 200, {});
  let part = 0;
  const timer = setInterval(() => {
    response.write(JSON.stringify({ ...who, part }) + '\n');
    part += 1;
    if (part === parts) {
      clearInterval(timer);
      response.end();
    }
  }, milliseconds / parts);
  response.on('close', () => clearInterval(timer));
}

function route(request, response, bytes) {
  const who = identity(request);
  const url = new URL(request.url, 'http://localhost');
  const milliseconds = Math.min(Math.max(Number(url.searchParams.get('ms')) || 0, 0), 600_000);
  switch (`${request.method} ${url.pathname}`) {
    case 'GET /':
      return answer(response, 200, who);
    case 'GET /health': {
      const healthy = !behaviour.has('never-healthy') && !stopping;
      return answer(response, healthy ? 200 : 503, { ...who, healthy });
    }
    case 'GET /slow':
      return setTimeout(() => answer(response, 200, who), milliseconds); // the work that this request costs
    case 'GET /stream':
      return trickle(response, who, milliseconds);
    case 'POST /upload':
      return answer(response, 200, { ...who, bytes });
    default:
      return answer(response, 404, who);
  }
}

const server = http.createServer(
  { keepAliveTimeout: KEEP_ALIVE_MS, headersTimeout: HEAD_MS, connectionsCheckingInterval: 1_000 },
  (request, response) => {
    let bytes = 0;
    request.on('data', (chunk) => (bytes += chunk.length));
    request.on('end', () => route(request, response, bytes));
  },
);

/** Stops accepting, and ends when every connection has. */
function drain() {
  if (stopping) return;
  stopping = true;
  // http's own close() would also close idle connections now, under requests that are on their way.
  net.Server.prototype.close.call(server);
  setInterval(() => server.closeIdleConnections(), LAST_REQUEST_MS).unref();
}

function start() {
  const inherited =
    process.env.LISTEN_PID === String(process.pid) && Number(process.env.LISTEN_FDS) > 0;
  if (inherited) server.listen({ fd: LISTEN_FDS_START }, BACKLOG);
  else server.listen(Number(process.env.PORT ?? 8080), process.env.HOST ?? '127.0.0.1', BACKLOG);
}

if (behaviour.has('exit-at-start')) process.exit(Number(behaviour.get('exit-at-start') || 1));
process.on('SIGINT', drain);
process.on('SIGTERM', behaviour.has('ignore-term') ? () => {} : drain);
if (behaviour.has('crash-after')) {
  const crash = Number(behaviour.get('crash-after')) * 1000 - process.uptime() * 1000;
  setTimeout(() => process.exit(3), Math.max(crash, 0)).unref();
}
if (behaviour.has('slow-start')) {
  const timer = setTimeout(start, Number(behaviour.get('slow-start')) * 1000);
  process.once('SIGTERM', () => !behaviour.has('ignore-term') && clearTimeout(timer));
} else {
  start();
}
