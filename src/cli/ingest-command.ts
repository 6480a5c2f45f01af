import { Command, Option } from 'commander';
import { messageOf, SluiceError } from '../base/errors.ts';
import type { Database } from '../db/database.ts';
import { open } from '../db/open.ts';
import { DURABILITIES } from '../db/options.ts';
import { closeOnSignals } from '../db/signals.ts';
import type { Durability } from '../engine/index.ts';
import { Tables } from '../server/tables.ts';
import { checkUrl } from './address.ts';
import { ENCRYPTION_HELP, encryptionOfEnvironment } from './encryption.ts';
import { inMiB, type Progress, startProgress } from './progress.ts';
import { type Input, inputOf, readInto } from './records.ts';
import { type CountingSink, DatabaseSink, HttpSink } from './sinks.ts';

interface IngestFlags {
  readonly db?: string;
  readonly url?: string;
  readonly table?: string;
  readonly durability: Durability;
  readonly strict: boolean;
}

interface Totals {
  rows: number;
  bad: number;
  bytes: number;
  /** Files that could not be loaded to their end. */
  failed: number;
}

/** What a file is loaded into. */
interface Target {
  sinkFor(input: Input): CountingSink | Promise<CountingSink>;
  /** Waits until everything is where it belongs; says how it went. */
  finish(rows: number): Promise<string>;
  close(): Promise<void>;
}

/** How long to wait for room: a loader has time, but not for ever. */
const FULL_WAIT_MS = 60_000;

const ERRORS_SHOWN = 10;

/** `sluice ingest FILE…` */
export function ingestCommand(): Command {
  return new Command('ingest')
    .description('load CSV (.csv, first line: columns) and NDJSON (.ndjson, .jsonl, .json) files')
    .argument('<FILE...>', "the files; '-' is NDJSON from standard input")
    .option('--db <file>', 'database file to load into, made if there is none')
    .option('--url <url>', 'running collector to send to instead; its token is taken from SLUICE_TOKEN')
    .option('--table <name>', 'table to load into (default: the name of the file without its ending)')
    .addOption(
      new Option('--durability <level>', 'durability of the database while it is loaded')
        .choices([...DURABILITIES])
        .default('sync' satisfies Durability),
    )
    .option('--strict', 'exit with 1 if any line is bad', false)
    .addHelpText(
      'after',
      '\nLines of the form {"key":…, "value":…} become entries of a key-value table, all others rows; columns are added as' +
        '\nthey come. In CSV, numbers become numbers, nothing becomes NULL, and all else, and what is quoted, stays text.' +
        '\nA bad line is reported and costs no other line.' +
        ENCRYPTION_HELP,
    )
    .action(ingest);
}

async function ingest(files: readonly string[], flags: IngestFlags): Promise<void> {
  const target = await targetOf(flags);
  const totals: Totals = { rows: 0, bad: 0, bytes: 0, failed: 0 };
  const start = performance.now();
  try {
    const inputs = await inputsOf(files, flags.table, totals);
    const progress = startProgress(sizeOf(inputs));
    try {
      for (const input of inputs) await load(input, target, progress, totals);
    } finally {
      progress.stop();
    }
    const outcome = await target.finish(totals.rows);
    console.log(summary(totals, (performance.now() - start) / 1_000, outcome));
  } finally {
    await target.close();
  }
  if (totals.failed > 0 || (flags.strict && totals.bad > 0)) process.exitCode = 1;
}

async function targetOf({ db: file, url, durability }: IngestFlags): Promise<Target> {
  if ((file === undefined) === (url === undefined)) {
    throw new SluiceError('SLUICE_INVALID_OPTION', 'say where to load into: --db FILE or --url URL');
  }
  if (url !== undefined) return collectorTarget(url);
  return databaseTarget(await open(file as string, { durability, encryption: encryptionOfEnvironment() }));
}

function databaseTarget(db: Database): Target {
  const tables = new Tables(db);
  const forget = closeOnSignals(db);
  return {
    sinkFor: ({ table }) => DatabaseSink.open({ db, tables, table, fullWaitMs: FULL_WAIT_MS }),
    async finish(rows) {
      await db.aflush();
      const { deadLettered } = db.stats();
      return `${rows - deadLettered} applied, ${deadLettered} dead`;
    },
    async close() {
      forget();
      await db.close();
    },
  };
}

function collectorTarget(url: string): Target {
  checkUrl(url);
  return {
    sinkFor: ({ table }) => new HttpSink(url, table),
    finish: async (rows) => `${rows} confirmed by ${url}`,
    close: async () => {},
  };
}

async function inputsOf(files: readonly string[], table: string | undefined, totals: Totals): Promise<Input[]> {
  const inputs: Input[] = [];
  for (const file of files) {
    try {
      inputs.push(await inputOf(file, table));
    } catch (error) {
      fail(error, totals);
    }
  }
  return inputs;
}

async function load(input: Input, target: Target, progress: Progress, totals: Totals): Promise<void> {
  let sink: CountingSink | undefined;
  try {
    sink = await target.sinkFor(input);
    await readInto(input, sink, (bytes) => {
      totals.bytes += bytes;
      progress.add(bytes);
    });
  } catch (error) {
    fail(error, totals);
  }
  if (sink === undefined) return;
  totals.rows += sink.accepted;
  totals.bad += sink.rejected;
  for (const { line, code, message } of sink.errors.slice(0, ERRORS_SHOWN)) {
    console.error(`${input.name}: line ${line}: ${message} (${code})`);
  }
  const more = sink.rejected - ERRORS_SHOWN;
  if (more > 0) console.error(`${input.name}: and ${more} more`);
}

function fail(error: unknown, totals: Totals): void {
  if (!(error instanceof SluiceError)) throw error;
  totals.failed++;
  console.error(`sluice: ${messageOf(error)} (${error.code})`);
}

function sizeOf(inputs: readonly Input[]): number | undefined {
  let total = 0;
  for (const { bytes } of inputs) {
    if (bytes === undefined) return undefined;
    total += bytes;
  }
  return total;
}

function summary({ rows, bad, bytes }: Totals, seconds: number, outcome: string): string {
  const rate = (amount: number) => amount / Math.max(seconds, 0.001);
  const speed = `${Math.round(rate(rows))} rows/s, ${inMiB(rate(bytes))} MiB/s`;
  return `${rows} rows in ${seconds.toFixed(2)} s (${speed}): ${outcome}, ${bad} bad lines`;
}
