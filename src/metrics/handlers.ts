import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Registry, RegistryContentType } from 'prom-client';
import { messageOf } from '../base/errors.ts';
import { expose } from './exposition.ts';

/** Answers a request of `node:http`. */
export type MetricsHandler = (request: IncomingMessage, response: ServerResponse) => void;

/** Answers a request of the Fetch API. Never rejects. */
export type MetricsFetchHandler = (request: Request) => Promise<Response>;

/**
 * A `(request, response)` handler for node:http, Express and Fastify. It answers GET and HEAD with the metrics of a registry,
 * as Prometheus text, or as OpenMetrics where the `Accept` header prefers that; any other method with 405. It does not look
 * at the path: mount it where you like.
 *
 * In Express: `app.get('/metrics', handler)`. In Fastify, which must leave the response to it:
 * `reply.hijack(); handler(request.raw, reply.raw)`.
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
export function metricsHandler(registry: Registry<RegistryContentType>): MetricsHandler {
  return ({ method = 'GET', headers }, response) => {
    void answer(registry, method, headers.accept).then((ready) => write(response, ready));
  };
}

/**
 * A `Request` → `Response` handler, for Hono, Next.js and whatever else speaks the Fetch API. Answers as {@link metricsHandler}
 * does.
 *
 * @example
 * ```ts
 * import { open } from 'sluicedb';
 * import { createMetrics, metricsFetchHandler } from 'sluicedb/metrics';
 *
 * const db = await open(':memory:');
 * const metrics = createMetrics(db);
 * const handler = metricsFetchHandler(metrics.registry);
 * try {
 *   const headers = { accept: 'application/openmetrics-text' };
 *   const response = await handler(new Request('http://localhost/metrics', { headers }));
 *   console.log(response.headers.get('content-type')); // application/openmetrics-text; version=1.0.0; charset=utf-8
 * } finally {
 *   metrics.close();
 *   await db.close();
 * }
 * ```
 */
export function metricsFetchHandler(registry: Registry<RegistryContentType>): MetricsFetchHandler {
  return async ({ method, headers }) => {
    const { status, headers: sent, body } = await answer(registry, method, headers.get('accept') ?? undefined);
    return new Response(body, { status, headers: sent });
  };
}

/** @internal What a handler sends. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** `null` to HEAD. */
  readonly body: string | null;
}

/** @internal An answer to a method, HEAD included: the same headers, and no body. */
export function answerWith(
  method: string,
  status: number,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  return {
    status,
    headers: {
      'content-type': 'text/plain; charset=utf-8',
      'content-length': String(Buffer.byteLength(text)),
      ...headers,
    },
    body: method === 'HEAD' ? null : text,
  };
}

async function answer(
  registry: Registry<RegistryContentType>,
  method: string,
  accept: string | undefined,
): Promise<Answer> {
  if (method !== 'GET' && method !== 'HEAD') return answerWith(method, 405, 'use GET\n', { allow: 'GET, HEAD' });
  try {
    const { contentType, text } = await expose(registry, accept);
    return answerWith(method, 200, text, { 'content-type': contentType, vary: 'Accept' });
  } catch (error) {
    // A metric of the application's own threw. The scraper sees that it failed, the log says why.
    process.emitWarning(`metrics could not be collected: ${messageOf(error)}`, { type: 'SluiceWarning' });
    return answerWith(method, 500, 'metrics could not be collected\n');
  }
}

/** @internal */
export function write(response: ServerResponse, { status, headers, body }: Answer): void {
  // The application may have answered in the meantime, with a timeout for one.
  if (response.headersSent) return;
  response.statusCode = status;
  for (const [name, value] of Object.entries(headers)) {
    // What else it says the answer varies by, as cors does, must stay.
    if (name === 'vary') response.appendHeader(name, value);
    else response.setHeader(name, value);
  }
  response.end(body ?? undefined);
}
