/**
 * One life of the program that the soak runs: opens the database, checks what the lives before have left, then writes, reads,
 * queries, transfers and clears until it is told to end, or is killed. Says what it knows to its parent.
 */
import { readdirSync, writeSync } from 'node:fs';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { type Database, type Rows, SluiceError, type Table } from 'sluicedb';
import { openOn } from '../../dist/db/open.js';
import { machine } from '../support/machine.ts';
import { MortalWriter } from '../support/mortal-writer.ts';
import { seededRandom } from '../support/seed.ts';
import { audit, checkBalance, Wrong } from './books.ts';
import {
  ACCOUNTS,
  type Asked,
  BALANCE,
  type Birth,
  KEYS,
  PAIR_EVERY,
  POISON_EVERY,
  PRUNE_EVERY,
  STEPS_KEPT,
  type Told,
  WRITERS,
} from './protocol.ts';

/** Queries that take far longer than their limit: one that finds no row meanwhile, and one that finds row after row. */
const NUMBERS = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000000)';
const SLOW_QUERIES = [`${NUMBERS} SELECT max(i) FROM n`, `${NUMBERS} SELECT i FROM n`];

/** Longer than any trouble, and the time limit of any call. */
const REST_LIMIT_MS = 40_000;

/** Longer than the slowest query takes. */
const LET_GO_MS = 15_000;

const birth = JSON.parse(process.argv[2] as string) as Birth;
process.env['SLUICE_SEED'] = String(birth.seed);
const random = seededRandom();
const below = (n: number) => Math.floor(random() * n);
const known = structuredClone(birth.known);

function tell(told: Told): void {
  process.send?.(told);
}

const descriptors = () => readdirSync('/proc/self/fd').length;

class Life {
  readonly #db: Database;
  readonly #readings: Rows<{ writer: number; n: number; at: number }>;
  readonly #picky: Table;
  readonly #writer: MortalWriter;
  readonly #last: number[];
  #ending = false;
  #resting = false;
  /** What goes on, for the message if it does not come to rest. */
  readonly #busy: Set<string> = new Set();
  #loops: Promise<void>[] = [];
  #leastDescriptors = Number.POSITIVE_INFINITY;
  readonly #counts = { reads: 0, queries: 0, stopped: 0, transfers: 0, cleared: 0 };

  private constructor(db: Database, writer: MortalWriter, last: number[]) {
    this.#db = db;
    this.#writer = writer;
    this.#last = last;
    this.#readings = db.rows('readings', { columns: { writer: 'integer', n: 'integer', at: 'real' } });
    this.#picky = db.table('picky');
  }

  static async begin(): Promise<Life> {
    const writer = new MortalWriter(birth.folder);
    const from = performance.now();
    const db = await openOn(machine({ spawn: writer.spawn }), birth.path, {
      durability: 'sync',
      cache: { strategy: 'lru', maxEntries: 500 },
      flush: { intervalMs: 1 + below(200) },
      log: { segmentBytes: 256 * 1024, maxBytes: 64 * 1024 * 1024 },
      closeTimeoutMs: 60_000,
    });
    // Somebody listens: what happens here is no news.
    for (const event of ['dead-letter', 'failure'] as const) db.on(event, () => undefined);
    tell({ kind: 'opened', recovered: db.stats().recovered, tookMs: performance.now() - from });
    await db.aexecute(
      `CREATE TABLE IF NOT EXISTS picky (key TEXT PRIMARY KEY, value TEXT CHECK (value <> '"poison"'))`,
    );
    await db.aexecute('CREATE TABLE IF NOT EXISTS readings (writer INTEGER, n INTEGER, at REAL)');
    await db.aexecute('CREATE INDEX IF NOT EXISTS readings_order ON readings (writer, n)');
    await db.atransaction(
      async (tx) => {
        await tx.aexecute('CREATE TABLE IF NOT EXISTS accounts (id INTEGER PRIMARY KEY, balance INTEGER)');
        for (let id = 0; id < ACCOUNTS; id++)
          await tx.aexecute('INSERT OR IGNORE INTO accounts VALUES (?, ?)', [id, BALANCE]);
      },
      { sql: true },
    );
    const { last, increments } = await audit(db, known);
    known.acked = [...last];
    known.increments = increments;
    tell({ kind: 'known', acked: known.acked, increments });
    const life = new Life(db, writer, last);
    // What a call that was cut off has left of its dead letters.
    await life.#clear(known.clearing);
    return life;
  }

