import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Registry } from 'prom-client';
import { codeOf, messageOf, SluiceError } from '../base/errors.ts';
import { OptionReader } from '../base/options.ts';
import { attach, type MetricsOptions, readMetricsOptions } from './metrics.ts';
import type { MetricsSource } from './source.ts';

/** How long a scrape that runs at `close` may take. */
const CLOSE_GRACE_MS = 1_000;

/** Answers a request of `node:http`. */
export type MetricsHandler = (request: IncomingMessage, response: ServerResponse) => void;

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
 * A handler that answers GET and HEAD with the metrics of a registry, and any other method with 405. It does not look at
 * the path: mount it where you like.
 *
 * @example
 * ```ts
 * import { createServer } from 'node:http';
 * import { open } from 'sluicedb';
 * import { createMetrics, metricsHandler } from 'sluicedb/metrics';
 *
 * const db = await open(':memory:');
 * const metrics = createMetrics(db);
 * const handler = metricsHandler(metrics.registry);
 * const server = createServer((request, response) => {
 *   if (request.url === '/metrics') handler(request, response);
 *   else response.writeHead(404).end();
 * });
 * // server.listen(…), and at the end:
 * server.close();
 * metrics.close();
 * await db.close();
 * ```
 */
export function metricsHandler(registry: Registry): MetricsHandler {
  return (request, response) => {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return send(request, response, 405, 'use GET\n', { allow: 'GET, HEAD' });
    }
    registry.metrics().then(
      (text) => send(request, response, 200, text, { 'content-type': registry.contentType }),
      (error: unknown) => {
        // A metric of the application's own threw. The scraper sees that it failed, the log says why.
        process.emitWarning(`metrics could not be collected: ${messageOf(error)}`, { type: 'SluiceWarning' });
        send(request, response, 500, 'metrics could not be collected\n');
      },
    );
  };
}

/**
 * Serves the metrics of a database at `/metrics`, for programs that have no HTTP server of their own. Takes the options of
 * {@link createMetrics} too.
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
    else send(request, response, 404, 'the metrics are at /metrics\n');
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

function send(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, {
    'content-type': 'text/plain; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    ...headers,
  });
  response.end(request.method === 'HEAD' ? undefined : text);
}
