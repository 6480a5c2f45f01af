import { createReadStream } from 'node:fs';
import { resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Command, Option } from 'commander';
import { codeOf, messageOf, SluiceError } from '../base/errors.ts';
import { toJson } from '../base/json.ts';
import { type DeadLetterPage, type DeadLetterQuery, type DeadLetterSelection, WRITE_OPERATIONS } from '../dlq/index.ts';
import type { DeadLetterSummary } from '../store/store.ts';
import { decimal, integer, time } from './arguments.ts';
import { CollectorQueue } from './dlq-client.ts';
import { FileQueue } from './dlq-file.ts';
import type { DlqTarget, RunOptions } from './dlq-target.ts';
import { entryText, listText, summaryText } from './dlq-text.ts';
import { ENCRYPTION_HELP } from './encryption.ts';
import { startEntryProgress } from './progress.ts';

interface TargetFlags {
  readonly db?: string;
  readonly url?: string;
  readonly json?: boolean;
}

interface FilterFlags {
  readonly table?: string;
  readonly operation?: string;
  readonly errorCode?: string;
  readonly since?: number;
  readonly until?: number;
}

interface ListFlags extends TargetFlags, FilterFlags {
  readonly limit: number;
  readonly after?: number;
  readonly order: 'oldest' | 'newest';
}

interface RunFlags extends TargetFlags, FilterFlags {
  readonly all?: boolean;
  readonly rate?: number;
  readonly batchSize?: number;
}

/** Reads what a command was given, `words` being those behind the file, and says what to do with the queue. */
type Plan<Flags> = (flags: Flags, words: readonly string[]) => (target: DlqTarget) => Promise<void>;

/** Entries that are asked for at a time. */
const PAGE = 1_000;

const WHERE =
  '\nThe queue is that of a FILE that no process has open (FILE may also be said as --db FILE), or of a running collector' +
  "\n(--url URL; its token is taken from SLUICE_TOKEN). A file's log is applied first, as whenever it is opened." +
  ENCRYPTION_HELP;

const SELECTION =
  '\nSay which: ids, filters, or --all. Filters that are given must all fit. A run can be interrupted, and made again.';

/** `sluice dlq COMMAND` */
export function dlqCommand(): Command {
  return new Command('dlq')
    .description('look at dead letters, the writes that SQLite refused for good, and deal with them')
    .addCommand(listCommand())
    .addCommand(
      filtered(command('summary', 'count them by table, operation and error code', summary))
        .option('--json', 'a JSON array of groups')
        .addHelpText('after', WHERE),
    )
    .addCommand(
      command('show', 'show one of them, with its statement and its payload', show, ['[ID...]', 'id of the entry: one'])
        .option('--json', 'a JSON object; integers beyond 2^53 as strings, BLOBs as {"$blob": base64}')
        .addHelpText('after', WHERE),
    )
    .addCommand(
      run('retry', 'apply them again: exit code 1 if any fails again', retry)
        .option('--json', 'a JSON object: applied, failed, superseded, missing')
        .addHelpText('after', SELECTION + WHERE),
    )
    .addCommand(
      run('clear', 'delete them for good', clear)
        .option('--json', 'a JSON object: cleared')
        .addHelpText('after', SELECTION + WHERE),
    )
    .addCommand(
      filtered(
        command('export', 'write them to standard output as NDJSON; they stay in the queue', exportAll),
      ).addHelpText('after', WHERE),
    )
    .addCommand(
      command('import', 'take the entries of an export in (default: from standard input)', importAll, [
        '[EXPORT...]',
        "file that was exported; '-' is standard input",
      ])
        .option('--json', 'a JSON object: imported, duplicates')
        .addHelpText('after', `${WHERE}\nA collector takes no imports: stop it first.`),
    )
    .addCommand(
      command('take', 'let a batch go that stands still: what cannot be applied goes to the queue', take)
        .option('--json', 'a JSON object: dead')
        .addHelpText('after', WHERE),
    );
}

