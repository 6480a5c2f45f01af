import { join } from 'node:path';
import * as fc from 'fast-check';
import { type Database, type OpenOptions, type RetryResult, SluiceError } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { assertOnEveryPath } from '../support/every-path.ts';
import { machine } from '../support/machine.ts';
import { MortalWriter } from '../support/mortal-writer.ts';
import { tempDir } from '../support/temp-dir.ts';

/**
 * The queue through the public face, with real threads: writes, retries, clears and imports at the same time, several calls
 * of each at once, while the writer thread dies at any moment between two statements. What comes out is not foretold step by step, but
 * each accepted row is in one place, both laws of counting hold, and with everything repaired and retried each key has its
 * newest write.
 */

const KEYS = ['a', 'b', 'c'];
const WORDS = ['v1', 'v1', 'v2', 'fine'];

type Call =
  | { readonly do: 'put'; readonly table: string; readonly key: string; readonly word: string }
  | { readonly do: 'delete'; readonly table: string; readonly key: string }
  | { readonly do: 'clearTable'; readonly table: string }
  | { readonly do: 'group'; readonly table: string; readonly entries: readonly (readonly [string, string])[] }
  | { readonly do: 'append'; readonly word: string }
  | { readonly do: 'flush' }
  | { readonly do: 'forbid'; readonly words: readonly (readonly [string, string])[] }
  | { readonly do: 'retry'; readonly table: string | undefined; readonly batchSize: number }
  | { readonly do: 'retryIds'; readonly picks: readonly number[] }
  | { readonly do: 'clearRows'; readonly picks: readonly number[] }
  | { readonly do: 'exportAndImport' }
  | { readonly do: 'kill'; readonly moments: number }
  | { readonly do: 'wait'; readonly delayMs: number }
  | { readonly do: 'settle' }
  | { readonly do: 'reopen'; readonly abruptly: boolean };

const table = fc.constantFrom('guard', 'other');
const key = fc.constantFrom(...KEYS);
const word = fc.constantFrom(...WORDS);
const picks = fc.array(fc.nat(12), { minLength: 1, maxLength: 6 });
const call: fc.Arbitrary<Call> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant('put' as const), table, key, word }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('delete' as const), table, key }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('clearTable' as const), table }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('group' as const),
      table,
      entries: fc.uniqueArray(fc.tuple(key, word), { minLength: 2, maxLength: 3, selector: ([each]) => each }),
    }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('append' as const), word }) },
  { weight: 3, arbitrary: fc.constant({ do: 'flush' as const }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('forbid' as const),
      words: fc.array(fc.tuple(fc.constantFrom('v1', 'v2', 'del'), fc.constantFrom('abort', 'fail', 'rollback')), {
        minLength: 1,
        maxLength: 3,
      }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('retry' as const),
      table: fc.constantFrom(undefined, 'guard', 'log'),
      batchSize: fc.constantFrom(1, 2, 500),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('retryIds' as const), picks }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('clearRows' as const), picks }) },
  { weight: 2, arbitrary: fc.constant({ do: 'exportAndImport' as const }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('kill' as const), moments: fc.integer({ min: 1, max: 40 }) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('wait' as const), delayMs: fc.nat(4) }) },
  { weight: 2, arbitrary: fc.constant({ do: 'settle' as const }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('reopen' as const), abruptly: fc.boolean() }) },
);

const tally = {
  retried: 0,
  failed: 0,
  superseded: 0,
  cleared: 0,
  imported: 0,
  restarts: 0,
  atOnce: 0,
  cutOff: 0,
  reopened: 0,
};

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

class Run {
  readonly #file: string;
  readonly #options: OpenOptions;
  #thread = new MortalWriter();
  #db!: Database;
  #numbers = 0;
  readonly #newest = new Map<string, string | undefined>();
  readonly #rows = new Set<number>();
  readonly #cleared = new Set<number>();
  /** Of these a close has cut off the clear: they may be gone. */
  readonly #perhapsCleared = new Set<number>();
  /** Under way: the flush, and calls that change the queue. */
  #running = new Set<Promise<unknown>>();
  #changing = 0;
  /** What this process has asked for and was told. */
  #told = { applied: 0, cleared: 0, imported: 0 };

  constructor(file: string, options: OpenOptions) {
    this.#file = file;
    this.#options = options;
  }

  async open(): Promise<void> {
    this.#thread = new MortalWriter();
    this.#told = { applied: 0, cleared: 0, imported: 0 };
    this.#db = await openOn(machine({ spawn: this.#thread.spawn }), this.#file, this.#options);
    this.#db.on('dead-letter', () => {});
    this.#db.on('failure', () => {});
    this.#db.on('writer-restart', () => tally.restarts++);
  }

