import { join } from 'node:path';
import { crc32 } from 'node:zlib';

import Sqlite from 'better-sqlite3';
import { type Database, type OpenOptions, open, type Stall, type SupersededLetter } from 'sluicedb';
import { describe, expect, test } from 'vitest';
import { FRAME_HEADER_BYTES, FrameBuilder, Target } from '../../dist/base/frame/index.js';

import { Deferred } from '../../dist/base/waiting.js';
import { codeFrom, eventually } from '../support/eventually.ts';
import { tempDir } from '../support/temp-dir.ts';

/** Values that are in the table `forbidden` are refused by the key-value table `guarded`. */
const GUARD = [
  'CREATE TABLE forbidden (value TEXT PRIMARY KEY)',
  'CREATE TABLE guarded (key TEXT PRIMARY KEY, value TEXT)',
  ...['INSERT', 'UPDATE'].map(
    (
      on,
    ) => `CREATE TRIGGER guard_${on} BEFORE ${on} ON guarded WHEN EXISTS (SELECT 1 FROM forbidden WHERE value = NEW.value)
             BEGIN SELECT RAISE(ABORT, 'forbidden'); END`,
  ),
  `CREATE TRIGGER guard_delete BEFORE DELETE ON guarded WHEN EXISTS (SELECT 1 FROM forbidden WHERE value = 'delete')
   BEGIN SELECT RAISE(ABORT, 'no deletes'); END`,
];

async function opened(
  options: OpenOptions = {},
): Promise<{ db: Database; file: string; superseded: SupersededLetter[] }> {
  const file = join(tempDir(), 'a.db');
  const db = await open(file, { flush: { mode: 'manual' }, ...options });
  db.on('dead-letter', () => {});
  db.on('failure', () => {});
  const superseded: SupersededLetter[] = [];
  db.on('superseded', (letter) => superseded.push(letter));
  for (const sql of GUARD) await db.aexecute(sql);
  return { db, file, superseded };
}

async function forbid(db: Database, ...values: string[]): Promise<void> {
  await db.aexecute('DELETE FROM forbidden', [], { ahead: true });
  for (const value of values) await db.aexecute('INSERT INTO forbidden VALUES (?)', [value], { ahead: true });
}

function balance(db: Database): void {
  const { accepted, recovered, applied, coalesced, deadLettered, pending, deadLetters } = db.stats();
  expect(accepted + recovered).toBe(applied + coalesced + deadLettered + pending);
  const { entriesAtOpen, imported, entries, retried, superseded, cleared, evicted } = deadLetters;
  expect(entriesAtOpen + deadLettered + imported).toBe(entries + retried + superseded + cleared + evicted);
}

async function countOf(db: Database): Promise<number> {
  const row = await db.afetchOne<{ n: number }>('SELECT count(*) AS n FROM _sluice_dead_letters', [], { stale: true });
  return row?.n ?? -1;
}