function command<Flags extends TargetFlags>(
  name: string,
  what: string,
  plan: Plan<Flags>,
  rest?: readonly [name: string, what: string],
): Command {
  const made = new Command(name)
    .description(what)
    .argument('[FILE]', 'the database file')
    .option('--db <file>', 'the database file, instead of FILE')
    .option('--url <url>', 'a running collector, instead of FILE');
  if (rest !== undefined) made.argument(...rest);
  return made.action(async (...given: unknown[]) => {
    const [first, more] = given as [string | undefined, unknown];
    const flags = made.opts<Flags>();
    const words = [...(first === undefined ? [] : [first]), ...(Array.isArray(more) ? (more as string[]) : [])];
    const { open, left } = targetOf(flags, words, rest !== undefined);
    // What is wrong is said before anything is opened.
    const work = plan(flags, left);
    const target = await open();
    try {
      await work(target);
    } finally {
      await target.close();
    }
  });
}

function filtered(made: Command): Command {
  return made
    .option('--table <name>', 'only those for this table')
    .addOption(new Option('--operation <name>', 'only those that wanted this').choices(WRITE_OPERATIONS))
    .option('--error-code <code>', 'only those with this code of SQLite, or one that extends it: SQLITE_CONSTRAINT')
    .option(
      '--since <time>',
      'only those refused first at this time (2026-03-01T12:00:00Z, or 2026-03-01) or later',
      time,
    )
    .option('--until <time>', 'only those refused first before this time', time);
}

function listCommand(): Command {
  return filtered(command('list', 'list them, without statements and payloads', list))
    .option('--limit <number>', 'how many at most', integer, 1_000)
    .option('--after <id>', 'begin behind this one', integer)
    .addOption(new Option('--order <which>', 'which come first').choices(['oldest', 'newest']).default('oldest'))
    .option('--json', 'NDJSON, an entry a line')
    .addHelpText('after', WHERE);
}

function run(name: string, what: string, plan: Plan<RunFlags>): Command {
  return filtered(command(name, what, plan, ['[ID...]', 'ids of entries']))
    .option('--all', 'all that there are')
    .option('--rate <number>', 'at most this many a second', decimal)
    .option('--batch-size <number>', 'how many in one transaction (default: 500)', integer);
}

/** The queue that is meant, and what is left of the words. */
function targetOf(
  { db, url }: TargetFlags,
  words: readonly string[],
  takesMore: boolean,
): { open: () => DlqTarget | Promise<DlqTarget>; left: readonly string[] } {
  const named = db ?? url;
  const file = db ?? (url === undefined ? words[0] : undefined);
  const left = named === undefined ? words.slice(1) : words;
  if ((db !== undefined && url !== undefined) || (file === undefined && url === undefined)) {
    throw wrong('say where the queue is: FILE, --db FILE or --url URL');
  }
  if (file !== undefined && left.some((word) => resolve(word) === resolve(file))) {
    // To read it and close it again would free the locks that SQLite has on it.
    throw wrong(`${file} is the database, and no export of one`);
  }
  if (left.length > 0 && !takesMore) throw wrong(`'${left[0]}' is one too many: with --db and --url there is no FILE`);
  return { open: () => (url === undefined ? FileQueue.open(file as string) : new CollectorQueue(url)), left };
}

// ── the commands ────────────────────────────────────────────────────────────────────────────────────────────────────

function list(flags: ListFlags): (target: DlqTarget) => Promise<void> {
  if (flags.limit === 0) throw wrong('--limit must be at least 1');
  return async (target) => {
    const entries: DeadLetterSummary[] = [];
    let { after } = flags;
    for (let isMore = true; isMore && entries.length < flags.limit; ) {
      const limit = Math.min(PAGE, flags.limit - entries.length);
      const page: DeadLetterPage = { ...filterOf(flags), limit, after, order: flags.order };
      const found = await target.list(page);
      entries.push(...found);
      after = found.at(-1)?.id;
      isMore = found.length === limit;
    }
    if (flags.json === true) await print(entries.map((entry) => `${toJson(entry)}\n`));
    else await print([`${listText(entries, widthOf())}\n`]);
    if (entries.length === flags.limit) console.error(`there may be more: --after ${after}, or a larger --limit`);
  };
}

function summary(flags: TargetFlags & FilterFlags): (target: DlqTarget) => Promise<void> {
  return async (target) => {
    const groups = await target.summary(filterOf(flags));
    await print([flags.json === true ? `${toJson(groups)}\n` : `${summaryText(groups, widthOf())}\n`]);
  };
}

function show({ json }: TargetFlags, words: readonly string[]): (target: DlqTarget) => Promise<void> {
  const [id, ...more] = idsOf(words);
  if (id === undefined || more.length > 0) throw wrong('say which entry: one id');
  return async (target) => {
    const entry = await target.get(id);
    if (entry === undefined) throw new SluiceError('SLUICE_NOT_FOUND', `there is no dead letter ${id}`);
    await print([json === true ? `${toJson(entry)}\n` : `${entryText(entry)}\n`]);
  };
}