  start(): void {
    const loops: Record<string, () => Promise<void>> = {
      read: () => this.#read(),
      query: () => this.#query(),
      'slow query': () => this.#slowQuery(),
      transfer: () => this.#transfer(),
      increment: () => this.#increment(),
      clear: () => this.#clearOften(),
      sample: () => this.#sample(),
    };
    for (const writer of this.#last.keys()) loops[`write ${writer}`] = () => this.#write(writer);
    for (const name of Object.keys(loops)) this.#busy.add(name);
    this.#loops = Object.entries(loops).map(([name, loop]) => this.#repeat(name, loop));
  }

  asked(asked: Asked): void {
    if (asked.do === 'kill writer thread') void this.#writer.kill(1 + below(300));
    else if (asked.do === 'rest') void this.#rest().catch(fail);
    else void this.#end().catch(fail);
  }

  /** Does something again and again, but for pauses in which the whole program rests. */
  async #repeat(name: string, once: () => Promise<void>): Promise<void> {
    while (!this.#ending) {
      if (this.#resting) {
        this.#busy.delete(name);
        while (this.#resting && !this.#ending) await sleep(5);
        this.#busy.add(name);
        continue;
      }
      try {
        await once();
      } catch (error) {
        if (!(await this.#goesOn(error))) return;
      }
    }
  }

  /** Whether an error is one that a program under these troubles has to expect. */
  async #goesOn(error: unknown): Promise<boolean> {
    const code = error instanceof SluiceError ? error.code : undefined;
    if (
      code === 'SLUICE_FULL' ||
      code === 'SLUICE_TIMEOUT' ||
      code === 'SLUICE_OUTCOME_UNKNOWN' ||
      code === 'SLUICE_STORE'
    ) {
      await sleep(20);
      return true;
    }
    if (code === 'SLUICE_FAILED' || code === 'SLUICE_LOG_IO') {
      if (this.#db.state !== 'failed') return true;
      tell({ kind: 'failed', message: String(error) });
      this.#ending = true;
      return false;
    }
    fail(error);
    return false;
  }

  /** One thing, tried until there is room for it. */
  async #surely(write: () => unknown): Promise<void> {
    for (;;) {
      try {
        write();
        return;
      } catch (error) {
        if (!(error instanceof SluiceError) || error.code !== 'SLUICE_FULL') throw error;
        await sleep(2);
      }
    }
  }

  async #write(writer: number): Promise<void> {
    const from = performance.now();
    const numbers = 1 + below(100);
    for (let i = 0; i < numbers; i++) {
      // Counted first: from here on it may be there, whatever becomes of us.
      const n = (this.#last[writer] as number) + 1;
      if (n % POISON_EVERY === 0) await this.#surely(() => this.#picky.set(`bad/${writer}/${n}`, 'poison'));
      await this.#surely(() => this.#db.set(`w/${writer}/${n % KEYS}`, n));
      await this.#surely(() => this.#readings.append({ writer, n, at: from }));
      this.#last[writer] = n;
      if (n % PAIR_EVERY === 0)
        await this.#surely(() => this.#db.setMany({ [`pair/${writer}/a`]: n, [`pair/${writer}/b`]: n }));
      if (n % PRUNE_EVERY === 0 && n > PRUNE_EVERY * STEPS_KEPT)
        await this.#surely(() =>
          this.#db.stage('DELETE FROM readings WHERE writer = ? AND n <= ?', [writer, n - PRUNE_EVERY * STEPS_KEPT]),
        );
    }
    const written = this.#last[writer] as number;
    const acknowledged = this.#db.adurable().then(() => {
      known.acked[writer] = Math.max(known.acked[writer] as number, written);
      tell({ kind: 'known', acked: known.acked });
    });
    if (below(3) === 0) await acknowledged;
    else acknowledged.catch((error: unknown) => this.#goesOn(error));
    if (this.#db.needsDrain) await this.#db.adrain();
    const pauseMs = (numbers * WRITERS * 1_000) / birth.writesPerSecond - (performance.now() - from);
    await (pauseMs > 1 ? sleep(pauseMs) : nextTurn());
  }

  /** What was written last is what is read, from wherever it comes. */
  async #read(): Promise<void> {
    for (let i = 0; i < 20; i++) {
      const writer = below(WRITERS);
      const slot = below(KEYS);
      const value = this.#db.get(`w/${writer}/${slot}`, 0) as number;
      const last = this.#last[writer] as number;
      const expected = [last, last + 1].map((end) => Math.max(0, end - ((((end - slot) % KEYS) + KEYS) % KEYS)));
      if (!expected.includes(value)) throw new Wrong(`read w/${writer}/${slot} as ${value}, at number ${last}`);
      this.#counts.reads++;
    }
    await sleep(5);
  }