describe('what a retry applies', () => {
  test('[fault 71] newer in SQLite, newer in staging, newer in another entry: superseded, and never an old value', async () => {
    const { db, superseded } = await opened();
    const table = db.table('guarded');
    await forbid(db, '"bad"', '"worse"');
    for (const key of ['sqlite', 'staging', 'entry', 'alone']) table.set(key, 'bad');
    await db.aflush();
    table.set('entry', 'worse');
    table.set('sqlite', 'new');
    await db.aflush();
    expect(superseded.map(({ key, bySeq }) => [key, bySeq > 0])).toEqual([['sqlite', true]]);
    await forbid(db);
    table.set('staging', 'new');
    expect(db.dlq.size).toBe(4);
    expect(await db.dlq.retry('all')).toEqual({ applied: 2, failed: 0, superseded: 2, missing: 0 });
    expect(Object.fromEntries(table.entries())).toEqual({
      alone: 'bad',
      entry: 'worse',
      sqlite: 'new',
      staging: 'new',
    });
    expect([db.dlq.size, await countOf(db)]).toEqual([0, 0]);
    balance(db);
    await db.close();
  });

  test('an older entry brings the newer ones of its key along, and is applied itself where they still fail', async () => {
    const { db, superseded } = await opened();
    const table = db.table('guarded');
    await forbid(db, '"1"', '"2"', '"3"');
    for (const value of ['1', '2', '3']) table.set('k', value);
    await db.aflush();
    const [first] = await db.dlq.list();
    expect(await db.dlq.retry([first?.id ?? 0])).toEqual({ applied: 0, failed: 3, superseded: 0, missing: 0 });
    await forbid(db, '"3"');
    expect(await db.dlq.retry([first?.id ?? 0])).toEqual({ applied: 1, failed: 1, superseded: 1, missing: 0 });
    expect(table.get('k')).toBe('2');
    expect(superseded).toHaveLength(1);
    expect((await db.dlq.list()).map(({ payload, attempts }) => [payload, attempts])).toEqual([['"3"', 3]]);
    await forbid(db);
    await db.dlq.retry('all');
    expect(table.get('k')).toBe('3');
    balance(db);
    await db.close();
  });

  test('of a group, what nobody has written since; with its last key it is gone', async () => {
    const { db, file, superseded } = await opened();
    const table = db.table('guarded');
    await forbid(db, '"bad"');
    table.setMany({ a: 'a1', b: 'b1', c: 'bad' });
    table.setMany({ d: 'd1', e: 'bad' });
    await db.aflush();
    table.set('a', 'a2');
    table.deleteMany(['d', 'e']);
    await db.aflush();
    expect(superseded.map(({ operation }) => operation)).toEqual(['group']);
    // What was overwritten is known to the next process, too.
    await db.close();
    const again = await open(file);
    again.on('dead-letter', () => {});
    const [letter] = await again.dlq.list();
    expect(letter).toMatchObject({
      operation: 'group',
      table: 'guarded',
      payload: [{ key: 'a', payload: '"a1"' }, {}, {}],
    });
    await forbid(again);
    expect(await again.dlq.retry('all')).toEqual({ applied: 1, failed: 0, superseded: 0, missing: 0 });
    expect(Object.fromEntries(again.table('guarded').entries())).toEqual({ a: 'a2', b: 'b1', c: 'bad' });
    expect(await again.afetchOne('SELECT count(*) AS n FROM _sluice_dead_letters_overwritten')).toEqual({ n: 0 });
    balance(again);
    await again.close();
  });

  test('a clear spares what was written since, and supersedes what is older', async () => {
    const { db } = await opened();
    const table = db.table('GUARDED');
    table.set('old', 'x');
    table.set('kept', 'x');
    await db.aflush();
    await forbid(db, '"bad"', 'delete');
    table.set('dead', 'bad');
    table.clear();
    await db.aflush();
    table.set('kept', 'y');
    table.set('new', 'y');
    await db.aflush();
    expect((await db.dlq.list()).map(({ operation }) => operation)).toEqual(['put', 'clear']);
    await forbid(db);
    const [put] = await db.dlq.list({ operation: 'put' });
    expect(await db.dlq.retry([put?.id ?? 0])).toEqual({ applied: 1, failed: 0, superseded: 1, missing: 0 });
    expect(Object.fromEntries(table.entries())).toEqual({ kept: 'y', new: 'y' });
    balance(db);
    await db.close();
  });

  test('entries that take the transaction with them, or make COMMIT fail, cost no other its retry', async () => {
    const { db } = await opened();
    await db.aexecute('CREATE TABLE parent (id INTEGER PRIMARY KEY)');
    await db.aexecute('CREATE TABLE child (p INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED, n)');
    const rows = db.rows('child');
    for (let n = 0; n < 9; n++) rows.append({ p: 1, n });
    db.stage('INSERT OR ROLLBACK INTO parent VALUES (1), (1)');
    await db.aflush();
    expect(db.dlq.size).toBe(10);
    expect(await db.dlq.retry('all')).toEqual({ applied: 0, failed: 10, superseded: 0, missing: 0 });
    await db.aexecute('INSERT INTO parent VALUES (1)');
    expect(await db.dlq.retry('all')).toEqual({ applied: 9, failed: 1, superseded: 0, missing: 0 });
    expect(await db.afetchOne('SELECT count(*) AS n, count(DISTINCT n) AS d FROM child')).toEqual({ n: 9, d: 9 });
    expect((await db.dlq.list()).map(({ operation, attempts }) => [operation, attempts])).toEqual([['sql', 3]]);
    balance(db);
    await db.close();
  });
});