  async prepare(): Promise<void> {
    await this.open();
    await this.#db.aexecute('CREATE TABLE forbidden (word TEXT PRIMARY KEY, how TEXT)');
    await this.#db.aexecute('CREATE TABLE log (n INTEGER, word TEXT)');
    for (const name of ['guard', 'other']) {
      await this.#db.aexecute(`CREATE TABLE ${name} (key TEXT PRIMARY KEY, value TEXT)`);
    }
    for (const [name, on, word] of [
      ...['guard', 'other'].flatMap((name) => [
        [name, 'INSERT', `substr(json_extract(NEW.value, '$'), 1, 2)`],
        [name, 'UPDATE', `substr(json_extract(NEW.value, '$'), 1, 2)`],
        [name, 'DELETE', `'del'`],
      ]),
      ['log', 'INSERT', 'NEW.word'],
    ] as [string, string, string][]) {
      await this.#db.aexecute(`CREATE TRIGGER ${name}_${on} AFTER ${on} ON ${name} BEGIN
        SELECT CASE (SELECT how FROM forbidden WHERE word = ${word})
          WHEN 'abort' THEN RAISE(ABORT, 'no') WHEN 'fail' THEN RAISE(FAIL, 'no') WHEN 'rollback' THEN RAISE(ROLLBACK, 'no')
        END; END`);
    }
    await this.#forbid([['v1', 'abort']]);
  }

  async do(given: Call): Promise<void> {
    const db = this.#db;
    switch (given.do) {
      case 'put': {
        const value = this.#number(given.word);
        db.table(given.table).set(given.key, value);
        this.#newest.set(`${given.table}/${given.key}`, value);
        return;
      }
      case 'delete':
        db.table(given.table).deleteMany([given.key]);
        this.#newest.set(`${given.table}/${given.key}`, undefined);
        return;
      case 'clearTable':
        db.table(given.table).clear();
        for (const name of KEYS) this.#newest.set(`${given.table}/${name}`, undefined);
        return;
      case 'group': {
        const entries = given.entries.map(([name, word]) => [name, this.#number(word)] as const);
        db.table(given.table).setMany(entries);
        for (const [name, value] of entries) this.#newest.set(`${given.table}/${name}`, value);
        return;
      }
      case 'append': {
        const n = ++this.#numbers;
        db.rows('log').append({ n, word: given.word });
        this.#rows.add(n);
        return;
      }
      case 'flush':
        this.#start(db.aflush({ timeoutMs: 20_000 }), false);
        return;
      case 'forbid':
        return this.#forbid(given.words);
      case 'retry': {
        const selection = given.table === undefined ? 'all' : { table: given.table };
        this.#retry(db.dlq.retry(selection, { batchSize: given.batchSize }));
        return;
      }
      case 'retryIds':
        this.#retry(this.#ids(given.picks).then((ids) => db.dlq.retry(ids)));
        return;
      case 'clearRows':
        this.#clearRows(given.picks);
        return;
      case 'exportAndImport':
        return this.#exportAndImport();
      case 'kill':
        await this.#thread.kill(given.moments);
        return;
      case 'wait':
        await sleep(given.delayMs);
        return;
      case 'settle':
        return this.settle();
      case 'reopen':
        if (!given.abruptly) await this.settle();
        tally.reopened++;
        await db.close();
        await Promise.all(this.#running);
        await this.open();
    }
  }

  /** Waits for all that is under way; then nothing is left that is uncounted. */
  async settle(): Promise<void> {
    await Promise.all(this.#running);
    const { deadLetters, deadLettered, accepted, recovered, applied, coalesced, pending } = this.#db.stats();
    expect(accepted + recovered).toBe(applied + coalesced + deadLettered + pending);
    const { entriesAtOpen, imported, entries, retried, superseded, cleared, evicted } = deadLetters;
    expect(entriesAtOpen + deadLettered + imported).toBe(entries + retried + superseded + cleared + evicted);
    expect({ applied: retried, cleared, imported }).toEqual(this.#told);
    // What waits in the log could die in between.
    await this.#db.aflush({ timeoutMs: 20_000 });
    expect(await this.#count('SELECT count(*) AS n FROM _sluice_dead_letters')).toBe(this.#db.dlq.size);
    await this.#checkRows();
  }

  async end(): Promise<void> {
    await this.settle();
    await this.#forbid([]);
    await this.#db.aflush({ timeoutMs: 20_000 });
    this.#retry(this.#db.dlq.retry('all'));
    await this.settle();
    expect(this.#db.dlq.size).toBe(0);
    for (const [name, value] of this.#newest) {
      const [tableName = '', keyName = ''] = name.split('/');
      expect(this.#db.table(tableName).get(keyName), name).toBe(value);
    }
    const there = await this.#numbersIn('SELECT n FROM log');
    this.#expectRows(there);
    await this.#db.close();
  }

  async close(): Promise<void> {
    await this.#db.close();
  }

  async #checkRows(): Promise<void> {
    const applied = await this.#numbersIn('SELECT n FROM log');
    const dead = (await this.#db.dlq.list({ table: 'log' })).map(({ payload }) => (payload as number[])[0] as number);
    const places = [...applied, ...dead];
    expect(new Set(places).size, 'a row is in two places').toBe(places.length);
    this.#expectRows(places);
  }

  #expectRows(found: readonly number[]): void {
    for (const n of this.#perhapsCleared) if (!found.includes(n)) this.#cleared.add(n);
    expect(new Set(found)).toEqual(new Set([...this.#rows].filter((n) => !this.#cleared.has(n))));
  }

  #number(word: string): string {
    return `${word}#${++this.#numbers}`;
  }

  #start(work: Promise<unknown>, changes: boolean): void {
    if (changes && ++this.#changing > 1) tally.atOnce++;
    const done = work
      .catch((error: unknown) => {
        // A close does not wait for what the user has not waited for.
        expect(error, String(error)).toBeInstanceOf(SluiceError);
        expect(['SLUICE_CLOSED']).toContain((error as SluiceError).code);
        tally.cutOff++;
      })
      .finally(() => {
        this.#running.delete(done);
        if (changes) this.#changing--;
      });
    this.#running.add(done);
  }

  #retry(work: Promise<RetryResult>): void {
    const told = this.#told;
    const booked = work.then(({ applied, failed, superseded }) => {
      told.applied += applied;
      tally.retried += applied;
      tally.failed += failed;
      tally.superseded += superseded;
    });
    this.#start(booked, true);
  }

