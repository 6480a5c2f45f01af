import { copyFileSync, existsSync, mkdirSync, readdirSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { type Database, type OpenOptions, SluiceError, type SqlTransaction, type Transaction } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { assertOnEveryPath } from '../support/every-path.ts';
import { machine } from '../support/machine.ts';
import { MortalWriter } from '../support/mortal-writer.ts';
import { tempDir } from '../support/temp-dir.ts';

/**
 * Transactions of both kinds beside a plain model: conflicts, errors, members that SQLite refuses, retries of what died of them,
 * writer threads that die at any moment, and power cuts that leave the log torn at any byte. Whatever happens, of a
 * transaction there is everything or nothing, and what there is, is a prefix of what was accepted.
 */

const KEYS = [...'abcdefghij'];
const WORDS = ['v1', 'v2', 'fine', 'fine'];

interface Step {
  readonly key: string;
  /** `undefined` deletes. */
  readonly word: string | undefined;
}

interface KeyTransaction {
  readonly kind: 'sync' | 'async' | 'conflict';
  readonly steps: readonly Step[];
  readonly fails: boolean;
}

type Call =
  | { readonly do: 'put'; readonly step: Step }
  | { readonly do: 'transact'; readonly transaction: KeyTransaction }
  | {
      readonly do: 'sql';
      readonly rows: number;
      readonly ends: 'commit' | 'throw' | 'orphan';
      /** Moments of the writer thread to its end, counted from the last one of the rows. */
      readonly dies: number | undefined;
      readonly key: string;
    }
  | { readonly do: 'flush'; readonly moments: number | undefined }
  | { readonly do: 'forbid'; readonly words: readonly (readonly [string, string])[]; readonly repairs: boolean }
  | { readonly do: 'retry'; readonly moments: number | undefined }
  | { readonly do: 'cut'; readonly unsynced: readonly KeyTransaction[]; readonly part: number }
  | { readonly do: 'reopen' };

const key = fc.constantFrom(...KEYS);
const step: fc.Arbitrary<Step> = fc.record({
  key,
  word: fc.oneof({ weight: 5, arbitrary: fc.constantFrom(...WORDS) }, fc.constant(undefined)),
});
const transaction: fc.Arbitrary<KeyTransaction> = fc.record({
  kind: fc.constantFrom('sync' as const, 'async' as const, 'conflict' as const),
  steps: fc.uniqueArray(step, { minLength: 1, maxLength: 4, selector: (each) => each.key }),
  fails: fc.oneof({ weight: 5, arbitrary: fc.constant(false) }, fc.constant(true)),
});
/** When the writer thread is to die, if it is to. */
const moments = fc.option(fc.integer({ min: 1, max: 40 }), { nil: undefined });
const call: fc.Arbitrary<Call> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('put' as const), step }) },
  { weight: 8, arbitrary: fc.record({ do: fc.constant('transact' as const), transaction }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('sql' as const),
      rows: fc.integer({ min: 2, max: 4 }),
      ends: fc.constantFrom('commit' as const, 'commit' as const, 'throw' as const, 'orphan' as const),
      dies: fc.oneof(fc.constant(undefined), fc.integer({ min: -5, max: 0 }), fc.integer({ min: 1, max: 2 })),
      key,
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('flush' as const), moments }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('forbid' as const),
      words: fc.uniqueArray(fc.tuple(fc.constantFrom('v1', 'v2'), fc.constantFrom('abort', 'rollback')), {
        maxLength: 2,
        selector: ([word]) => word,
      }),
      repairs: fc.boolean(),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('retry' as const), moments }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('cut' as const),
      unsynced: fc.array(transaction, { minLength: 2, maxLength: 5 }),
      part: fc.integer({ min: 0, max: 1_000 }).map((n) => n / 1_000),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'reopen' as const }) },
);

/** The paths that this is about. */
const hit = {
  conflicts: 0,
  thrown: 0,
  'dead as a group': 0,
  'dead beside a member that is fine': 0,
  'retried whole': 0,
  'retried in part, the rest was written since': 0,
  'refused again': 0,
  'died in a flush of groups': 0,
  'died in a retry': 0,
  'SQL committed': 0,
  'SQL refused at COMMIT': 0,
  'SQL rolled back by a death': 0,
  'SQL committed, and nobody knew': 0,
  'SQL not committed, and nobody knew': 0,
  'cut inside a group': 0,
  'cut behind a group': 0,
};