describe('looking', () => {
  test('pages in both directions, filters, one entry, and a summary without payloads', async () => {
    const { db } = await opened();
    await db.aexecute('CREATE TABLE r (n INTEGER CHECK (n > 0), u INTEGER UNIQUE)');
    const rows = db.rows('r');
    await forbid(db, '"bad"');
    for (let i = 0; i < 5; i++) db.table('guarded').set(`k${i}`, 'bad');
    for (let i = 0; i < 3; i++) rows.append({ n: -1, u: i });
    rows.append({ n: 1, u: 1 });
    rows.append({ n: 1, u: 1 });
    await db.aflush();
    const ids = (await db.dlq.list()).map(({ id }) => id);
    expect(ids).toHaveLength(9);
    const pages: number[] = [];
    for (let after: number | undefined; ; ) {
      const page = await db.dlq.list({ order: 'newest', limit: 4, after });
      pages.push(...page.map(({ id }) => id));
      after = page.at(-1)?.id;
      if (after === undefined) break;
    }
    expect(pages).toEqual([...ids].reverse());
    expect(await db.dlq.list({ table: 'R', errorCode: 'SQLITE_CONSTRAINT' })).toHaveLength(4);
    expect(await db.dlq.list({ table: 'R', errorCode: 'SQLITE_CONSTRAINT_UNIQUE' })).toHaveLength(1);
    expect(await db.dlq.list({ errorCode: 'SQLITE_CONS' })).toHaveLength(0);
    expect(
      await db.dlq.list({ operation: 'put', since: new Date(Date.now() - 60_000), until: Date.now() + 1 }),
    ).toHaveLength(5);
    expect(await db.dlq.list({ until: new Date(0) })).toEqual([]);
    expect(await db.dlq.get(ids[0] ?? 0)).toMatchObject({ key: 'k0', payload: '"bad"', operation: 'put' });
    expect(await db.dlq.get(999)).toBeUndefined();
    const summary = await db.dlq.summary();
    expect(summary.map(({ table, errorCode, entries }) => [table, errorCode, entries])).toEqual([
      ['guarded', 'SQLITE_CONSTRAINT_TRIGGER', 5],
      ['r', 'SQLITE_CONSTRAINT_CHECK', 3],
      ['r', 'SQLITE_CONSTRAINT_UNIQUE', 1],
    ]);
    const payloads = [JSON.stringify(summary), JSON.stringify(await db.dlq.listSummaries())].join();
    expect(payloads).not.toMatch(/bad|INSERT/);
    await db.close();
  });

  test('what cannot be asked for is refused with a code', async () => {
    const { db } = await opened();
    const wrong = [
      () => db.dlq.list({ limit: 0 }),
      () => db.dlq.list({ tabel: 'x' } as never),
      () => db.dlq.list({ order: 'random' as never }),
      () => db.dlq.list({ since: 'yesterday' as never }),
      () => db.dlq.get('1' as never),
      () => db.dlq.retry('everything' as never),
      () => db.dlq.retry([1.5]),
      () => db.dlq.retry('all', { ratePerSecond: 0 }),
      () => db.dlq.retry('all', { batchSize: 0 }),
      () => db.dlq.retry('all', { onProgress: 1 as never }),
      () => db.dlq.clear(undefined as never),
      () => db.dlq.clear({}),
      () => db.dlq.retry({ table: undefined }),
      () => db.dlq.clear('all', { timeoutMs: -1 }),
      () => db.dlq.list(null as never),
      () => db.dlq.list('x' as never),
      () => db.dlq.list(7 as never),
      () => db.dlq.get(1, null as never),
      () => db.dlq.summary({}, 'soon' as never),
      () => db.aflush(null as never),
      () => db.dlq.import(undefined as never),
      () => db.dlq.import({} as never),
      // None of these has fields of its own, and a filter without any means everything.
      () => db.dlq.clear(new Set([1]) as never),
      () => db.dlq.clear(new Map([['table', 'x']]) as never),
      () => db.dlq.clear(new Date() as never),
      () => db.dlq.clear(Promise.resolve([1]) as never),
    ];
    for (const call of wrong) expect(await codeFrom(call), String(call)).toBe('SLUICE_INVALID_OPTION');
    await db.close();
    expect(await codeFrom(() => db.dlq.list())).toBe('SLUICE_CLOSED');
    expect(await codeFrom(() => db.dlq.retry('all'))).toBe('SLUICE_CLOSED');
  });
});

