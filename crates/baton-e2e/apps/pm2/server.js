'use strict';
// Every path answers alike; `ms` says how long that takes. Ends on SIGINT as PM2's documentation has it.

const http = require('http');

const server = http.createServer((request, response) => {
  let bytes = 0;
  request.on('data', (chunk) => (bytes += chunk.length));
  request.on('end', () => {
    const ms = Number(new URL(request.url, 'http://localhost').searchParams.get('ms'));
    setTimeout(() => {
      response.setHeader('Content-Type', 'application/json');
      response.end(JSON.stringify({
        release: 'none',
        pid: process.pid,
        conn: request.headers['x-conn'],
        seq: request.headers['x-seq'],
        bytes,
      }));
    }, ms); // the work that a request costs
  });
});
server.listen(process.env.PORT ?? 8080, '127.0.0.1');
process.on('SIGINT', () => server.close(() => process.exit(0)));
