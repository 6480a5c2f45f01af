import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, extname } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type CsvError, type Options as CsvOptions, parse } from 'csv-parse';
import { messageOf, SluiceError } from '../base/errors.ts';

/** A file to load. */
export interface Input {
  /** As it was named: a path, or `-`. */
  readonly name: string;
  readonly table: string;
  readonly format: 'csv' | 'ndjson';
  /** Size in bytes, `undefined` where it has no end yet. */
  readonly bytes: number | undefined;
}

/** Takes the content of a file, at its own pace. */
export interface Sink {
  /** Lines of NDJSON, cut anywhere. */
  feed(chunk: Buffer): Promise<void>;
  /** A record of CSV, and the line that it ends on. */
  write(record: Record<string, unknown>, line: number): Promise<void>;
  /** A line that cannot be read. */
  skip(error: SluiceError, line: number): void;
  /** All of the file was read. */
  end(): Promise<void>;
}

const FORMATS: Readonly<Record<string, Input['format']>> = {
  '.csv': 'csv',
  '.ndjson': 'ndjson',
  '.jsonl': 'ndjson',
  '.json': 'ndjson',
};

/** What a file is, from its name. */
export async function inputOf(name: string, table: string | undefined): Promise<Input> {
  if (name === '-') return { name, table: table ?? 'stdin', format: 'ndjson', bytes: undefined };
  const extension = extname(name).toLowerCase();
  const format = FORMATS[extension];
  if (format === undefined) throw unreadable(name, `its name must end in ${Object.keys(FORMATS).join(', ')}`);
  const facts = await stat(name).catch((error: unknown) => {
    throw unreadable(name, messageOf(error));
  });
  if (facts.isDirectory()) throw unreadable(name, 'it is a folder');
  const bytes = facts.isFile() ? facts.size : undefined;
  return { name, table: table ?? tableOf(basename(name, extname(name))), format, bytes };
}

/** Reads a file to its end; `onBytes` is told how far it is. */
export async function readInto(input: Input, sink: Sink, onBytes: (bytes: number) => void): Promise<void> {
  const file = input.name === '-' ? process.stdin : createReadStream(input.name, { highWaterMark: 256 * 1024 });
  const counted = new Transform({
    transform(chunk: Buffer, _, done) {
      onBytes(chunk.length);
      done(null, chunk);
    },
  });
  // When the sink fails, pipeline may tell that it was aborted, and not why.
  let failure: unknown;
  const remember = (error: unknown) => {
    failure = error;
    throw error;
  };
  try {
    if (input.format === 'csv') {
      await pipeline(file, counted, csvParser(sink), (rows: AsyncIterable<CsvRow>) =>
        writeAll(rows, sink).catch(remember),
      );
    } else {
      await pipeline(file, counted, (chunks: AsyncIterable<Buffer>) => feedAll(chunks, sink).catch(remember));
    }
    await sink.end();
  } catch (error) {
    const reason = failure ?? error;
    throw reason instanceof SluiceError ? reason : unreadable(input.name, messageOf(reason));
  }
}

async function feedAll(chunks: AsyncIterable<Buffer>, sink: Sink): Promise<void> {
  for await (const chunk of chunks) await sink.feed(chunk);
}

async function writeAll(rows: AsyncIterable<CsvRow>, sink: Sink): Promise<void> {
  for await (const { info, record } of rows) await sink.write(record, info.lines);
}

interface CsvRow {
  readonly info: { readonly lines: number };
  readonly record: Record<string, unknown>;
}

/** The first row names the columns. A row that does not fit them costs no other row. */
function csvParser(sink: Sink): Transform {
  const skip = (error: CsvError | undefined) => {
    if (error === undefined) return undefined;
    sink.skip(new SluiceError('SLUICE_INVALID_VALUE', error.message, { cause: error }), Number(error['lines']));
    return undefined;
  };
  let isPairs = false;
  const options: CsvOptions = {
    bom: true,
    info: true,
    columns: (names: string[]) => {
      if (new Set(names.map((name) => name.toLowerCase())).size < names.length || names.includes('')) {
        throw new SluiceError('SLUICE_INVALID_VALUE', 'the first line must name each column once');
      }
      isPairs = names.length === 2 && names.includes('key') && names.includes('value');
      return names;
    },
    skip_empty_lines: true,
    skip_records_with_error: true,
    on_skip: skip,
    max_record_size: 1024 * 1024,
    // Only what stood without quotes can be a number, or nothing. A key is text whatever it looks like.
    cast: (text, { header, quoting, column }) =>
      header || quoting || (isPairs && column === 'key') ? text : cellValue(text),
  };
  return parse(options);
}

/**
 * A number if its digits say the same when they are written again (but for zeros at the end of a fraction), so that 007 and
 * 1e400 stay what they are.
 */
export function cellValue(text: string): string | number | null {
  if (text === '') return null;
  const number = Number(text);
  const shortest = /^-?\d+\.\d+$/.test(text) ? text.replace(/\.?0+$/, '') : text;
  return Number.isFinite(number) && String(number) === shortest ? number : text;
}

/** A table name from a file name. */
function tableOf(stem: string): string {
  const safe = stem
    .normalize('NFC')
    .replace(/[^\p{L}\p{N}_]+/gu, '_')
    .slice(0, 100);
  return /^(sqlite_|_sluice_)/i.test(safe) || safe === '' ? `t_${safe}` : safe;
}

function unreadable(name: string, reason: string): SluiceError {
  return new SluiceError('SLUICE_NOT_FOUND', `${name} cannot be read: ${reason}`);
}
