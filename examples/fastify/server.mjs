// A small telemetry API on Sluice and Fastify 5.
import fastify from 'fastify';
import { open, SluiceError } from 'sluicedb';
import { createMetrics, metricsHandler } from 'sluicedb/metrics';

const { FILE = 'telemetry.db', HOST = '127.0.0.1', PORT = '3000', MAX_STAGED = '1000000' } = process.env;

const app = fastify({ logger: true, bodyLimit: 1024 ** 2 });
const db = await open(FILE, { logger: app.log, staging: { maxEntries: Number(MAX_STAGED) } });
const latest = db.table('latest');
const readings = db.rows('readings', { columns: { at: 'integer', room: 'text', celsius: 'real' } });
const metrics = createMetrics(db);
const metricsOf = metricsHandler(metrics.registry);

const reading = {
  type: 'object',
  required: ['room', 'celsius'],
  additionalProperties: false,
  properties: {
    room: { type: 'string', minLength: 1, maxLength: 100 },
    celsius: { type: 'number', minimum: -273.15 },
    at: { type: 'integer' },
  },
};
/** @typedef {{ room: string, celsius: number, at?: number }} Reading */

app.post('/readings', { schema: { body: { type: 'array', minItems: 1, items: reading } } }, async (request, reply) => {
  // Staging is half full. The other half is more than one request can fill: what is begun below is not refused half way.
  if (db.needsDrain) throw new SluiceError('SLUICE_FULL', 'more comes in than SQLite takes: try again in a second');
  const now = Date.now();
  const batch = /** @type {Reading[]} */ (request.body).map((given) => ({ at: now, ...given }));
  latest.setMany(new Map(batch.map((given) => [given.room, given])));
  readings.appendMany(batch);
  await db.adurable(); // on the disk: one fdatasync for all requests of this moment
  return reply.code(201).send({ accepted: batch.length });
});

// Sees what was written a microsecond ago.
app.get('/rooms/:room', async (request, reply) => {
  const { room } = /** @type {{ room: string }} */ (request.params);
  return latest.get(room) ?? reply.code(404).send({ message: 'no such room' });
});

const querystring = {
  type: 'object',
  required: ['room'],
  properties: { room: { type: 'string' }, limit: { type: 'integer', minimum: 1, maximum: 1_000, default: 100 } },
};
app.get('/readings', { schema: { querystring } }, async (request) => {
  const { room, limit } = /** @type {{ room: string, limit: number }} */ (request.query);
  const sql = 'SELECT at, room, celsius FROM readings WHERE room = ? ORDER BY at DESC LIMIT ?';
  return db.afetchAll(sql, [room, limit], { timeoutMs: 5_000 });
});

app.get('/metrics', (request, reply) => {
  reply.hijack();
  metricsOf(request.raw, reply.raw);
});

/** @type {Partial<Record<string, number>>} */
const STATUS = {
  SLUICE_INVALID_KEY: 400,
  SLUICE_INVALID_VALUE: 400,
  SLUICE_FULL: 503,
  SLUICE_TIMEOUT: 503,
  SLUICE_CLOSED: 503,
};

app.setErrorHandler((error, _request, reply) => {
  if (!(error instanceof SluiceError)) return reply.send(error);
  const status = STATUS[error.code] ?? 500;
  if (status === 503) reply.header('Retry-After', '1');
  return reply.code(status).send({ code: error.code, message: error.message });
});

// Runs when the last request is answered. What was answered is in the log by now; closing carries it into SQLite.
app.addHook('onClose', async () => {
  metrics.close();
  await db.close();
});
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => app.close());

await app.listen({ port: Number(PORT), host: HOST });
