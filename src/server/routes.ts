import type { IncomingMessage, ServerResponse } from 'node:http';
import findMyWay, { type HTTPMethod } from 'find-my-way';
import type { Database } from '../db/database.ts';
import type { MetricsHandler } from '../metrics/index.ts';
import { discardBody, Refusal, sendJson, sendRefusal, toRefusal } from './answer.ts';
import type { DlqRoutes } from './dlq-routes.ts';
import type { Guard } from './guard.ts';
import { readPair } from './kv-route.ts';
import type { ResolvedCollectorOptions } from './options.ts';
import type { QueryProcess } from './query-process.ts';
import { query } from './query-route.ts';
import type { Readiness } from './readiness.ts';
import type { Tables } from './tables.ts';
import { write } from './write-route.ts';

/** Long enough for any key that fits into the head of a request. */
export const HEAD_BYTES_MAX: number = 64 * 1024;

/** What the routes lead to. */
export interface Parts {
  readonly options: ResolvedCollectorOptions;
  readonly db: Database;
  readonly tables: Tables;
  readonly child: QueryProcess;
  readonly dlq: DlqRoutes;
  readonly readiness: Readiness;
  readonly metrics: MetricsHandler;
  readonly guard: Guard;
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void;
type Params = Record<string, string | undefined>;

const READ: HTTPMethod[] = ['GET', 'HEAD'];
const METHODS: readonly HTTPMethod[] = [...READ, 'POST'];

/** Everything that the collector answers. */
export function createHandler(parts: Parts): Handler {
  const router = createRouter(parts);
  return (request, response) => {
    response.setHeader('x-content-type-options', 'nosniff');
    response.setHeader('cross-origin-resource-policy', 'same-origin');
    response.setHeader('cache-control', 'no-store');
    try {
      parts.guard.check(request, pathOf(request));
      router.lookup(request, response);
    } catch (error) {
      sendRefusal(response, toRefusal(error));
    }
    // What no route reads is in the way of the next request.
    if (response.writableEnded) discardBody(request);
  };
}

function createRouter({
  options,
  db,
  tables,
  child,
  dlq,
  readiness,
  metrics,
}: Parts): findMyWay.Instance<findMyWay.HTTPVersion.V1> {
  const { bodyMaxBytes, requestTimeoutMs, fullWaitMs } = options;
  const router = findMyWay({
    maxParamLength: HEAD_BYTES_MAX,
    defaultRoute: (request, response) => sendRefusal(response, nothingHere(router, request)),
    onBadUrl: (_, __, response) =>
      sendRefusal(response, new Refusal(400, 'HTTP_BAD_REQUEST', 'the path is not percent-encoded as it should be')),
  });
  const on = (
    methods: HTTPMethod[],
    path: string,
    answer: (request: IncomingMessage, response: ServerResponse, params: Params) => Promise<void> | void,
  ) =>
    router.on(methods, path, (request, response, params) => {
      run(request, response, () => answer(request, response, params));
    });

  on(['POST'], '/write/:table', (request, response, { table = '' }) =>
    write(request, response, { db, tables, table, fullWaitMs }, { maxBytes: bodyMaxBytes, idleMs: requestTimeoutMs }),
  );
  on(READ, '/kv/:table/:key', (_, response, { table = '', key = '' }) =>
    readPair(response, tables, table, key, fullWaitMs),
  );
  on(READ, '/query', (request, response) => query(response, searchOf(request), { db, child, flushWaitMs: fullWaitMs }));
  on(READ, '/dlq', (request, response) => dlq.list(response, searchOf(request)));
  on(READ, '/dlq/summary', (request, response) => dlq.summary(response, searchOf(request)));
  on(READ, '/dlq/export', (request, response) => dlq.export(response, searchOf(request)));
  on(READ, '/dlq/:id(^\\d+$)', (request, response, { id = '' }) => dlq.get(response, searchOf(request), id));
  on(['POST'], '/dlq/retry', (request, response) => dlq.retry(request, response, searchOf(request)));
  on(['POST'], '/dlq/clear', (request, response) => dlq.clear(request, response, searchOf(request)));
  on(['POST'], '/dlq/take', (request, response) => dlq.take(request, response, searchOf(request)));
  on(READ, '/metrics', (request, response) => metrics(request, response));
  on(READ, '/healthz', (_, response) => sendJson(response, 200, { state: 'alive' }));
  on(READ, '/readyz', (_, response) => {
    const { answer } = readiness;
    sendJson(response, answer.ready ? 200 : 503, answer);
  });
  return router;
}

/** Answers with what was thrown; a request must never end without an answer. */
function run(request: IncomingMessage, response: ServerResponse, answer: () => Promise<void> | void): void {
  const refuse = (error: unknown) => {
    if (!response.destroyed) sendRefusal(response, toRefusal(error));
    discardBody(request);
  };
  try {
    answer()?.catch(refuse);
  } catch (error) {
    refuse(error);
  }
}

function nothingHere(router: findMyWay.Instance<findMyWay.HTTPVersion.V1>, request: IncomingMessage): Refusal {
  const path = pathOf(request);
  const allow = METHODS.filter((method) => router.find(method, path) !== null).join(', ');
  if (allow === '') {
    return new Refusal(
      404,
      'HTTP_NOT_FOUND',
      'there is POST /write/:table, GET /kv/:table/:key, /query?sql=…, /dlq, /dlq/summary, /dlq/export, /dlq/:id, POST /dlq/retry, /dlq/clear, /dlq/take, GET /metrics, /healthz and /readyz',
    );
  }
  return new Refusal(405, 'HTTP_METHOD_NOT_ALLOWED', `use ${allow} here`, { allow });
}

function pathOf({ url = '' }: IncomingMessage): string {
  return url.split('?', 1)[0] as string;
}

function searchOf({ url = '' }: IncomingMessage): URLSearchParams {
  const start = url.indexOf('?');
  return new URLSearchParams(start < 0 ? '' : url.slice(start));
}
