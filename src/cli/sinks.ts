import { systemClock } from '../base/clock.ts';
import { SluiceError } from '../base/errors.ts';
import type { WriteAnswer } from '../server/index.ts';
import { type Destination, type LineError, LineWriter } from '../server/line-writer.ts';
import { LINE_BYTES_MAX, LineSplitter } from '../server/lines.ts';
import { checkUrl, nobodyThere, reasonOf, tokenHeaders } from './address.ts';
import type { Sink } from './records.ts';

/** Where a file goes to, and what became of its lines. */
export interface CountingSink extends Sink {
  readonly accepted: number;
  readonly rejected: number;
  /** The first of what was wrong. */
  readonly errors: readonly LineError[];
}

/** Writes into an open database. */
export class DatabaseSink implements CountingSink {
  readonly #writer: LineWriter;

  private constructor(writer: LineWriter) {
    this.#writer = writer;
  }

  static async open(to: Destination): Promise<DatabaseSink> {
    return new DatabaseSink(await LineWriter.open(to));
  }

  get accepted(): number {
    return this.#writer.accepted;
  }

  get rejected(): number {
    return this.#writer.rejected;
  }

  get errors(): readonly LineError[] {
    return this.#writer.errors;
  }

  feed(chunk: Buffer): Promise<void> {
    return this.#writer.feed(chunk);
  }

  write(record: Record<string, unknown>, line: number): Promise<void> {
    return this.#writer.write(record, line);
  }

  skip(error: SluiceError, line: number): void {
    this.#writer.skip(error, line);
  }

  end(): Promise<void> {
    return this.#writer.end();
  }
}

/** Lines of one request. */
const PART_BYTES = 1024 * 1024;

/** How long a collector may answer that it is full before the file is given up. */
const FULL_MAX_MS = 120_000;

const ERRORS_MAX = 100;

interface SentLine {
  readonly line: number;
  readonly bytes: Buffer;
}

/**
 * Writes to a running collector, a part of the file a request. A part stays in memory until it is answered, so that what
 * the collector had no room for is sent again, and nothing else.
 */
export class HttpSink implements CountingSink {
  accepted = 0;
  rejected = 0;
  readonly errors: LineError[] = [];
  readonly #url: string;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #splitter = new LineSplitter();
  #part: SentLine[] = [];
  #partBytes = 0;
  #line = 0;

  constructor(url: string, table: string) {
    this.#url = `${checkUrl(url)}/write/${encodeURIComponent(table)}`;
    this.#headers = { 'content-type': 'application/x-ndjson', ...tokenHeaders() };
  }

  async feed(chunk: Buffer): Promise<void> {
    for (const line of this.#splitter.split(chunk)) {
      const sent = this.#add(line, ++this.#line);
      if (sent !== undefined) await sent;
    }
  }

  async write(record: Record<string, unknown>, line: number): Promise<void> {
    await this.#add(Buffer.from(JSON.stringify(record)), line);
  }

  skip({ code, message }: SluiceError, line: number): void {
    this.rejected++;
    if (this.errors.length < ERRORS_MAX) this.errors.push({ line, code, message });
  }

  async end(): Promise<void> {
    for (const line of this.#splitter.end()) await this.#add(line, ++this.#line);
    await this.#sendPart();
  }

  /** Returns a promise only where a part is full. */
  #add(bytes: Buffer | undefined, line: number): Promise<void> | undefined {
    if (bytes === undefined) {
      this.skip(new SluiceError('SLUICE_INVALID_VALUE', `the line is longer than ${LINE_BYTES_MAX} bytes`), line);
      return undefined;
    }
    // The collector does not count empty lines, so they must not be in what it counts.
    if (isBlank(bytes)) return undefined;
    this.#part.push({ line, bytes });
    this.#partBytes += bytes.length + 1;
    return this.#partBytes >= PART_BYTES ? this.#sendPart() : undefined;
  }

  async #sendPart(): Promise<void> {
    const part = this.#part;
    this.#part = [];
    this.#partBytes = 0;
    await this.#send(part);
  }

  async #send(part: readonly SentLine[]): Promise<void> {
    let left = part;
    let deadline = performance.now() + FULL_MAX_MS;
    while (left.length > 0) {
      const { status, answer, retryAfterMs } = await this.#post(left);
      if (status === 413 && answer.accepted === undefined && left.length > 1) {
        const half = left.length >> 1;
        await this.#send(left.slice(0, half));
        return this.#send(left.slice(half));
      }
      const done = this.#count(left, status, answer);
      left = left.slice(done);
      if (left.length === 0) return;
      if (status !== 503 || performance.now() > deadline) throw refused(this.#url, status, answer);
      if (done > 0) deadline = performance.now() + FULL_MAX_MS;
      await new Promise<void>((resolve) => systemClock.after(retryAfterMs, resolve, { hold: true }));
    }
  }

  /** Takes the counts of an answer over; returns how many lines it is about. */
  #count(sent: readonly SentLine[], status: number, answer: Partial<WriteAnswer>): number {
    if (answer.unconfirmed !== undefined && answer.unconfirmed > 0) {
      throw new SluiceError(
        'SLUICE_OUTCOME_UNKNOWN',
        `${answer.unconfirmed} lines may be there or not: ${answer.error?.message ?? `the answer was ${status}`}`,
      );
    }
    const { accepted = 0, rejected = 0, errors = [] } = answer;
    this.accepted += accepted;
    this.rejected += rejected;
    for (const error of errors) {
      if (this.errors.length < ERRORS_MAX) {
        this.errors.push({ ...error, line: sent[error.line - 1]?.line ?? error.line });
      }
    }
    return accepted + rejected;
  }

  async #post(
    lines: readonly SentLine[],
  ): Promise<{ status: number; answer: Partial<WriteAnswer>; retryAfterMs: number }> {
    const newline = Buffer.from('\n');
    const body = Buffer.concat(lines.flatMap(({ bytes }) => [bytes, newline]));
    let response: Response;
    let text: string;
    try {
      response = await fetch(this.#url, { method: 'POST', headers: this.#headers, body, redirect: 'error' });
      text = await response.text();
    } catch (cause) {
      const nobody = nobodyThere(this.#url, cause);
      if (nobody !== undefined) throw nobody;
      throw new SluiceError(
        'SLUICE_OUTCOME_UNKNOWN',
        `${this.#url} did not answer (${reasonOf(cause)}): the last ${lines.length} lines that were sent may be there or not`,
        { cause },
      );
    }
    const retryAfterMs = 1_000 * Math.min(60, Number(response.headers.get('retry-after') ?? 1) || 1);
    return { status: response.status, answer: parseAnswer(text), retryAfterMs };
  }
}

function isBlank(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0x20 || (byte >= 0x09 && byte <= 0x0d));
}

function parseAnswer(text: string): Partial<WriteAnswer> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}

function refused(url: string, status: number, { error }: Partial<WriteAnswer>): SluiceError {
  const reason = error?.message ?? 'is there a collector at this address?';
  return new SluiceError(
    status === 503 ? 'SLUICE_FULL' : 'SLUICE_INVALID_OPTION',
    `${url} answered ${status}: ${reason}`,
  );
}