  /** Only of rows, by ids that nobody else clears: which of them went is then known. */
  #clearRows(given: readonly number[]): void {
    const { dlq } = this.#db;
    const told = this.#told;
    const work = dlq.list({ table: 'log' }).then(async (letters) => {
      const chosen = letters.filter((_, i) => given.includes(i));
      const ids = chosen.map(({ id }) => id);
      // Two admins at once: each entry is cleared by one of them.
      const clearing = Promise.all([dlq.clear(ids, { batchSize: 2 }), dlq.clear(ids)]);
      const [one, two] = await clearing.catch((error: unknown) => {
        for (const { payload } of chosen) this.#perhapsCleared.add((payload as number[])[0] as number);
        throw error;
      });
      told.cleared += one + two;
      tally.cleared += one + two;
      expect(one + two).toBeLessThanOrEqual(ids.length);
      const left = new Set(await this.#numbersIn('SELECT n FROM log'));
      for (const { payload } of chosen) {
        const n = (payload as number[])[0] as number;
        // A retry was quicker.
        if (!left.has(n)) this.#cleared.add(n);
      }
    });
    this.#start(work, true);
  }

  /** While nothing else is under way, since it is not known then what has been applied since. */
  async #exportAndImport(): Promise<void> {
    await this.settle();
    const { dlq } = this.#db;
    const lines: string[] = [];
    for await (const line of dlq.export()) lines.push(line);
    const clearing = dlq.clear('all', { batchSize: 2 });
    const importing = dlq.import(lines.join(''));
    const killing = this.#thread.kill(10);
    const cleared = await clearing;
    const { imported } = await importing;
    await killing;
    expect([cleared, imported]).toEqual([lines.length, lines.length]);
    this.#told.cleared += cleared;
    this.#told.imported += imported;
    tally.imported += imported;
    await this.settle();
  }

  async #ids(given: readonly number[]): Promise<number[]> {
    const letters = await this.#db.dlq.listSummaries();
    return given.map((n) => letters[n]?.id ?? n);
  }

  async #forbid(words: readonly (readonly [string, string])[]): Promise<void> {
    const list = JSON.stringify(words);
    await this.#ahead('DELETE FROM forbidden');
    await this.#ahead(`REPLACE INTO forbidden SELECT value ->> 0, value ->> 1 FROM json_each('${list}')`);
  }

  /** A thread that dies takes a statement with it, which can be made again here. */
  async #ahead(sql: string): Promise<void> {
    for (;;) {
      try {
        await this.#db.aexecute(sql, [], { ahead: true });
        return;
      } catch (error) {
        if ((error as SluiceError).code !== 'SLUICE_OUTCOME_UNKNOWN') throw error;
      }
    }
  }

  async #count(sql: string): Promise<number> {
    return (await this.#db.afetchOne<{ n: number }>(sql, [], { stale: true }))?.n ?? -1;
  }

  async #numbersIn(sql: string): Promise<number[]> {
    return (await this.#db.afetchAll<{ n: number }>(sql, [], { stale: true })).map(({ n }) => n);
  }
}

test('[fault 72] retries, clears, imports and flushes at once, on threads that die: each entry is handled once', async () => {
  const folder = tempDir();
  let runs = 0;
  await assertOnEveryPath(
    fc.asyncProperty(
      fc.constantFrom<OpenOptions[]>(
        { flush: { mode: 'manual' } },
        { flush: { mode: 'immediate' } },
        { flush: { mode: 'auto', intervalMs: 2 }, durability: 'memory', closeTimeoutMs: 20_000 },
      ),
      fc.array(call, { minLength: 20, maxLength: 60, size: 'max' }),
      async (options, calls) => {
        const run = new Run(join(folder, `${runs++}.db`), options);
        await run.prepare();
        try {
          for (const each of calls) await run.do(each);
          await run.end();
        } finally {
          await run.close();
        }
      },
    ),
    { numRuns: Number(process.env['SLUICE_RUNS'] ?? 25) },
    tally,
  );
});