// ── the model ─────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Write {
  readonly key: string;
  readonly word: string | undefined;
  readonly value: string | undefined;
}

interface Entry {
  /** The numbers that it has taken. */
  readonly first: number;
  readonly last: number;
  readonly writes: readonly Write[];
  /** The row that goes with it, where it is a transaction. */
  readonly row: number | undefined;
}

class Model {
  readonly values = new Map<string, { readonly value: string | undefined; readonly seq: number }>();
  readonly rows = new Set<number>();
  readonly forbidden = new Set<string>();
  staged: Entry[] = [];
  dead: Entry[] = [];

  view(name: string): string | undefined {
    const written = this.staged.flatMap(({ writes }) => writes).findLast((write) => write.key === name);
    return written === undefined ? this.values.get(name)?.value : written.value;
  }

  flush(): void {
    for (const entry of this.staged) {
      if (this.#isRefused(entry.writes)) {
        this.dead.push(entry);
        if (entry.row === undefined) continue;
        hit['dead as a group']++;
        if (!entry.writes.every((write) => this.#isRefused([write]))) hit['dead beside a member that is fine']++;
      } else this.#make(entry, entry.writes);
    }
    this.staged = [];
    this.#supersede();
  }

  /** The newest first: what is written since need not be tried. */
  retry(): void {
    const kept: Entry[] = [];
    for (const entry of this.dead.toReversed()) {
      const writes = this.#notSince(entry);
      if (this.#isRefused(writes)) {
        kept.unshift(entry);
        if (entry.row !== undefined) hit['refused again']++;
      } else {
        this.#make(entry, writes);
        if (entry.row === undefined) continue;
        const isWhole = writes.length === entry.writes.length;
        hit[isWhole ? 'retried whole' : 'retried in part, the rest was written since']++;
      }
    }
    this.dead = kept;
    this.#supersede();
  }

  #make({ last, row }: Entry, writes: readonly Write[]): void {
    for (const { key: name, value } of writes) this.values.set(name, { value, seq: last });
    if (row !== undefined) this.rows.add(row);
  }

  #isRefused(writes: readonly Write[]): boolean {
    return writes.some(({ word }) => word !== undefined && this.forbidden.has(word));
  }

  #notSince({ first, writes }: Entry): Write[] {
    return writes.filter((write) => (this.values.get(write.key)?.seq ?? 0) < first);
  }

  /** A single write of a key that is written since is of no use any more; a transaction still has its row. */
  #supersede(): void {
    this.dead = this.dead.filter((entry) => entry.row !== undefined || this.#notSince(entry).length > 0);
  }
}

// ── the real one ──────────────────────────────────────────────────────────────────────────────────────────────────────

const OPTIONS: OpenOptions = { flush: { mode: 'manual' }, closeTimeoutMs: 0 };

class Thrown extends Error {}

class Run {
  readonly #folder: string;
  readonly #model = new Model();
  readonly #hasCache: boolean;
  #thread = new MortalWriter();
  #db!: Database;
  #lives = 0;
  #numbers = 0;
  #restarts = 0;
  /** Rows of the SQL transactions that are committed, by their numbers. */
  readonly #entries = new Map<number, number>();

  constructor(folder: string, hasCache: boolean) {
    this.#folder = folder;
    this.#hasCache = hasCache;
  }

  get #file(): string {
    return join(this.#folder, String(this.#lives), 'a.db');
  }

