// A small telemetry API on Sluice and Express 5.
import express from 'express';
import { pino } from 'pino';
import { open, SluiceError } from 'sluicedb';
import { createMetrics, metricsHandler } from 'sluicedb/metrics';
import { z } from 'zod';

const { FILE = 'telemetry.db', HOST = '127.0.0.1', PORT = '3000', MAX_STAGED = '1000000' } = process.env;

const Reading = z.object({
  room: z.string().min(1).max(100),
  celsius: z.number().gte(-273.15),
  at: z
    .number()
    .int()
    .default(() => Date.now()),
});

const log = pino();
const db = await open(FILE, { logger: log, staging: { maxEntries: Number(MAX_STAGED) } });
const latest = db.table('latest', { validator: Reading, coerce: true });
const readings = db.rows('readings', {
  columns: { at: 'integer', room: 'text', celsius: 'real' },
  schema: Reading,
  coerce: true,
});
const metrics = createMetrics(db);

const app = express();
app.use(express.json({ limit: '1mb' }));

app.post('/readings', async (request, response) => {
  // Staging is half full. The other half is more than one request can fill: what is begun below is not refused half way.
  if (db.needsDrain) throw new SluiceError('SLUICE_FULL', 'more comes in than SQLite takes: try again in a second');
  const batch = [request.body].flat();
  latest.setMany(batch.map((reading) => [reading?.room, reading]));
  readings.appendMany(batch);
  await db.adurable(); // on the disk: one fdatasync for all requests of this moment
  response.status(201).json({ accepted: batch.length });
});

// Sees what was written a microsecond ago.
app.get('/rooms/:room', (request, response) => {
  const reading = latest.get(request.params.room);
  if (reading === undefined) response.status(404).json({ message: 'no such room' });
  else response.json(reading);
});

app.get('/readings', async (request, response) => {
  const { room, limit } = z
    .object({ room: z.string(), limit: z.coerce.number().int().min(1).max(1_000).default(100) })
    .parse(request.query);
  const sql = 'SELECT at, room, celsius FROM readings WHERE room = ? ORDER BY at DESC LIMIT ?';
  response.json(await db.afetchAll(sql, [room, limit], { timeoutMs: 5_000 }));
});

app.get('/metrics', metricsHandler(metrics.registry));

/** @type {Partial<Record<string, number>>} */
const STATUS = {
  SLUICE_VALIDATION: 400,
  SLUICE_INVALID_KEY: 400,
  SLUICE_INVALID_VALUE: 400,
  SLUICE_FULL: 503,
  SLUICE_TIMEOUT: 503,
  SLUICE_CLOSED: 503,
};

/** @type {(...given: Parameters<express.ErrorRequestHandler>) => void} */
const answerError = (error, _request, response, next) => {
  if (error instanceof z.ZodError) {
    response.status(400).json({ message: z.prettifyError(error) });
  } else if (error instanceof SluiceError) {
    const status = STATUS[error.code] ?? 500;
    if (status === 503) response.set('Retry-After', '1');
    response.status(status).json({ code: error.code, message: error.message });
  } else next(error);
};
app.use(answerError);

const server = app.listen(Number(PORT), HOST, () => {
  const address = server.address();
  log.info(`listening at http://${HOST}:${typeof address === 'object' ? address?.port : PORT}`);
});

// Every request that was answered is in the log by now; closing carries it into SQLite.
async function stop() {
  const closed = new Promise((resolve) => server.close(resolve));
  setTimeout(() => server.closeAllConnections(), 5_000).unref();
  await closed;
  metrics.close();
  await db.close();
}
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, stop);
