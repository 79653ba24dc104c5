'use strict';
// The parameter `ms` says how long an answer takes.

const { setTimeout: sleep } = require('timers/promises');
const fastify = require('fastify')();

const drain = require('./drain');

fastify.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body, done) => done(null, body));
fastify.get('/health', async () => 'healthy');
const work = async (request) => {
  await sleep(Number(request.query.ms ?? 0)); // the work that a request costs
  return {
    release: process.env.BATON_RELEASE ?? 'none',
    pid: process.pid,
    conn: request.headers['x-conn'],
    seq: request.headers['x-seq'],
    bytes: request.body?.length ?? 0,
  };
};
for (const url of ['/', '/slow', '/stream', '/upload']) {
  fastify.route({ method: ['GET', 'POST'], url, handler: work });
}
drain(fastify.server);
fastify.listen({ port: Number(process.env.PORT ?? 8080), host: '127.0.0.1' });