  async begin(): Promise<void> {
    mkdirSync(join(this.#folder, '0'), { recursive: true });
    await this.#open();
    for (const sql of [
      'CREATE TABLE forbidden (word TEXT PRIMARY KEY, how TEXT)',
      'CREATE TABLE ledger (n INTEGER)',
      'CREATE TABLE parent (id INTEGER PRIMARY KEY)',
      'CREATE TABLE entry (n INTEGER, parent INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)',
      'CREATE TABLE data (key TEXT PRIMARY KEY, value TEXT)',
      ...['INSERT', 'UPDATE'].map(
        (on) => `CREATE TRIGGER guard_${on} AFTER ${on} ON data BEGIN
          SELECT CASE (SELECT how FROM forbidden WHERE word = substr(json_extract(NEW.value, '$'), 1, 2))
            WHEN 'abort' THEN RAISE(ABORT, 'no') WHEN 'rollback' THEN RAISE(ROLLBACK, 'no') END; END`,
      ),
    ]) {
      await this.#db.aexecute(sql);
    }
    await this.#forbid([['v1', 'abort']]);
  }

  async #open(): Promise<void> {
    this.#thread = new MortalWriter();
    const options: OpenOptions = this.#hasCache ? { ...OPTIONS, cache: 'unbounded' } : OPTIONS;
    this.#db = await openOn(machine({ spawn: this.#thread.spawn }), this.#file, options);
    this.#db.on('dead-letter', () => {});
    this.#db.on('failure', () => {});
    this.#db.on('writer-restart', () => this.#restarts++);
  }

  close(): Promise<unknown> {
    return this.#db.close();
  }

  async do(given: Call): Promise<void> {
    switch (given.do) {
      case 'put':
        return this.#put(given.step);
      case 'transact':
        return this.#transact(given.transaction);
      case 'sql':
        return this.#sql(given);
      case 'flush':
        return this.#flush(given.moments);
      case 'forbid':
        if (given.repairs) {
          await this.#forbid([]);
          await this.#retry(undefined);
        }
        return this.#forbid(given.words);
      case 'retry':
        return this.#retry(given.moments);
      case 'cut':
        return this.#cut(given);
      case 'reopen':
        await this.#db.close();
        await this.#open();
        return this.#flush(undefined);
    }
  }

  async end(): Promise<void> {
    await this.#forbid([]);
    await this.#retry(undefined);
    expect(this.#db.dlq.size).toBe(0);
  }

  #written({ key: name, word }: Step, view: (name: string) => string | undefined): Write {
    // There is nothing to delete, so something is put there.
    const made = word ?? (view(name) === undefined ? 'fine' : undefined);
    return { key: name, word: made, value: made === undefined ? undefined : `${made}#${++this.#numbers}` };
  }

  #put(given: Step): void {
    const write = this.#written(given, (name) => this.#model.view(name));
    this.#staged([write], undefined, () => {
      if (write.value === undefined) expect(this.#db.delete(write.key)).toBe(true);
      else this.#db.set(write.key, write.value);
    });
    expect(this.#db.get(write.key)).toBe(write.value);
  }