  /** Staged rows are part of what a query sees, and there is no hole in them. */
  async #query(): Promise<void> {
    const writer = below(WRITERS);
    const last = this.#last[writer] as number;
    const { count, least, greatest } = (await this.#db.afetchOne<Record<string, number>>(
      `SELECT count(*) AS count, coalesce(min(n), 1) AS least, coalesce(max(n), 0) AS greatest
         FROM readings WHERE writer = ?`,
      [writer],
      { timeoutMs: 30_000 },
    )) as { count: number; least: number; greatest: number };
    if (greatest < last || count !== greatest - least + 1)
      throw new Wrong(
        `a query found ${JSON.stringify({ count, least, greatest })} of writer ${writer}, at number ${last}`,
      );
    this.#counts.queries++;
    await sleep(50);
  }

  async #slowQuery(): Promise<void> {
    try {
      await this.#db.afetchAll(SLOW_QUERIES[below(2)] as string, [], { timeoutMs: 200 });
      throw new Wrong('a query of ten million numbers was done in 200 ms');
    } catch (error) {
      if (!(error instanceof SluiceError) || error.code !== 'SLUICE_TIMEOUT') throw error;
      this.#counts.stopped++;
    }
    await sleep(1_000 + below(2_000));
  }

  async #transfer(): Promise<void> {
    const [from, to, amount] = [below(ACCOUNTS), below(ACCOUNTS), below(BALANCE)];
    await this.#db.atransaction(
      async (tx) => {
        await tx.aexecute('UPDATE accounts SET balance = balance - ? WHERE id = ?', [amount, from]);
        if (below(4) === 0) await sleep(below(20));
        await tx.aexecute('UPDATE accounts SET balance = balance + ? WHERE id = ?', [amount, to]);
      },
      { sql: true, timeoutMs: 5_000 },
    );
    this.#counts.transfers++;
    await sleep(100);
  }

  /** Two at a time, so that they get into each other's way. */
  async #increment(): Promise<void> {
    const add = () =>
      this.#db.atransaction(async (tx) => {
        const value = ((await tx.aget('increments')) ?? 0) as number;
        await nextTurn();
        tx.set('increments', value + 1);
      });
    const outcomes = await Promise.allSettled([add(), add()]);
    await this.#db.adurable();
    for (const outcome of outcomes) {
      if (outcome.status === 'fulfilled') known.increments++;
      else if (!(outcome.reason instanceof SluiceError && outcome.reason.code === 'SLUICE_CONFLICT'))
        throw outcome.reason;
    }
    tell({ kind: 'known', increments: known.increments });
    await sleep(20);
  }

  async #clearOften(): Promise<void> {
    await sleep(2_000 + below(4_000));
    const upTo = [...this.#last];
    await this.#db.aflush();
    await this.#clear(upTo);
  }

  async #clear(upTo: readonly number[]): Promise<void> {
    const letters = await this.#db.dlq.listSummaries({ limit: 100_000 });
    const ids = letters.filter(({ key }) => {
      const [writer, n] = (key ?? '').split('/').slice(1).map(Number) as [number, number];
      return n <= (upTo[writer] as number);
    });
    known.clearing = [...upTo];
    await new Promise<void>((told) =>
      process.send?.({ kind: 'known', clearing: known.clearing } satisfies Told, () => told()),
    );
    this.#counts.cleared += await this.#db.dlq.clear(ids.map(({ id }) => id));
    known.cleared = [...upTo];
    tell({ kind: 'known', cleared: known.cleared });
  }

  async #sample(): Promise<void> {
    checkBalance(this.#db);
    const { rss, heapUsed } = process.memoryUsage();
    const { accepted, applied, writerRestarts, flushRetries } = this.#db.stats();
    const counts = { ...this.#counts, accepted, applied, writerRestarts, flushRetries };
    tell({ kind: 'sample', rss, heap: heapUsed, descriptors: descriptors(), ...counts });
    await sleep(1_000);
  }

  async #rest(): Promise<void> {
    this.#resting = true;
    const deadline = performance.now() + REST_LIMIT_MS;
    while (this.#busy.size > 0 && !this.#ending) {
      if (performance.now() > deadline) throw new Wrong(`does not come to rest: ${[...this.#busy].join(', ')}`);
      await sleep(5);
    }
    await this.#db.aflush({ wait: true, timeoutMs: REST_LIMIT_MS });
    await audit(this.#db, { ...known, acked: [...this.#last] });
    // A query that was called off inside SQLite is about to end, and its thread lets go of all it has then.
    const until = performance.now() + LET_GO_MS;
    while (descriptors() > this.#leastDescriptors && performance.now() < until) await sleep(100);
    this.#leastDescriptors = Math.min(this.#leastDescriptors, descriptors());
    globalThis.gc?.();
    tell({ kind: 'resting', rss: process.memoryUsage().rss, descriptors: descriptors() });
    this.#resting = false;
  }

  async #end(): Promise<void> {
    this.#ending = true;
    await Promise.all(this.#loops);
    const { rows, deadLetters } = await audit(this.#db, { ...known, acked: [...this.#last] });
    known.acked = [...this.#last];
    tell({ kind: 'known', acked: known.acked });
    const { pending } = await this.#db.close();
    if (pending !== 0) throw new Wrong(`closed, with ${pending} writes that were not applied`);
    tell({ kind: 'ended', rows, deadLetters });
    process.off('disconnect', orphaned);
    process.disconnect();
  }
}

/** The first thing that is wrong ends this life. */
function fail(error: unknown): void {
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  writeSync(2, `${message}\n`);
  process.send?.({ kind: 'wrong', message } satisfies Told, () => process.exit(3));
}

/** Nobody is there any more who could end this life. */
function orphaned(): void {
  process.kill(process.pid, 'SIGKILL');
}

process.on('unhandledRejection', fail);
process.on('disconnect', orphaned);
const life = await Life.begin().catch((error: unknown) => {
  // A disk that fails while we open is no broken promise: the next life tries again.
  const isDisk = error instanceof SluiceError && !(error instanceof Wrong) && error.code !== 'SLUICE_LOG_CORRUPT';
  if (isDisk) tell({ kind: 'failed', message: String(error) });
  else fail(error);
  return undefined;
});
if (life !== undefined) {
  life.start();
  process.on('message', (asked: Asked) => life.asked(asked));
}
