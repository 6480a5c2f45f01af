import { StringDecoder } from 'node:string_decoder';
import { crc32 } from 'node:zlib';
import type { ValueCipher } from '../base/encryption/index.ts';
import { messageOf, SluiceError } from '../base/errors.ts';
import { FrameReader, Kind, openWrite, singleWriteProblem, type TargetName } from '../base/frame/index.ts';
import { toJson } from '../base/json.ts';
import { show } from '../base/options.ts';
import type { PortableDeadLetter } from '../store/store.ts';

/** Where NDJSON comes from: a text, or its parts in whatever pieces. */
export type NdjsonSource = string | Uint8Array | Iterable<string | Uint8Array> | AsyncIterable<string | Uint8Array>;

/**
 * One dead letter as a line. `write`, the stored bytes, `overwritten` and `origin` are what an import goes by; the rest is
 * for people and for tools like jq.
 */
export function toLine({ write, ...letter }: PortableDeadLetter): string {
  const bytes = Buffer.from(write);
  return `${toJson({ ...letter, crc32: crc32(bytes), write: bytes.toString('base64') })}\n`;
}

/**
 * The lines of a source that are not empty, with their numbers. `next` waits for its parts, and may give up on one: a source may
 * never say another word.
 */
export async function* linesOf(
  source: NdjsonSource,
  next: (part: Promise<IteratorResult<unknown>>) => Promise<IteratorResult<unknown>>,
): AsyncGenerator<{ readonly number: number; readonly line: string }, void> {
  const parts = partsOf(source);
  const decoder = new StringDecoder();
  let number = 0;
  let begun: string[] = [];
  try {
    for (let isOver = false; !isOver; ) {
      const { value, done } = await next(Promise.resolve(parts.next()));
      isOver = done === true;
      // Nothing else ends a line, as it does for readline: JSON may hold a U+2028.
      const lines = (isOver ? `${decoder.end()}\n` : textOf(value, decoder)).split('\n');
      const rest = lines.pop() as string;
      for (const line of lines) {
        const whole = begun.join('') + line;
        begun = [];
        number++;
        if (whole.trim() !== '') yield { number, line: whole };
      }
      begun.push(rest);
    }
  } finally {
    // Not waited for, since it may wait for the next part itself.
    Promise.resolve(parts.return?.()).catch(() => undefined);
  }
}

/** Throws unless the writes of users may be aimed at this: what has come from outside may be aimed at anything. */
export type CheckTarget = (kind: Kind, target: TargetName) => void;
function partsOf(source: NdjsonSource): Iterator<unknown> | AsyncIterator<unknown> {
  if (typeof source === 'string' || source instanceof Uint8Array) return [source].values();
  const given = (source ?? {}) as Partial<AsyncIterable<unknown> & Iterable<unknown>>;
  const iterator = given[Symbol.asyncIterator]?.() ?? given[Symbol.iterator]?.();
  if (iterator !== undefined) return iterator;
  throw new SluiceError(
    'SLUICE_INVALID_OPTION',
    `dlq.import: pass the lines of an export as a string, as bytes, or as a stream or list of these, not ${show(source)}`,
  );
}

function textOf(part: unknown, decoder: StringDecoder): string {
  if (typeof part === 'string') return part;
  if (part instanceof Uint8Array) return decoder.write(Buffer.from(part.buffer, part.byteOffset, part.byteLength));
  throw new SluiceError(
    'SLUICE_INVALID_VALUE',
    `dlq.import: its source gave ${show(part)} where a string or bytes were due`,
  );
}

/** A line as a dead letter. */
export function fromLine(
  line: string,
  number: number,
  checkTarget: CheckTarget,
  cipher: ValueCipher | undefined,
): PortableDeadLetter {
  try {
    return read(JSON.parse(line) as Record<string, unknown>, checkTarget, cipher);
  } catch (cause) {
    throw new SluiceError(
      'SLUICE_INVALID_VALUE',
      `line ${number} is no dead letter: ${messageOf(cause)}. What came before it was imported; correct the line, and import all of it again: what is there is not taken twice`,
      { cause },
    );
  }
}

function read(
  value: Record<string, unknown>,
  checkTarget: CheckTarget,
  cipher: ValueCipher | undefined,
): PortableDeadLetter {
  if (typeof value !== 'object' || value === null) throw new TypeError('it is no JSON object');
  const stored = Buffer.from(text(value, 'write'), 'base64');
  if (crc32(stored) !== integer(value, 'crc32')) throw new TypeError('write and crc32 do not belong together');
  const write = Buffer.from(openWrite(stored, cipher));
  checkWrite(write, checkTarget);
  return {
    id: 0,
    bytes: write.length,
    // These three, and the content, are read from the write.
    table: null,
    operation: 'put',
    key: null,
    statement: null,
    payload: null,
    seq: integer(value, 'seq'),
    acceptedAt: integer(value, 'acceptedAt'),
    firstFailedAt: integer(value, 'firstFailedAt'),
    lastFailedAt: integer(value, 'lastFailedAt'),
    attempts: integer(value, 'attempts'),
    errorClass: value['errorClass'] === 'config' ? 'config' : 'permanent',
    errorCode: text(value, 'errorCode'),
    // A trigger may raise an error without a word.
    errorMessage: value['errorMessage'] === '' ? '' : text(value, 'errorMessage'),
    origin: text(value, 'origin'),
    write,
    overwritten: pairs(value, 'overwritten'),
  };
}

function checkWrite(write: Buffer, checkTarget: CheckTarget): void {
  const problem = singleWriteProblem(write);
  if (problem !== undefined) throw new TypeError(`write does not decode: ${problem}`);
  // On memory of its own, as the reader wants it aligned.
  const reader = new FrameReader(Buffer.from(Uint8Array.from(write).buffer));
  while (reader.next()) if (reader.kind !== Kind.group) checkTarget(reader.kind, reader.target);
}

function text(value: Record<string, unknown>, name: string): string {
  const found = value[name];
  if (typeof found !== 'string' || found === '') throw new TypeError(`${name} must be a string, not ${show(found)}`);
  return found;
}

function pairs(value: Record<string, unknown>, name: string): [string, string][] {
  const found = value[name] ?? [];
  const isPair = (pair: unknown) =>
    Array.isArray(pair) && pair.length === 2 && pair.every((each) => typeof each === 'string');
  if (Array.isArray(found) && found.every(isPair)) return found as [string, string][];
  throw new TypeError(`${name} must be a list of tables and keys, not ${show(found)}`);
}

function integer(value: Record<string, unknown>, name: string): number {
  const found = value[name];
  if (Number.isSafeInteger(found) && (found as number) >= 0) return found as number;
  throw new TypeError(`${name} must be an integer, not ${show(found)}`);
}
