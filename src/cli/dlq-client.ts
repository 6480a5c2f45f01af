import { ERROR_CODES, SluiceError, type SluiceErrorCode } from '../base/errors.ts';
import type { DeadLetterPage, DeadLetterQuery, DeadLetterSelection, ImportResult, RetryResult } from '../dlq/index.ts';
import type { DeadLetter, DeadLetterGroup, DeadLetterSummary } from '../store/store.ts';
import { checkUrl, nobodyThere, reasonOf, tokenHeaders } from './address.ts';
import type { DlqTarget, RunOptions, RunProgress } from './dlq-target.ts';

const NDJSON = 'application/x-ndjson';

interface RefusedAnswer {
  readonly error?: { readonly code: string; readonly message: string };
}

/** A line of an answer that tells how far a run is. */
interface RunLine<Result> extends RefusedAnswer {
  readonly progress?: Partial<RunProgress>;
  readonly result?: Result;
}

/** The queue of a running collector. */
export class CollectorQueue implements DlqTarget {
  readonly #url: string;

  constructor(url: string) {
    this.#url = checkUrl(url);
  }

  async list(page: DeadLetterPage): Promise<DeadLetterSummary[]> {
    const { entries } = (await this.#json(`/dlq${searchOf(page)}`)) as { entries: DeadLetterSummary[] };
    return entries;
  }

  async summary(query: DeadLetterQuery): Promise<DeadLetterGroup[]> {
    const { groups } = (await this.#json(`/dlq/summary${searchOf(query)}`)) as { groups: DeadLetterGroup[] };
    return groups;
  }

  async get(id: number): Promise<DeadLetter | undefined> {
    return (await this.#json(`/dlq/${id}`)) as DeadLetter;
  }

  async *export(query: DeadLetterQuery): AsyncGenerator<Uint8Array, void> {
    const path = `/dlq/export${searchOf(query)}`;
    yield* this.#partsOf(path, {}, await this.#fetch(path, {}));
  }

  async retry(selection: DeadLetterSelection, options: RunOptions): Promise<RetryResult> {
    return this.#run<RetryResult>('/dlq/retry', selection, options);
  }

  async clear(selection: DeadLetterSelection, options: RunOptions): Promise<number> {
    return (await this.#run<{ cleared: number }>('/dlq/clear', selection, options)).cleared;
  }

  async take(): Promise<number> {
    const headers = { 'content-type': 'application/json' };
    return ((await this.#json('/dlq/take', { method: 'POST', headers, body: '{}' })) as { dead: number }).dead;
  }

  async import(): Promise<ImportResult> {
    throw new SluiceError(
      'SLUICE_UNSUPPORTED',
      'a collector takes no imports, since they may hold any statement: stop it, and import into its file',
    );
  }

  async close(): Promise<void> {}

  async #run<Result>(path: string, selection: DeadLetterSelection, options: RunOptions): Promise<Result> {
    const { ratePerSecond, batchSize, onProgress } = options;
    const init = {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: NDJSON },
      body: JSON.stringify({ ...bodyOf(selection), ratePerSecond, batchSize }),
    };
    let last: RunLine<Result> = {};
    for await (const line of linesOf(this.#partsOf(path, init, await this.#fetch(path, init)))) {
      last = parseLine(line) as RunLine<Result>;
      const { done, total } = last.progress ?? {};
      if (done !== undefined && total !== undefined) onProgress({ done, total });
    }
    if (last.error !== undefined) throw refusal(last.error.code, `${this.#url}: ${last.error.message}`);
    if (last.result === undefined) throw this.#broken(path, init, undefined);
    return last.result;
  }

  async #json(path: string, init: RequestInit = {}): Promise<unknown> {
    const response = await this.#fetch(path, init);
    try {
      return await response.json();
    } catch (cause) {
      throw this.#broken(path, init, cause);
    }
  }

  /** An answer of success; all others are thrown. */
  async #fetch(path: string, init: RequestInit): Promise<Response> {
    let response: Response;
    try {
      const headers = { ...tokenHeaders(), ...(init.headers as Record<string, string> | undefined) };
      response = await fetch(`${this.#url}${path}`, { ...init, headers, redirect: 'error' });
    } catch (cause) {
      throw nobodyThere(this.#url, cause) ?? this.#broken(path, init, cause);
    }
    if (response.ok) return response;
    const { error } = (await response.json().catch(() => ({}))) as RefusedAnswer;
    const reason = error?.message ?? 'is there a collector at this address?';
    throw refusal(error?.code, `${this.#url} answered ${response.status}: ${reason}`);
  }

  async *#partsOf(path: string, init: RequestInit, { body }: Response): AsyncGenerator<Uint8Array, void> {
    if (body === null) return;
    try {
      yield* body as AsyncIterable<Uint8Array>;
    } catch (cause) {
      throw this.#broken(path, init, cause);
    }
  }

  /** What became of a read that broke off is known: nothing. */
  #broken(path: string, { method }: RequestInit, cause: unknown): SluiceError {
    const what = `${this.#url}${path} did not answer to the end (${cause === undefined ? 'it broke off' : reasonOf(cause)})`;
    if (method === undefined) return new SluiceError('SLUICE_NOT_FOUND', what, { cause });
    const advice = "what was done stays done, look with 'sluice dlq summary'";
    return new SluiceError('SLUICE_OUTCOME_UNKNOWN', `${what}: ${advice}`, { cause });
  }
}

function searchOf(page: DeadLetterPage): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(page)) {
    if (value !== undefined) search.set(name, String(value));
  }
  return `?${search}`;
}

function bodyOf(selection: DeadLetterSelection): object {
  if (selection === 'all') return { all: true };
  return Array.isArray(selection) ? { ids: selection } : { filter: selection };
}

async function* linesOf(parts: AsyncIterable<Uint8Array>): AsyncGenerator<string, void> {
  const decoder = new TextDecoder();
  let begun = '';
  for await (const part of parts) {
    const lines = (begun + decoder.decode(part, { stream: true })).split('\n');
    begun = lines.pop() ?? '';
    yield* lines;
  }
}

/** A line that is no JSON is none of a collector's. */
function parseLine(line: string): object {
  try {
    return JSON.parse(line) as object;
  } catch {
    return {};
  }
}

/** Codes that only HTTP has mean a request that is wrong here, such as one without its token. */
function refusal(code: string | undefined, message: string): SluiceError {
  const known = ERROR_CODES.includes(code as SluiceErrorCode);
  return new SluiceError(known ? (code as SluiceErrorCode) : 'SLUICE_INVALID_OPTION', message);
}