  #staged(writes: readonly Write[], row: number | undefined, stage: () => void): void {
    const { lastSeq } = this.#db.stats();
    stage();
    this.#model.staged.push({ first: lastSeq + 1, last: this.#db.stats().lastSeq, writes, row });
  }

  async #transact({ kind, steps, fails }: KeyTransaction): Promise<void> {
    const db = this.#db;
    const model = this.#model;
    const row = ++this.#numbers;
    let writes: Write[] = [];
    const body = (tx: Transaction) => {
      writes = [];
      const seen = (name: string) => {
        const own = writes.findLast((write) => write.key === name);
        return own === undefined ? model.view(name) : own.value;
      };
      for (const each of steps) {
        expect(tx.get(each.key)).toBe(seen(each.key));
        const write = this.#written(each, seen);
        if (write.value === undefined) expect(tx.delete(write.key)).toBe(true);
        else tx.set(write.key, write.value);
        writes.push(write);
        expect(tx.get(each.key)).toBe(write.value);
      }
      tx.rows<{ n: number }>('ledger').append({ n: row });
      if (fails) throw new Thrown();
    };
    let runs = 0;
    const asynchronous = async (tx: Transaction) => {
      expect(await tx.aget('a')).toBe(model.view('a'));
      if (kind === 'conflict' && runs++ === 0) this.#put({ key: 'a', word: 'fine' });
      body(tx);
    };
    const { lastSeq } = db.stats();
    try {
      if (kind === 'sync') db.transaction(body);
      else await db.atransaction(asynchronous);
      expect(fails).toBe(false);
    } catch (error) {
      if (!(error instanceof Thrown)) throw error;
      expect(fails).toBe(true);
      hit.thrown++;
      // But for what somebody else has put in between.
      expect(db.stats().lastSeq).toBe(runs === 0 ? lastSeq : model.staged.at(-1)?.last);
      return;
    }
    if (runs > 0) hit.conflicts++;
    const first = (runs === 0 ? lastSeq : (model.staged.at(-1)?.last as number)) + 1;
    model.staged.push({ first, last: db.stats().lastSeq, writes, row });
  }

  async #sql({ rows, ends, dies, key: name }: Extract<Call, { do: 'sql' }>): Promise<void> {
    const n = ++this.#numbers;
    // It begins when all that was accepted is applied.
    this.#model.flush();
    const body = async (tx: SqlTransaction) => {
      // Before and after each of the statements; what follows is COMMIT.
      if (dies !== undefined) this.#thread.arm((ends === 'orphan' ? 2 : 4) * rows + dies);
      for (let i = 0; i < rows; i++) {
        if (ends !== 'orphan') await tx.aexecute('INSERT OR IGNORE INTO parent VALUES (?)', [i]);
        await tx.aexecute('INSERT INTO entry VALUES (?, ?)', [n, ends === 'orphan' ? -n : i]);
      }
      // A write like any other: it comes after.
      this.#put({ key: name, word: 'fine' });
      if (ends === 'throw') throw new Thrown();
    };
    const error = await this.#db.atransaction(body, { sql: true }).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    this.#thread.disarm();
    const found = await this.#countOf(n);
    expect([0, rows]).toContain(found);
    if (error === undefined) {
      expect([ends, found]).toEqual(['commit', rows]);
      hit['SQL committed']++;
    } else if (error instanceof SluiceError && error.code === 'SLUICE_OUTCOME_UNKNOWN') {
      expect([ends, dies === undefined]).toEqual([found > 0 ? 'commit' : ends, false]);
      hit[found > 0 ? 'SQL committed, and nobody knew' : 'SQL not committed, and nobody knew']++;
    } else {
      expect(found).toBe(0);
      if (error instanceof Thrown) expect(ends).toBe('throw');
      else {
        expect((error as SluiceError).code, String(error)).toBe('SLUICE_STORE');
        const isOrphan = (error as SluiceError).sqliteCode === 'SQLITE_CONSTRAINT_FOREIGNKEY';
        expect(isOrphan ? ends === 'orphan' : dies !== undefined, String(error)).toBe(true);
        hit[isOrphan ? 'SQL refused at COMMIT' : 'SQL rolled back by a death']++;
      }
    }
    if (found > 0) this.#entries.set(n, found);
  }

  async #flush(dyingAt: number | undefined): Promise<void> {
    const hasGroups = this.#model.staged.some(({ row }) => row !== undefined);
    const before = this.#restarts;
    const flushed = this.#db.aflush({ timeoutMs: 20_000 });
    if (dyingAt !== undefined) await this.#thread.kill(dyingAt);
    await flushed;
    if (hasGroups && this.#restarts > before) hit['died in a flush of groups']++;
    this.#model.flush();
    await this.#check();
  }

  async #forbid(words: readonly (readonly [string, string])[]): Promise<void> {
    await this.#flush(undefined);
    await this.#db.aexecute('DELETE FROM forbidden');
    if (words.length > 0)
      await this.#db.aexecuteMany(
        'INSERT INTO forbidden VALUES (?, ?)',
        words.map((pair) => [...pair]),
      );
    this.#model.forbidden.clear();
    for (const [word] of words) this.#model.forbidden.add(word);
  }

  async #retry(dyingAt: number | undefined): Promise<void> {
    await this.#flush(undefined);
    const hasDead = this.#model.dead.length > 0;
    const before = this.#restarts;
    const retried = this.#db.dlq.retry('all');
    if (dyingAt !== undefined) await this.#thread.kill(dyingAt);
    await retried;
    if (hasDead && this.#restarts > before) hit['died in a retry']++;
    this.#model.retry();
    await this.#check();
  }

  /** The power is cut: of what was not acknowledged the log has the bytes up to somewhere. */
  async #cut({ unsynced, part }: Extract<Call, { do: 'cut' }>): Promise<void> {
    // So that there is a segment to tear.
    this.#put({ key: 'a', word: 'fine' });
    await this.#db.adurable();
    const { lastSeq: acknowledged } = this.#db.stats();
    const from = this.#lastSegment();
    for (const [i, each] of unsynced.entries()) {
      await this.#transact({ ...each, kind: each.kind === 'conflict' ? 'async' : each.kind });
      // Frames of one transaction, and of several.
      if (i % 3 === 0) await this.#db.adurable();
    }
    await this.#db.adurable();
    const to = this.#lastSegment();
    expect(to.name).toBe(from.name);
    const [old, folder] = [this.#file, join(this.#folder, String(this.#lives + 1))];
    mkdirSync(join(folder, 'a.db-log'), { recursive: true });
    // The WAL first: a checkpoint in between may have carried it over.
    if (existsSync(`${old}-wal`)) copyFileSync(`${old}-wal`, join(folder, 'a.db-wal'));
    copyFileSync(old, join(folder, 'a.db'));
    for (const name of this.#segments()) copyFileSync(join(`${old}-log`, name), join(folder, 'a.db-log', name));
    const bytes = from.bytes + Math.floor(part * (to.bytes - from.bytes));
    truncateSync(join(folder, 'a.db-log', to.name), bytes);
    await this.#db.close();
    this.#lives++;
    await this.#open();

    const { lastSeq: left } = this.#db.stats();
    const { staged } = this.#model;
    expect(left).toBeGreaterThanOrEqual(acknowledged);
    expect(left).toBeLessThanOrEqual(staged.at(-1)?.last ?? acknowledged);
    for (const { first, last } of staged)
      expect(left < first || left >= last, `${first} to ${last}, ${left} left`).toBe(true);
    this.#model.staged = staged.filter(({ last }) => last <= left);
    if (this.#model.staged.length < staged.length) hit['cut inside a group']++;
    if (left > acknowledged) hit['cut behind a group']++;
    await this.#flush(undefined);
  }

  #segments(): string[] {
    return readdirSync(`${this.#file}-log`)
      .filter((name) => name.endsWith('.log'))
      .sort();
  }

  #lastSegment(): { readonly name: string; readonly bytes: number } {
    const name = this.#segments().at(-1) as string;
    return { name, bytes: statSync(join(`${this.#file}-log`, name)).size };
  }

  async #countOf(n: number): Promise<number> {
    const row = await this.#db.afetchOne<{ n: number }>('SELECT count(*) AS n FROM entry WHERE n = ?', [n], {
      stale: true,
    });
    return row?.n ?? -1;
  }

  async #check(): Promise<void> {
    const db = this.#db;
    const { values, rows, dead } = this.#model;
    const expected = Object.fromEntries(
      [...values].flatMap(([name, { value }]) => (value === undefined ? [] : [[name, value]])),
    );
    expect(db.toDict()).toEqual(expected);
    for (const name of KEYS) expect(await db.aget(name)).toBe(expected[name]);
    const ledger = await db.afetchAll<{ n: number }>('SELECT n FROM ledger', [], { stale: true });
    expect(ledger.map(({ n }) => n).sort((a, b) => a - b)).toEqual([...rows].sort((a, b) => a - b));
    const letters = await db.dlq.list();
    expect(letters.map(({ operation }) => operation === 'group')).toEqual(dead.map(({ row }) => row !== undefined));
    const { accepted, recovered, applied, coalesced, deadLettered, pending, deadLetters } = db.stats();
    expect(accepted + recovered).toBe(applied + coalesced + deadLettered + pending);
    const { entriesAtOpen, imported, entries, retried, superseded, cleared, evicted } = deadLetters;
    expect(entriesAtOpen + deadLettered + imported).toBe(entries + retried + superseded + cleared + evicted);
    expect(entries).toBe(dead.length);
    const found = await db.afetchAll<{ n: number; rows: number }>(
      'SELECT n, count(*) AS rows FROM entry GROUP BY n',
      [],
      { stale: true },
    );
    expect(new Map(found.map((each) => [each.n, each.rows]))).toEqual(this.#entries);
  }
}

test('of a transaction there is everything or nothing, whatever dies, is refused, comes between or is cut', async () => {
  const folder = tempDir();
  let runs = 0;
  const property = fc.asyncProperty(
    fc.boolean(),
    fc.array(call, { minLength: 15, maxLength: 30, size: 'max' }),
    async (hasCache, calls) => {
      const run = new Run(join(folder, String(runs++)), hasCache);
      await run.begin();
      try {
        for (const each of calls) await run.do(each);
        await run.end();
      } finally {
        await run.close();
      }
    },
  );
  await assertOnEveryPath(property, { numRuns: Number(process.env['SLUICE_RUNS'] ?? 7) }, hit);
}, 180_000);
