/**
 * Runs a program on one database for as long as asked, life after life, and makes trouble for it: kills, pauses, locks, full
 * and broken disks, dead threads. Each life checks first what the ones before have left. At the end: a table, and exit code 1 if
 * anything was not as promised. Usage: npm run soak -- --minutes 10 [--seed N] [--writes-per-second N] [--keep]
 */
import { type ChildProcess, fork } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import Sqlite from 'better-sqlite3';
import { Command, InvalidArgumentError } from 'commander';
import { verify } from 'sluicedb';
import { NO_PRELOAD } from '../support/compiled.ts';
import { type Fault, FaultShim } from '../support/fault-shim.ts';
import { seededRandom } from '../support/seed.ts';
import { type Asked, type Birth, type Known, type Sample, type Told, WRITERS } from './protocol.ts';

const LIFE = join(import.meta.dirname, 'life.js');
/** So long a start may take, with a recovery, on a busy machine. */
const START_LIMIT_MS = 60_000;
const END_LIMIT_MS = 120_000;
/** Memory that is held at rest may grow by so much from the second rest of a life to its last one. */
const MAX_GROWTH_BYTES = 48 * 1024 * 1024;
const MAX_DESCRIPTORS_MORE = 3;

const positive = (text: string): number => {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError('a number above 0');
  return value;
};
const { minutes, seed, writesPerSecond, keep } = new Command('soak')
  .option('--minutes <n>', 'how long', positive, 10)
  .option('--seed <n>', 'of all that is random', positive, Math.ceil(Math.random() * 0x7fffffff))
  .option(
    '--writes-per-second <n>',
    'the pace of all writers together, of numbers: each is three writes or so',
    positive,
    8_000,
  )
  .option('--keep', 'keep the folder, even if all is well', false)
  .parse()
  .opts<{ minutes: number; seed: number; writesPerSecond: number; keep: boolean }>();

process.env['SLUICE_SEED'] = String(seed);
const random = seededRandom();
const below = (n: number) => Math.floor(random() * n);
const folder = mkdtempSync(join(tmpdir(), 'sluice-soak-'));
const path = join(folder, 'soak.db');
const shim = NO_PRELOAD === undefined ? new FaultShim(folder) : undefined;
const known: Known = {
  acked: new Array<number>(WRITERS).fill(0),
  cleared: new Array<number>(WRITERS).fill(0),
  clearing: new Array<number>(WRITERS).fill(0),
  increments: 0,
};
const findings: string[] = [];
const totals: Record<string, number> = {};
const count = (what: string, by = 1) => {
  totals[what] = (totals[what] ?? 0) + by;
};

const started = performance.now();
const endAt = started + minutes * 60_000;
const say = (text: string) => {
  console.error(`${((performance.now() - started) / 1_000).toFixed(0).padStart(5)} s  ${text}`);
};

/** Disk troubles that pass, and how long they last. */
const DISK_TROUBLES: Readonly<Record<string, readonly Fault[]>> = {
  'slow syncs': [{ operation: 'sync', error: { slowMs: 100 } }],
  'log cannot grow': [{ operation: 'write', file: '.log', error: 'ENOSPC' }],
  'database cannot grow': [{ operation: 'write', file: 'soak.db-wal', error: 'ENOSPC' }],
  'no new segment': [{ operation: 'open', file: '.log', error: 'EMFILE' }],
};
/** After these a database may refuse to go on, and a new start must mend it. */
const BREAKING: Readonly<Record<string, readonly Fault[]>> = {
  'log that takes no bytes': [{ operation: 'write', file: '.log', error: 'SHORT', times: 3 }],
  'failed sync of the log': [{ operation: 'sync', file: '.log', error: 'EIO', times: 1 }],
  'failed sync of the database': [{ operation: 'sync', file: 'soak.db-wal', error: 'EIO', times: 2 }],
  'log that cannot be written': [{ operation: 'write', file: '.log', error: 'EIO', times: 20 }],
};

type Ending = 'closed' | 'killed' | 'failed' | 'wrong';

/** A process of the program, from its start to its end. */
class Life {
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;
  readonly #news: { told: Told['kind']; resolve: () => void }[] = [];
  readonly #rests: { rss: number; descriptors: number }[] = [];
  #ending: Ending | undefined;
  sample: Sample | undefined;

