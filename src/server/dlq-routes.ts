import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { toJson } from '../base/json.ts';
import type { Database } from '../db/database.ts';
import type { DeadLetterQueue, QueueRunOptions } from '../dlq/index.ts';
import { Refusal, send, sendJson, toRefusal } from './answer.ts';
import { type BodyLimits, checkBody, readBody } from './body.ts';
import { type Run, readFilter, readNothing, readPage, readRun } from './dlq-request.ts';
import type { ResolvedCollectorOptions } from './options.ts';
import { readSearch } from './search.ts';

const BODY_BYTES_MAX = 1024 * 1024;

/** A client, and what is between, must not take a run that is slow for one that is dead. */
const TICK_MS = 5_000;

const NDJSON = 'application/x-ndjson';

/** Starts a run on the queue; resolves to what the answer is. */
type Start = (queue: DeadLetterQueue, run: Run, options: QueueRunOptions<object>) => Promise<object>;

const RETRY: Start = (queue, { selection, options }, more) => queue.retry(selection, { ...options, ...more });

const CLEAR: Start = async (queue, { selection, options }, more) => ({
  cleared: await queue.clear(selection, { ...options, ...more }),
});

/** The dead letters over HTTP. */
export class DlqRoutes {
  readonly #db: Database;
  readonly #waitMs: number;
  readonly #limits: BodyLimits;
  /** The runs that are under way. */
  readonly #runs = new Set<AbortController>();
  #closing = false;