describe('long runs', () => {
  test('are batched, paced, report progress, and can be called off', async () => {
    const { db } = await opened();
    await db.aexecute('CREATE TABLE r (n INTEGER CHECK (n > 100))');
    const rows = db.rows('r');
    for (let n = 0; n < 100; n++) rows.append({ n });
    await db.aflush();
    const seen: number[] = [];
    const start = performance.now();
    const result = await db.dlq.retry(
      { table: 'r' },
      { ratePerSecond: 200, onProgress: ({ done, total }) => seen.push(done, total) },
    );
    expect(result).toEqual({ applied: 0, failed: 100, superseded: 0, missing: 0 });
    expect(performance.now() - start).toBeGreaterThan(350);
    expect(seen.slice(0, 4)).toEqual([20, 100, 40, 100]);
    const stop = new AbortController();
    const called = codeFrom(() =>
      db.dlq.clear('all', {
        batchSize: 10,
        signal: stop.signal,
        onProgress: ({ done }) => done === 30 && stop.abort(),
      }),
    );
    expect(await called).toBe('SLUICE_ABORTED');
    expect([db.dlq.size, await countOf(db)]).toEqual([70, 70]);
    const ids = (await db.dlq.list()).map(({ id }) => id);
    expect(await db.dlq.clear([...ids.slice(0, 5), ...ids.slice(0, 5), 1, 99_999])).toBe(5);
    expect(await db.dlq.retry([ids[0] ?? 0, ids[9] ?? 0])).toEqual({
      applied: 0,
      failed: 1,
      superseded: 0,
      missing: 1,
    });
    balance(db);
    await db.close();
  });

  test('however slow, end with their last entry, and at close at once', async () => {
    const { db } = await opened();
    await db.aexecute('CREATE TABLE r (n INTEGER CHECK (n > 100))');
    const rows = db.rows('r');
    for (let n = 0; n < 3; n++) rows.append({ n });
    await db.aflush();
    const ids = (await db.dlq.list()).map(({ id }) => id);
    const slow = { ratePerSecond: 0.01, timeoutMs: 5_000 };
    expect(await db.dlq.retry([ids[0] ?? 0, 99_999], slow)).toMatchObject({ failed: 1, missing: 1 });
    expect(await db.dlq.clear({ until: Date.now() + 60_000 }, { batchSize: 3 })).toBe(3);
    for (let n = 0; n < 3; n++) rows.append({ n });
    await db.aflush();
    let done = 0;
    const cut = codeFrom(() => db.dlq.clear('all', { ratePerSecond: 0.01, onProgress: (at) => (done = at.done) }));
    await eventually(() => done === 1, 'it is under way');
    const waiting = codeFrom(() => db.dlq.retry('all'));
    const start = performance.now();
    await db.close();
    expect(await Promise.all([cut, waiting])).toEqual(['SLUICE_CLOSED', 'SLUICE_CLOSED']);
    expect(performance.now() - start).toBeLessThan(10_000);
  });

  test('what dies while a retry runs is not part of it', async () => {
    const { db } = await opened({ flush: { mode: 'immediate' } });
    await db.aexecute('CREATE TABLE r (n INTEGER CHECK (n > 100))');
    const rows = db.rows('r');
    for (let n = 0; n < 30; n++) rows.append({ n });
    await db.aflush();
    const onProgress = () => rows.append({ n: 0 });
    const result = await db.dlq.retry('all', { batchSize: 1, onProgress });
    expect(result).toEqual({ applied: 0, failed: 30, superseded: 0, missing: 0 });
    await db.aflush();
    expect(db.dlq.size).toBe(60);
    balance(db);
    await db.close();
  });
});

