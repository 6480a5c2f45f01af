import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { codeOf, messageOf, SluiceError } from '../base/errors.ts';
import type { CloseResult, Database } from '../db/database.ts';
import { open } from '../db/open.ts';
import { createMetrics, type Metrics, metricsHandler } from '../metrics/index.ts';
import { DlqRoutes } from './dlq-routes.ts';
import { Guard, isLoopback } from './guard.ts';
import { MachineSource } from './machine-source.ts';
import {
  type CollectorOptions,
  needsToken,
  type ResolvedCollectorOptions,
  resolveCollectorOptions,
} from './options.ts';
import { QueryProcess } from './query-process.ts';
import { Readiness } from './readiness.ts';
import { createHandler, HEAD_BYTES_MAX } from './routes.ts';
import { Tables } from './tables.ts';

/** A running collector. */
export interface Collector {
  /** Where it listens: `http://127.0.0.1:9464`. */
  readonly url: string;
  /** What it serves: the database that was passed in, or the one that it has opened. */
  readonly db: Database;
  /**
   * Takes no more connections, finishes the requests in flight, and closes the database, unless it was passed in. Called
   * again, it returns the same promise. Resolves to what was not applied: see {@link Database.close}.
   */
  close(): Promise<CloseResult>;
}

/**
 * Starts a collector: HTTP in front of a database.
 *
 * - `POST /write/:table` NDJSON: rows, or `{"key":…, "value":…}` pairs; see {@link WriteAnswer}
 * - `GET /kv/:table/:key` the value of a key
 * - `GET /query?sql=…&limit=…` one statement that reads, at most 10,000 rows and 16 MiB. An integer beyond 2^53 comes as a
 *   string, a BLOB as `{"$blob":"<base64>"}`
 * - `GET /dlq`, `/dlq/summary`, `/dlq/export`, `/dlq/:id` the dead letters
 * - `POST /dlq/retry`, `/dlq/clear`, `/dlq/take` what to do with them
 * - `GET /metrics`, `GET /healthz`, `GET /readyz`
 *
 * Numbers come in as JSON has them: write an integer beyond 2^53 as a string.
 *
 * Errors: `SLUICE_INVALID_OPTION` with all problems at once, also where it cannot listen; and those of {@link open}.
 *
 * @example
 * ```ts
 * import { startCollector } from 'sluicedb/server';
 *
 * const collector = await startCollector({ file: ':memory:', port: 0 });
 * try {
 *   const response = await fetch(`${collector.url}/write/readings`, {
 *     method: 'POST',
 *     headers: { 'content-type': 'application/x-ndjson' },
 *     body: '{"room":"kitchen","celsius":21.5}\n',
 *   });
 *   console.log(await response.json()); // { accepted: 1, rejected: 0, errors: [], errorsTruncated: false }
 * } finally {
 *   await collector.close();
 * }
 * ```
 */
export async function startCollector(options: CollectorOptions = {}): Promise<Collector> {
  const resolved = resolveCollectorOptions(options);
  const db = resolved.db ?? (await open(resolved.file, resolved.open));
  const closeDatabase = () => (resolved.db === undefined ? db.close() : Promise.resolve({ pending: 0 }));
  let metrics: Metrics | undefined;
  try {
    metrics = createMetrics(db, { processMetrics: true });
    return await serve(resolved, db, metrics, closeDatabase);
  } catch (error) {
    metrics?.close();
    await closeDatabase();
    throw error;
  }
}

async function serve(
  options: ResolvedCollectorOptions,
  db: Database,
  metrics: Metrics,
  closeDatabase: () => Promise<CloseResult>,
): Promise<Collector> {
  const tables = new Tables(db);
  const server = createServer({
    maxHeaderSize: HEAD_BYTES_MAX,
    // A body may take as long as it keeps coming: see requestTimeoutMs.
    requestTimeout: 0,
    headersTimeout: 10_000,
  });
  const { address, port, family } = await listen(server, options);
  const child = new QueryProcess(db.path, options.queryTimeoutMs);
  const dlq = new DlqRoutes(db, options);
  const guard = new Guard({ address, port, token: options.token, allowedHosts: options.allowedHosts });
  const handler = createHandler({
    options,
    db,
    tables,
    child,
    dlq,
    readiness: new Readiness(db),
    metrics: metricsHandler(metrics.registry),
    guard,
  });
  let source: MachineSource | undefined;
  try {
    if (!isLoopback(address) && options.token === undefined) {
      throw new SluiceError('SLUICE_INVALID_OPTION', `startCollector: host ${needsToken(address)}`);
    }
    // In the turn in which it begins to listen, or the first request would find nobody and wait for ever.
    server.on('request', handler);
    // The guard looks before the sender is told to go on.
    server.on('checkContinue', handler);
    if (options.source) source = await MachineSource.start(db, tables, options.sourceIntervalMs);
  } catch (error) {
    server.close();
    server.closeAllConnections();
    throw error;
  }
  // Its absence shows at the first query, which starts another.
  child.warm().catch(() => undefined);

  let closing: Promise<CloseResult> | undefined;
  const close = async () => {
    dlq.callOff();
    await closeServer(server, options.closeTimeoutMs);
    source?.stop();
    child.close();
    const result = await closeDatabase();
    metrics.close();
    return result;
  };
  return {
    url: `http://${nameOf(address, family)}:${port}`,
    db,
    close: () => {
      closing ??= close();
      return closing;
    },
  };
}

async function listen(server: Server, { host, port }: ResolvedCollectorOptions): Promise<AddressInfo> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(port, host, resolve);
    });
  } catch (cause) {
    throw new SluiceError(
      'SLUICE_INVALID_OPTION',
      `cannot listen on ${host} port ${port} (${codeOf(cause) ?? messageOf(cause)}): choose another port or host`,
      { cause },
    );
  }
  return server.address() as AddressInfo;
}

/** Requests in flight may end; who holds a connection for later is told to go. */
function closeServer(server: Server, timeoutMs: number): Promise<void> {
  return new Promise((resolve) => {
    const late = setTimeout(() => server.closeAllConnections(), timeoutMs);
    // An answer that is under way does not say that the connection ends: it becomes idle, and is closed then.
    const idle = setInterval(() => server.closeIdleConnections(), 50);
    server.close(() => {
      clearTimeout(late);
      clearInterval(idle);
      resolve();
    });
  });
}

/** An address that one can connect to. */
function nameOf(address: string, family: string): string {
  if (address === '0.0.0.0') return '127.0.0.1';
  if (address === '::') return '[::1]';
  return family === 'IPv6' ? `[${address}]` : address;
}