  constructor(db: Database, { fullWaitMs, requestTimeoutMs }: ResolvedCollectorOptions) {
    this.#db = db;
    this.#waitMs = fullWaitMs;
    this.#limits = {
      maxBytes: BODY_BYTES_MAX,
      idleMs: requestTimeoutMs,
      types: ['application/json'],
      advice: 'pass a filter, or the ids in several requests',
    };
  }

  /** `GET /dlq`: a page of the entries, without statements and payloads. */
  async list(response: ServerResponse, search: URLSearchParams): Promise<void> {
    const page = readPage(search);
    const entries = await this.#db.dlq.listSummaries({ ...page, timeoutMs: this.#waitMs });
    sendJson(response, 200, { size: this.#db.dlq.size, entries });
  }

  /** `GET /dlq/summary`: the entries counted by table, operation and error code. */
  async summary(response: ServerResponse, search: URLSearchParams): Promise<void> {
    const groups = await this.#db.dlq.summary(readFilter(search), { timeoutMs: this.#waitMs });
    sendJson(response, 200, { size: this.#db.dlq.size, groups });
  }

  /** `GET /dlq/:id`: an entry with all that it has. */
  async get(response: ServerResponse, search: URLSearchParams, id: string): Promise<void> {
    readSearch(search, []);
    const entry = await this.#db.dlq.get(Number(id), { timeoutMs: this.#waitMs });
    if (entry === undefined) {
      throw new Refusal(404, 'SLUICE_NOT_FOUND', `there is no dead letter ${id}: it may have been retried or cleared`);
    }
    send(response, 200, `${toJson(entry)}\n`);
  }

  /** `GET /dlq/export`: NDJSON, read from the database as fast as it is taken. */
  async export(response: ServerResponse, search: URLSearchParams): Promise<void> {
    const lines = this.#db.dlq.export(readFilter(search));
    // What is wrong from the start gets an answer that says so.
    const first = await lines.next();
    response.writeHead(200, { 'content-type': NDJSON });
    if (response.req.method === 'HEAD' || first.done === true) {
      await lines.return();
      response.end();
      return;
    }
    const all = async function* () {
      yield first.value;
      yield* lines;
    };
    // When it breaks in the middle, the connection does too: an end that looks like one would be a lie.
    await pipeline(Readable.from(all()), response).catch(() => response.destroy());
  }

  retry(request: IncomingMessage, response: ServerResponse, search: URLSearchParams): Promise<void> {
    return this.#run(request, response, search, RETRY);
  }

  clear(request: IncomingMessage, response: ServerResponse, search: URLSearchParams): Promise<void> {
    return this.#run(request, response, search, CLEAR);
  }

  /** `POST /dlq/take`: lets the batch go that stands still. */
  async take(request: IncomingMessage, response: ServerResponse, search: URLSearchParams): Promise<void> {
    readSearch(search, []);
    readNothing(await this.#bodyOf(request, response), 'POST /dlq/take');
    const result = await this.#whileThere(response, (signal) => this.#db.dlq.take({ signal }));
    if (result !== undefined) sendJson(response, 200, result);
  }

  /** Ends what is under way: it may take hours, and what it has done stays done. */
  callOff(): void {
    this.#closing = true;
    for (const run of this.#runs) run.abort();
  }

  /** `POST /dlq/retry` and `POST /dlq/clear`. */
  async #run(request: IncomingMessage, response: ServerResponse, search: URLSearchParams, start: Start): Promise<void> {
    readSearch(search, []);
    const run = readRun(await this.#bodyOf(request, response), `POST ${request.url}`);
    const report = wantsProgress(request) ? new ProgressReport(response) : undefined;
    try {
      const onProgress = (progress: object) => report?.tell(progress);
      const result = await this.#whileThere(response, (signal) => start(this.#db.dlq, run, { signal, onProgress }));
      if (result === undefined) return;
      if (report === undefined) sendJson(response, 200, result);
      else report.end({ result });
    } catch (error) {
      if (report?.begun !== true) throw error;
      const { code, message } = toRefusal(error);
      report.end({ error: { code, message } });
    } finally {
      report?.stop();
    }
  }

  async #bodyOf(request: IncomingMessage, response: ServerResponse): Promise<Buffer> {
    checkBody(request, this.#limits);
    const chunks: Buffer[] = [];
    for await (const chunk of readBody(request, response, this.#limits)) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  /** Calls the work off when the client goes away: `undefined` then, since nobody is there to be told. */
  async #whileThere<T>(response: ServerResponse, work: (signal: AbortSignal) => Promise<T>): Promise<T | undefined> {
    const stop = new AbortController();
    const abort = () => stop.abort();
    response.once('close', abort);
    this.#runs.add(stop);
    try {
      if (this.#closing || response.destroyed) stop.abort();
      return await work(stop.signal);
    } catch (error) {
      if (!stop.signal.aborted) throw error;
      if (response.destroyed) return undefined;
      throw new Refusal(503, 'SLUICE_CLOSED', 'the collector is closing: what was done so far stays done');
    } finally {
      this.#runs.delete(stop);
      response.off('close', abort);
    }
  }
}

/** How far a run is, as lines of NDJSON. The last one has the result, or why there is none. */
class ProgressReport {
  readonly #response: ServerResponse;
  readonly #timer: NodeJS.Timeout;
  #last: object = { done: 0 };

  constructor(response: ServerResponse) {
    this.#response = response;
    this.#timer = setInterval(() => this.#write({ progress: this.#last }), TICK_MS).unref();
  }

  /** Whether it is too late for an answer of another kind. */
  get begun(): boolean {
    return this.#response.headersSent;
  }

  tell(progress: object): void {
    this.#last = progress;
    // Who does not read them all gets the newer ones.
    if (!this.#response.writableNeedDrain) this.#write({ progress });
  }

  end(last: object): void {
    this.#write(last);
    this.#response.end();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #write(line: object): void {
    if (this.#response.destroyed) return;
    if (!this.begun) this.#response.writeHead(200, { 'content-type': NDJSON });
    this.#response.write(`${JSON.stringify(line)}\n`);
  }
}

function wantsProgress({ headers }: IncomingMessage): boolean {
  const accepted = (headers.accept ?? '').split(',').map((type) => type.split(';', 1)[0]?.trim().toLowerCase());
  return accepted.includes(NDJSON);
}