  constructor(birth: Birth) {
    this.#child = fork(LIFE, [JSON.stringify(birth)], {
      execArgv: ['--expose-gc', '--unhandled-rejections=strict'],
      env: { ...process.env, ...shim?.env },
    });
    this.#child.on('message', (told: Told) => this.#hear(told));
    this.#exited = new Promise((resolve) => {
      this.#child.once('close', (code, signal) => {
        for (const { resolve } of this.#news.splice(0)) resolve();
        if (this.#ending === undefined) this.#wrong(`the process ended by itself: code ${code}, signal ${signal}`);
        resolve();
      });
    });
  }

  get isOver(): boolean {
    return this.#ending !== undefined;
  }

  /** Resolves when the life has said so, or cannot any more. */
  async hears(told: Told['kind'], limitMs: number): Promise<void> {
    if (this.isOver) return;
    const heard = new Promise<'heard'>((resolve) => this.#news.push({ told, resolve: () => resolve('heard') }));
    const late = new AbortController();
    const limit = sleep(limitMs, 'late' as const, { signal: late.signal }).catch(() => 'heard' as const);
    if ((await Promise.race([heard, limit])) === 'late') this.#wrong(`no '${told}' within ${limitMs / 1_000} s`);
    late.abort();
  }

  ask(asked: Asked): void {
    if (this.#child.connected) this.#child.send(asked);
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Nothing under way: memory and descriptors are what is held for good. */
  async rest(): Promise<void> {
    this.ask({ do: 'rest' });
    await this.hears('resting', END_LIMIT_MS);
  }

  async close(): Promise<Ending> {
    if (!this.isOver) {
      await this.rest();
      this.#checkGrowth();
      this.ask({ do: 'end' });
      await this.hears('ended', END_LIMIT_MS);
    }
    return this.over();
  }

  async kill(): Promise<Ending> {
    this.#ending ??= 'killed';
    this.#child.kill('SIGKILL');
    return this.over();
  }

  async over(): Promise<Ending> {
    const limit = setTimeout(() => this.#child.kill('SIGKILL'), END_LIMIT_MS);
    await this.#exited;
    clearTimeout(limit);
    const { flushRetries = 0, writerRestarts = 0, accepted = 0, ...rest } = this.sample ?? {};
    for (const [what, number] of Object.entries({ accepted, flushRetries, writerRestarts })) count(what, number);
    for (const what of ['reads', 'queries', 'stopped', 'transfers', 'cleared'] as const)
      count(what, rest[what as keyof typeof rest] ?? 0);
    return this.#ending ?? 'wrong';
  }

  #hear(told: Told): void {
    if (told.kind === 'known') this.#learn(told);
    else if (told.kind === 'sample') this.sample = told;
    else if (told.kind === 'opened') {
      count('lives');
      count('recovered writes', told.recovered);
      if (told.recovered > 0) count('recoveries');
      totals['longest start, ms'] = Math.max(totals['longest start, ms'] ?? 0, Math.round(told.tookMs));
    } else if (told.kind === 'resting') this.#rests.push(told);
    else if (told.kind === 'wrong') this.#wrong(told.message);
    else if (told.kind === 'failed') {
      if (this.#ending === undefined) say(`refuses to go on: ${told.message}`);
      this.#ending ??= 'failed';
      this.#child.kill('SIGKILL');
    } else this.#ending ??= 'closed';
    for (let i = this.#news.length - 1; i >= 0; i--) {
      if (this.#news[i]?.told === told.kind) this.#news.splice(i, 1)[0]?.resolve();
    }
  }

  #learn({ acked, cleared, clearing, increments }: Partial<Known>): void {
    const most = (a: readonly number[], b: readonly number[]) => a.map((n, i) => Math.max(n, b[i] as number));
    if (acked !== undefined) known.acked = most(known.acked, acked);
    if (cleared !== undefined) known.cleared = most(known.cleared, cleared);
    if (clearing !== undefined) known.clearing = most(known.clearing, clearing);
    if (increments !== undefined) known.increments = Math.max(known.increments, increments);
  }

  /** From the second rest on: the first one has caches and compiled code behind it. */
  #checkGrowth(): void {
    const [, first, ...later] = this.#rests;
    const last = later.at(-1);
    if (first === undefined || last === undefined) return;
    totals['memory grew at most, MiB'] = Math.max(
      totals['memory grew at most, MiB'] ?? 0,
      Math.round((last.rss - first.rss) / 1_048_576),
    );
    count('rests', this.#rests.length);
    if (last.rss - first.rss > MAX_GROWTH_BYTES) findings.push(`memory grew from ${first.rss} to ${last.rss} bytes`);
    if (last.descriptors - first.descriptors > MAX_DESCRIPTORS_MORE)
      findings.push(`file descriptors grew from ${first.descriptors} to ${last.descriptors}`);
  }

  #wrong(message: string): void {
    if (this.#ending === 'wrong' || this.#ending === 'killed') return;
    this.#ending = 'wrong';
    findings.push(message);
    say(`WRONG: ${message}`);
    this.#child.kill('SIGKILL');
  }
}

/** Holds the write lock, as a backup tool would. */
async function lock(ms: number): Promise<void> {
  const other = new Sqlite(path, { timeout: 2_000 });
  try {
    other.exec('BEGIN IMMEDIATE');
    await sleep(ms);
    other.exec('ROLLBACK');
  } catch (error) {
    if ((error as { code?: string }).code !== 'SQLITE_BUSY') throw error;
  } finally {
    other.close();
  }
}

/** One trouble that passes. */
async function trouble(life: Life): Promise<void> {
  const ms = 200 + below(1_500);
  const kinds = ['lock', 'pause', 'dead thread', ...(shim === undefined ? [] : Object.keys(DISK_TROUBLES))];
  const kind = kinds[below(kinds.length)] as string;
  count(kind);
  if (kind === 'lock') await lock(ms);
  else if (kind === 'dead thread') life.ask({ do: 'kill writer thread' });
  else if (kind === 'pause') {
    life.signal('SIGSTOP');
    await sleep(ms);
    life.signal('SIGCONT');
  } else {
    shim?.arm(...(DISK_TROUBLES[kind] as readonly Fault[]));
    await sleep(ms);
    count('calls that failed', shim?.hits().reduce((sum, hits) => sum + hits) ?? 0);
    shim?.arm();
  }
}

/** A life of so many milliseconds, with troubles, to an end that chance decides. */
async function live(ms: number): Promise<Ending> {
  const life = new Life({ path, folder, seed: 1 + below(0x7fffffff), writesPerSecond, known: structuredClone(known) });
  // Some are killed before they have opened.
  if (random() < 0.1) {
    await sleep(below(400));
    return life.kill();
  }
  await life.hears('opened', START_LIMIT_MS);
  const until = performance.now() + ms;
  let restAt = performance.now() + 1_000;
  while (!life.isOver && performance.now() < until) {
    if (performance.now() >= restAt) {
      await life.rest();
      restAt = performance.now() + Math.max(5_000, ms / 8);
    }
    await sleep(200 + below(800));
    if (random() < 0.5) await trouble(life);
  }
  const end = random();
  if (end < 0.45) return life.kill();
  if (end < 0.6 && shim !== undefined) {
    const kinds = Object.keys(BREAKING);
    const kind = kinds[below(kinds.length)] as string;
    count(kind);
    shim.arm(...(BREAKING[kind] as readonly Fault[]));
    await sleep(1_000);
    shim.arm();
    return life.isOver ? life.over() : life.kill();
  }
  return life.close();
}

mkdirSync(folder, { recursive: true });
say(`seed ${seed}, ${path}`);
if (NO_PRELOAD !== undefined) say(`no troubles of the disk: ${NO_PRELOAD}`);
const progress = setInterval(() => {
  say(
    `${totals['lives'] ?? 0} lives, ${known.acked.reduce((sum, n) => sum + n)} numbers acknowledged, ${findings.length} findings`,
  );
}, 10_000);
while (findings.length === 0 && performance.now() < endAt) {
  const left = endAt - performance.now();
  // One life in five is a long one, for what grows slowly.
  const ms = random() < 0.2 ? left / 2 : 500 + below(8_000);
  count(await live(Math.min(ms, left)));
}
clearInterval(progress);

// The last one only looks: everything must be there, and the files in order.
if (findings.length === 0) {
  const last = new Life({ path, folder, seed, writesPerSecond, known: structuredClone(known) });
  await last.hears('known', START_LIMIT_MS);
  // Without troubles there is no reason to refuse.
  const end = await last.close();
  if (end !== 'closed' && findings.length === 0) findings.push(`the last life, without any trouble, was ${end}`);
  const report = await verify(path);
  for (const { message } of report.findings) findings.push(`verify: ${message}`);
}
console.table(totals);
for (const finding of findings) console.log(`WRONG: ${finding}`);
if (findings.length > 0) {
  const kept = `${folder}-kept`;
  cpSync(folder, kept, { recursive: true });
  console.log(
    `The files are in ${kept}. Again, though not to the millisecond: npm run soak -- --minutes ${minutes} --seed ${seed}`,
  );
  process.exitCode = 1;
} else console.log('Nothing was lost, nothing came twice, and nothing grew.');
if (keep) console.log(folder);
else rmSync(folder, { recursive: true });