describe('export and import', () => {
  test('into the same queue: nothing twice, the order stays; into another: it comes before all that is to come', async () => {
    const { db } = await opened();
    const table = db.table('guarded');
    await forbid(db, '"bad"');
    table.set('a', 'bad');
    table.set('b', 'bad');
    table.setMany({ c: 'bad', d: new Uint8Array([1, 2, 3]) });
    db.stage('INSERT INTO nowhere VALUES (?, ?)', [2n ** 60n, 'x']);
    await db.aflush();
    const lines: string[] = [];
    for await (const line of db.dlq.export()) lines.push(line);
    expect(lines.map((line) => (JSON.parse(line) as { operation: string }).operation)).toEqual([
      'put',
      'put',
      'group',
      'sql',
    ]);
    expect(await db.dlq.import(lines)).toEqual({ imported: 0, duplicates: 4 });
    const before = await db.dlq.list();
    await db.dlq.clear('all');
    expect(await db.dlq.import(lines.join(''))).toEqual({ imported: 4, duplicates: 0 });
    const without = (letters: typeof before) => letters.map(({ id: _, ...rest }) => rest);
    expect(without(await db.dlq.list())).toEqual(without(before));
    balance(db);

    const other = await opened();
    expect(await other.db.dlq.import(Buffer.from(lines.join('\n')))).toEqual({ imported: 4, duplicates: 0 });
    expect(await other.db.dlq.import(lines)).toEqual({ imported: 0, duplicates: 4 });
    other.db.table('guarded').set('b', 'newer');
    expect(await other.db.dlq.retry('all')).toEqual({ applied: 2, failed: 1, superseded: 1, missing: 0 });
    expect(Object.fromEntries(other.db.table('guarded').entries())).toEqual({
      a: 'bad',
      b: 'newer',
      c: 'bad',
      d: new Uint8Array([1, 2, 3]),
    });
    balance(other.db);
    const again = await opened();
    const left: string[] = [];
    for await (const line of other.db.dlq.export()) left.push(line);
    expect(await again.db.dlq.import(left)).toEqual({ imported: 1, duplicates: 0 });
    for (const each of [db, other.db, again.db]) await each.close();
  });

  test("a line cannot do what a user cannot do: Sluice's own tables and other statements are refused", async () => {
    const { db } = await opened();
    await forbid(db, '"bad"');
    db.table('guarded').set('a', 'bad');
    await db.aflush();
    const letter = (await db.dlq.export().next()).value as string;
    const lineOf = (fill: (builder: FrameBuilder) => void) => {
      const builder = new FrameBuilder(1);
      fill(builder);
      const write = Buffer.from(builder.build(1).bytes);
      return JSON.stringify({
        ...(JSON.parse(letter) as object),
        origin: 'elsewhere:1',
        write: write.toString('base64'),
        crc32: crc32(write),
      });
    };
    const forged = [
      lineOf((builder) => builder.stage(new Target(null, 'DELETE FROM _sluice_state'), [])),
      lineOf((builder) => builder.stage(new Target(null, 'COMMIT'), [])),
      lineOf((builder) => builder.append(new Target('x', 'DROP TABLE guarded'), [])),
      lineOf((builder) => builder.clear(new Target('_sluice_state'))),
      lineOf((builder) => builder.put(new Target('sqlite_schema'), 'a', '1')),
    ];
    for (const line of forged) expect(await codeFrom(() => db.dlq.import(line)), line).toBe('SLUICE_INVALID_VALUE');
    expect(db.dlq.size).toBe(1);
    await db.close();
  });

  test('a line that is none is refused with its number, and costs nothing that came before', async () => {
    const { db } = await opened();
    await forbid(db, '"bad"');
    for (const key of ['a', 'b']) db.table('guarded').set(key, 'bad');
    await db.aflush();
    const lines: string[] = [];
    for await (const line of db.dlq.export()) lines.push(line);
    await db.dlq.clear('all');
    const letter = JSON.parse(lines[1] ?? '') as Record<string, unknown>;
    const write = Buffer.from(String(letter['write']), 'base64');
    write.writeUInt32LE(write.readUInt32LE(FRAME_HEADER_BYTES) | 0xf0, FRAME_HEADER_BYTES);
    const damaged = [
      'no JSON',
      '[]',
      JSON.stringify({ ...letter, write: 'AAAA' }),
      JSON.stringify({ ...letter, attempts: 'x' }),
      JSON.stringify({ ...letter, write: Buffer.from('nonsense').toString('base64'), crc32: 0 }),
      // With a checksum that belongs to it: its one record is to a table that it does not name.
      JSON.stringify({ ...letter, write: write.toString('base64'), crc32: crc32(write) }),
    ];
    for (const bad of damaged) {
      await expect(db.dlq.import([lines[0] ?? '', '\n', bad]), bad).rejects.toMatchObject({
        code: 'SLUICE_INVALID_VALUE',
        message: expect.stringContaining('line 3') as string,
      });
    }
    expect(db.dlq.size).toBe(1);
    balance(db);
    await db.close();
  });

  test('an error without a word, and line ends that are none, come back in pieces of any size', async () => {
    const { db } = await opened();
    await db.aexecute("CREATE TRIGGER mute BEFORE INSERT ON guarded BEGIN SELECT RAISE(ABORT, ''); END");
    db.table('guarded').set('a\u2028b', 'c\u2029d ü 😀');
    await db.aflush();
    const lines: string[] = [];
    for await (const line of db.dlq.export()) lines.push(line);
    const before = await db.dlq.list();
    expect(before).toMatchObject([{ key: 'a\u2028b', errorMessage: '' }]);
    await db.dlq.clear('all');
    const bytes = [...Buffer.from(lines.join(''))].map((byte) => Uint8Array.of(byte));
    expect(await db.dlq.import(bytes)).toEqual({ imported: 1, duplicates: 0 });
    expect(await db.dlq.list()).toEqual(before.map((letter) => ({ ...letter, id: letter.id + 1 })));
    await db.close();
  });

  test('a source that gives neither text nor bytes is refused; what came before it is imported', async () => {
    const { db } = await opened();
    await forbid(db, '"bad"');
    db.table('guarded').set('a', 'bad');
    await db.aflush();
    const lines: unknown[] = [];
    for await (const line of db.dlq.export()) lines.push(line);
    await db.dlq.clear('all');
    for (const part of [5, null, {}]) {
      expect(await codeFrom(() => db.dlq.import([...lines, part] as string[]))).toBe('SLUICE_INVALID_VALUE');
    }
    expect(db.dlq.size).toBe(1);
    await db.close();
  });

  test('a source that never ends is left when it is called off, and the next run gets its turn', async () => {
    const { db } = await opened();
    await forbid(db, '"bad"');
    db.table('guarded').set('a', 'bad');
    await db.aflush();
    const asked = new Deferred<void>();
    const source = {
      [Symbol.asyncIterator]: () => ({
        next: () => {
          asked.resolve();
          return new Promise<never>(() => {});
        },
      }),
    };
    const abort = new AbortController();
    const importing = codeFrom(() => db.dlq.import(source, { signal: abort.signal }));
    const clearing = db.dlq.clear('all', { timeoutMs: 5_000 });
    await asked.promise;
    abort.abort();
    expect([await importing, await clearing]).toEqual(['SLUICE_ABORTED', 1]);
    await db.close();
  });
});

