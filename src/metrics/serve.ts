import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { codeOf, messageOf, SluiceError } from '../base/errors.ts';
import { OptionReader } from '../base/options.ts';
import { answerWith, metricsHandler, write } from './handlers.ts';
import { attach, type MetricsOptions, readMetricsOptions } from './metrics.ts';
import type { MetricsSource } from './source.ts';

/** How long a scrape that runs at `close` may take. */
const CLOSE_GRACE_MS = 1_000;

/** Options of {@link serveMetrics}. */
export interface ServeMetricsOptions extends MetricsOptions {
  /** Integer, 0 to 65535; 0 takes any free port. @defaultValue 9464 */
  readonly port?: number | undefined;
  /**
   * Address to listen on. There is no password: whoever can reach it can read the metrics.
   * @defaultValue '127.0.0.1'
   */
  readonly host?: string | undefined;
}

/** A running server of metrics. */
export interface MetricsServer {
  /** Where to scrape: `http://127.0.0.1:9464/metrics`. */
  readonly url: string;
  /** Stops listening and takes the series of the database out of the registry. Does not close the database. */
  close(): Promise<void>;
}

/**
 * Serves the metrics of a database at `/metrics`, for programs that have no HTTP server of their own; anything else is 404.
 * Takes the options of {@link createMetrics} too. Several databases share a server by sharing its registry.
 *
 * Errors: `SLUICE_INVALID_OPTION`, also where it cannot listen.
 *
 * @example
 * ```ts
 * import { open } from 'sluicedb';
 * import { serveMetrics } from 'sluicedb/metrics';
 *
 * const db = await open(':memory:');
 * const server = await serveMetrics(db, { port: 0 });
 * try {
 *   const response = await fetch(server.url);
 *   console.log(response.status); // 200
 * } finally {
 *   await server.close();
 *   await db.close();
 * }
 * ```
 *
 * @example Two databases, one server
 * ```ts
 * import { open } from 'sluicedb';
 * import { createMetrics, serveMetrics } from 'sluicedb/metrics';
 *
 * const orders = await open(':memory:');
 * const audit = await open(':memory:');
 * const metrics = createMetrics(audit, { db: 'audit' });
 * const server = await serveMetrics(orders, { port: 0, db: 'orders', registry: metrics.registry });
 * try {
 *   const text = await (await fetch(server.url)).text();
 *   console.log(text.includes('db="orders"') && text.includes('db="audit"')); // true
 * } finally {
 *   await server.close();
 *   metrics.close();
 *   await Promise.all([orders.close(), audit.close()]);
 * }
 * ```
 */
export async function serveMetrics(db: MetricsSource, options: ServeMetricsOptions = {}): Promise<MetricsServer> {
  const reader = new OptionReader(options);
  const port = reader.integer('port', { min: 0, max: 65_535, fallback: 9_464 });
  const host = reader.text('host', '127.0.0.1');
  const shared = readMetricsOptions(reader, db);
  // An empty address means all of them to Node.
  if (host === '') reader.refuse('host', 'must not be empty');
  reader.finish('serveMetrics');

  const metrics = attach(db, shared);
  const handler = metricsHandler(metrics.registry);
  const server = createServer((request, response) => {
    if (request.url?.split('?', 1)[0] === '/metrics') handler(request, response);
    else write(response, answerWith(request.method ?? 'GET', 404, 'the metrics are at /metrics\n'));
  });
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(port, host, resolve);
    });
  } catch (cause) {
    metrics.close();
    throw new SluiceError(
      'SLUICE_INVALID_OPTION',
      `serveMetrics: cannot listen on ${host} port ${port} (${codeOf(cause) ?? messageOf(cause)}); choose another port or host`,
      { cause },
    );
  }

  const address = server.address() as AddressInfo;
  const name = address.family === 'IPv6' ? `[${address.address}]` : address.address;
  let closing: Promise<void> | undefined;
  return {
    url: `http://${name}:${address.port}/metrics`,
    close: () => {
      closing ??= new Promise<void>((resolve) => {
        const late = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS);
        server.close(() => {
          clearTimeout(late);
          metrics.close();
          resolve();
        });
      });
      return closing;
    },
  };
}
