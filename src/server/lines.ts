import { isUtf8 } from 'node:buffer';
import { messageOf, SluiceError } from '../base/errors.ts';
import { show } from '../base/options.ts';

/** A line cannot be longer than this, in bytes. */
export const LINE_BYTES_MAX: number = 1024 * 1024;

const NEWLINE = 0x0a;

/** Cuts a stream of bytes into lines. Keeps one line at most, and of a line that is too long nothing. */
export class LineSplitter {
  readonly #maxBytes: number;
  #begun: Buffer[] = [];
  #begunBytes = 0;

  constructor(maxBytes: number = LINE_BYTES_MAX) {
    this.#maxBytes = maxBytes;
  }

  /** The lines that end in `chunk`, without their ends; `undefined` for one that is too long. */
  *split(chunk: Buffer): Generator<Buffer | undefined, void> {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      yield this.#finish(chunk.subarray(start, end));
      start = end + 1;
    }
    if (start < chunk.length) this.#keep(chunk.subarray(start));
  }

  /** The last line, if it has no end. */
  *end(): Generator<Buffer | undefined, void> {
    if (this.#begunBytes > 0) yield this.#finish(Buffer.alloc(0));
  }

  #keep(part: Buffer): void {
    this.#begunBytes += part.length;
    if (this.#begunBytes > this.#maxBytes) this.#begun = [];
    else this.#begun.push(part);
  }

  #finish(part: Buffer): Buffer | undefined {
    const bytes = this.#begunBytes + part.length;
    const line = this.#begun.length === 0 ? part : Buffer.concat([...this.#begun, part]);
    this.#begun = [];
    this.#begunBytes = 0;
    return bytes > this.#maxBytes ? undefined : line;
  }
}

/** The object on a line; `undefined` for an empty line. Errors: `SLUICE_INVALID_VALUE`. */
export function parseLine(line: Buffer | undefined, isFirst: boolean): Record<string, unknown> | undefined {
  if (line === undefined) throw invalid(`the line is longer than ${LINE_BYTES_MAX} bytes`);
  if (!isUtf8(line)) throw invalid('the line is not UTF-8');
  const text = line.toString('utf8', isFirst && hasByteOrderMark(line) ? 3 : 0).trim();
  if (text === '') return undefined;
  const value = parseJson(text);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(`a line must be a JSON object, not ${show(value)}`);
  }
  return value as Record<string, unknown>;
}

function hasByteOrderMark(line: Buffer): boolean {
  return line[0] === 0xef && line[1] === 0xbb && line[2] === 0xbf;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new SluiceError('SLUICE_INVALID_VALUE', `the line is not JSON: ${messageOf(cause)}`, { cause });
  }
}

function invalid(message: string): SluiceError {
  return new SluiceError('SLUICE_INVALID_VALUE', message);
}
