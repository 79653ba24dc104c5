'use strict';
// The parameter `ms` says how long an answer takes.

const express = require('express');

const drain = require('./drain');

const app = express();
app.get('/health', (request, response) => response.send('healthy'));
app.use(express.raw({ type: () => true, limit: '1mb' }));
app.all(['/', '/slow', '/stream', '/upload'], (request, response) => {
  const answer = {
    release: process.env.BATON_RELEASE ?? 'none',
    pid: process.pid,
    conn: request.get('X-Conn'),
    seq: request.get('X-Seq'),
    bytes: request.body?.length ?? 0,
  };
  setTimeout(() => response.json(answer), Number(request.query.ms ?? 0)); // the work that a request costs
});
drain(app.listen(process.env.PORT ?? 8080, '127.0.0.1'));