function retry(flags: RunFlags, words: readonly string[]): (target: DlqTarget) => Promise<void> {
  const selection = selectionOf(flags, words);
  return async (target) => {
    const result = await withProgress(flags, (options) => target.retry(selection, options));
    const { applied, failed, superseded, missing } = result;
    const text = `${applied} applied, ${failed} failed again, ${superseded} superseded, ${missing} not there`;
    await print([flags.json === true ? `${toJson(result)}\n` : `${text}\n`]);
    if (failed > 0) process.exitCode = 1;
  };
}

function clear(flags: RunFlags, words: readonly string[]): (target: DlqTarget) => Promise<void> {
  const selection = selectionOf(flags, words);
  return async (target) => {
    const cleared = await withProgress(flags, (options) => target.clear(selection, options));
    await print([flags.json === true ? `${toJson({ cleared })}\n` : `${cleared} cleared\n`]);
  };
}

function exportAll(flags: TargetFlags & FilterFlags): (target: DlqTarget) => Promise<void> {
  return (target) => print(target.export(filterOf(flags)));
}

function importAll({ json }: TargetFlags, words: readonly string[]): (target: DlqTarget) => Promise<void> {
  const [name = '-', ...more] = words;
  if (more.length > 0) throw wrong('say one file to import from');
  return async (target) => {
    const source = name === '-' ? process.stdin : createReadStream(name);
    try {
      const result = await target.import(readable(source, name));
      const text = `${result.imported} imported, ${result.duplicates} were there already`;
      await print([json === true ? `${toJson(result)}\n` : `${text}\n`]);
    } finally {
      // An input that never ends would keep the process.
      source.destroy();
    }
  };
}

function take({ json }: TargetFlags): (target: DlqTarget) => Promise<void> {
  return async (target) => {
    const dead = await target.take();
    await print([json === true ? `${toJson({ dead })}\n` : `${dead} writes went to the queue\n`]);
  };
}

// ── what they are told ──────────────────────────────────────────────────────────────────────────────────────────────

function filterOf({ table, operation, errorCode, since, until }: FilterFlags): DeadLetterQuery {
  return { table, operation: operation as DeadLetterQuery['operation'], errorCode, since, until };
}

function selectionOf(flags: RunFlags, words: readonly string[]): DeadLetterSelection {
  const ids = idsOf(words);
  const filter = filterOf(flags);
  const isFiltered = Object.values(filter).some((value) => value !== undefined);
  if ([ids.length > 0, isFiltered, flags.all === true].filter(Boolean).length !== 1) {
    throw wrong('say which entries: ids, filters such as --table, or --all, and only one of these');
  }
  if (ids.length > 0) return ids;
  return isFiltered ? filter : 'all';
}

function idsOf(words: readonly string[]): number[] {
  return words.map((word) => {
    if (/^\d{1,15}$/.test(word)) return Number(word);
    throw wrong(`'${word}' is no id: ids are numbers, as sluice dlq list shows them`);
  });
}

function wrong(message: string): SluiceError {
  return new SluiceError('SLUICE_INVALID_OPTION', message);
}

async function* readable(source: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Uint8Array, void> {
  try {
    yield* source;
  } catch (error) {
    throw new SluiceError('SLUICE_NOT_FOUND', `${name} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

// ── what they say ───────────────────────────────────────────────────────────────────────────────────────────────────

async function withProgress<T>({ rate, batchSize }: RunFlags, work: (options: RunOptions) => Promise<T>): Promise<T> {
  const progress = startEntryProgress();
  try {
    return await work({ ratePerSecond: rate, batchSize, onProgress: (at) => progress.update(at) });
  } finally {
    progress.stop();
  }
}

/** Who reads no further, as head does, has what they wanted. */
async function print(parts: Iterable<string> | AsyncIterable<string | Uint8Array>): Promise<void> {
  try {
    await pipeline(Readable.from(parts), process.stdout, { end: false });
  } catch (error) {
    if (codeOf(error) !== 'EPIPE') throw error;
  }
}

function widthOf(): number {
  return process.stdout.isTTY ? process.stdout.columns : Number.POSITIVE_INFINITY;
}