describe('a flush that stands still', () => {
  function watched(db: Database): { stalls: Stall[]; resumes: string[] } {
    const stalls: Stall[] = [];
    const resumes: string[] = [];
    db.on('stall', (stall) => stalls.push(stall));
    db.on('resume', ({ reason }) => resumes.push(reason));
    return { stalls, resumes };
  }

  test('[fault 46] the table lost a column: stalled, told, repaired ahead, and nothing is dead', async () => {
    const { db } = await opened({ flush: { intervalMs: 5 } });
    const { stalls, resumes } = watched(db);
    await db.aset('before', 1);
    await db.aflush();
    await db.aexecute('ALTER TABLE data RENAME COLUMN value TO wrong');
    for (let i = 0; i < 1_000; i++) db.set(`k${i}`, i);
    await eventually(() => stalls.length > 0, 'it stands still');
    expect(stalls[0]).toMatchObject({ reason: 'config' });
    expect(stalls[0]?.error.message).toContain('data');
    expect([db.state, db.stats().stall]).toEqual(['degraded', 'config']);
    // The queue can be worked on meanwhile.
    expect(await db.dlq.retry('all')).toEqual({ applied: 0, failed: 0, superseded: 0, missing: 0 });
    await db.aexecute('ALTER TABLE data RENAME COLUMN wrong TO value', { ahead: true });
    await db.aflush({ timeoutMs: 2_000 });
    expect(resumes).toEqual(['config']);
    expect([db.state, db.stats().stall, db.dlq.size, db.get('k999')]).toEqual(['ok', undefined, 0, 999]);
    expect(stalls).toHaveLength(1);
    balance(db);
    await db.close();
  });

  test('[fault 46] a group meets the broken table just as its members would: it waits for the repair, and does not die', async () => {
    const { db } = await opened({ flush: { intervalMs: 5 } });
    const { stalls } = watched(db);
    await db.aset('before', 1);
    await db.aflush();
    await db.aexecute('ALTER TABLE data RENAME COLUMN value TO wrong');
    db.setMany({ a: 1, b: 2 });
    await eventually(() => stalls.length > 0 || db.dlq.size > 0, 'it stands still, or dies');
    expect([db.dlq.size, db.stats().stall]).toEqual([0, 'config']);
    await db.aexecute('ALTER TABLE data RENAME COLUMN wrong TO value', { ahead: true });
    await db.aflush({ timeoutMs: 2_000 });
    expect(db.getMany(['a', 'b'])).toEqual(
      new Map([
        ['a', 1],
        ['b', 2],
      ]),
    );
    balance(db);
    await db.close();
  });

  test('a backlog that cannot be applied, and is larger than staging: the database opens, and is repaired', async () => {
    const { db, file } = await opened({ closeTimeoutMs: 0 });
    const table = db.table('broken');
    await table.aset('before', 0);
    await db.aflush();
    for (let i = 0; i < 200; i++) await table.aset(`k${i}`, i);
    expect(await db.close()).toEqual({ pending: 200 });
    const sqlite = new Sqlite(file);
    sqlite.exec('ALTER TABLE broken RENAME COLUMN value TO wrong');
    sqlite.close();
    const again = await open(file, { staging: { maxBytes: 4_096 } });
    again.on('failure', () => {});
    expect(again.stats()).toMatchObject({ recovered: 200, pending: 200, stall: 'config' });
    await again.aexecute('ALTER TABLE broken RENAME COLUMN wrong TO value', { ahead: true });
    await again.aflush({ timeoutMs: 5_000 });
    expect(again.table('broken').get('k199')).toBe(199);
    balance(again);
    await again.close();
  });

  test('take() lets what stands in the way die, and only that', async () => {
    const { db } = await opened({ flush: { intervalMs: 5 } });
    const { stalls, resumes } = watched(db);
    await db.aset('before', 1);
    await db.aflush();
    await db.aexecute('ALTER TABLE data RENAME COLUMN value TO wrong');
    db.set('a', 1);
    db.table('fine').set('b', 2);
    await eventually(() => stalls.length > 0, 'it stands still');
    expect(await db.dlq.take()).toEqual({ dead: 1 });
    expect(await db.dlq.take()).toEqual({ dead: 0 });
    await db.aflush();
    expect(resumes).toEqual(['config']);
    expect(db.table('fine').get('b')).toBe(2);
    expect(await db.dlq.list()).toMatchObject([{ key: 'a', errorClass: 'config', errorCode: 'SQLITE_ERROR' }]);
    await db.aexecute('ALTER TABLE data RENAME COLUMN wrong TO value');
    expect(await db.dlq.retry('all')).toMatchObject({ applied: 1 });
    expect(db.get('a')).toBe(1);
    balance(db);
    await db.close();
  });

  test('the breaker: a batch of which too much dies is held back, until it is repaired or taken', async () => {
    const { db } = await opened({ dlq: { breaker: { maxDeadShare: 0.1, minWrites: 100 } }, flush: { intervalMs: 5 } });
    const { stalls, resumes } = watched(db);
    const table = db.table('guarded');
    await forbid(db, '"bad"');
    for (let i = 0; i < 10; i++) table.set(`few${i}`, 'bad');
    await db.aflush();
    expect([db.dlq.size, stalls.length]).toEqual([10, 0]);
    for (let i = 0; i < 500; i++) table.set(`many${i}`, i % 5 === 0 ? 'bad' : 'good');
    await eventually(() => stalls.length > 0, 'it stands still');
    expect(stalls[0]).toMatchObject({ reason: 'breaker' });
    expect([db.dlq.size, db.stats().pending, db.state]).toEqual([10, 500, 'degraded']);
    await forbid(db);
    await db.aflush({ timeoutMs: 2_000 });
    expect([resumes, db.dlq.size]).toEqual([['breaker'], 10]);
    await forbid(db, '"bad"');
    for (let i = 0; i < 500; i++) table.set(`more${i}`, i % 5 === 0 ? 'bad' : 'good');
    await eventually(() => stalls.length > 1, 'it stands still again');
    expect(await db.dlq.take()).toEqual({ dead: 100 });
    await db.aflush();
    expect([db.dlq.size, await countOf(db)]).toEqual([110, 110]);
    balance(db);
    await db.close();
  });

  test('[fault 69] at its limit the queue blocks before the next batch, and retry and clear go past it', async () => {
    const { db, file } = await opened({ dlq: { maxEntries: 5 }, flush: { intervalMs: 5 } });
    const { stalls, resumes } = watched(db);
    const table = db.table('guarded');
    await forbid(db, '"bad"');
    for (let i = 0; i < 8; i++) table.set(`k${i}`, 'bad');
    await db.aflush();
    expect([db.dlq.size, stalls.length]).toEqual([8, 0]);
    table.set('good', 1);
    await eventually(() => stalls.length > 0, 'it stands still');
    expect(stalls[0]).toMatchObject({ reason: 'queue-full' });
    expect(db.stats()).toMatchObject({ pending: 1, stall: 'queue-full', state: 'degraded' });
    expect(table.get('good')).toBe(1);
    const [first] = await db.dlq.list();
    await db.dlq.clear([first?.id ?? 0]);
    expect(db.stats().pending).toBe(1);
    expect(await db.dlq.retry('all')).toMatchObject({ failed: 7 });
    await forbid(db);
    expect(await db.dlq.retry('all')).toMatchObject({ applied: 7 });
    await db.aflush({ timeoutMs: 2_000 });
    expect(resumes).toEqual(['queue-full']);
    balance(db);
    await db.close();
    // The limits hold from the start.
    await expect(open(file, { dlq: { maxEntries: 0 } })).rejects.toMatchObject({ code: 'SLUICE_INVALID_OPTION' });
  });

  test('[fault 69] evict-oldest: exact counts, by number, by size and by age, and a full import', async () => {
    const evicted: number[] = [];
    const { db, file } = await opened({ dlq: { maxEntries: 5, overflow: 'evict-oldest' } });
    db.on('evicted', ({ id }) => evicted.push(id));
    const table = db.table('guarded');
    await forbid(db, '"bad"');
    for (let i = 0; i < 12; i++) table.set(`k${i}`, 'bad');
    const { dead } = await db.aflush();
    expect([dead, db.dlq.size, evicted]).toEqual([12, 5, [1, 2, 3, 4, 5, 6, 7]]);
    table.set('one', 'bad');
    await db.aflush();
    expect([db.dlq.size, await countOf(db), evicted.at(-1)]).toEqual([5, 5, 8]);
    expect(db.stats()).toMatchObject({ deadLettered: 13, deadLetters: { evicted: 8, entries: 5 } });
    balance(db);
    const lines: string[] = [];
    for await (const line of db.dlq.export()) lines.push(line);
    await db.close();
    // Lowered limits hold without a write.
    const lowered = await open(file, { dlq: { maxEntries: 2, overflow: 'evict-oldest' } });
    await eventually(() => lowered.dlq.size === 2, 'the oldest are dropped');
    balance(lowered);
    await lowered.close();
    const small = await open(file, { dlq: { maxBytes: 1_024, overflow: 'evict-oldest' }, flush: { mode: 'manual' } });
    small.on('dead-letter', () => {});
    for (let i = 0; i < 12; i++) small.table('guarded').set(`s${i}`, 'bad');
    await small.aflush();
    expect(small.stats().deadLetters.bytes).toBeLessThanOrEqual(1_024);
    expect(small.stats().deadLetters.evicted).toBeGreaterThan(2);
    balance(small);
    await small.dlq.import(lines);
    expect(small.stats().deadLetters.bytes).toBeLessThanOrEqual(1_024);
    balance(small);
    await small.close();
    // Long enough for a slow machine to bury a letter and look at its age.
    const old = await open(file, { dlq: { maxAgeMs: 500, overflow: 'evict-oldest' }, flush: { mode: 'manual' } });
    old.on('dead-letter', () => {});
    await new Promise((resolve) => setTimeout(resolve, 600));
    old.table('guarded').set('k', 'bad');
    await old.aflush();
    expect(old.dlq.size).toBe(1);
    balance(old);
    await old.close();
    const full = await open(file, { dlq: { maxEntries: 1 } });
    expect(await codeFrom(() => full.dlq.import(lines))).toBe('SLUICE_FULL');
    await full.close();
  });
});
