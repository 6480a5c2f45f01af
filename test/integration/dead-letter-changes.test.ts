import { join } from 'node:path';
import { type Database, open } from 'sluicedb';
import { describe, expect, test } from 'vitest';
import { type Connection, openConnection } from '../../dist/store/sqlite/connection.js';
import { claimState } from '../../dist/store/sqlite/schema.js';
import type { Batch } from '../../dist/store/store.js';
import { writerOn } from '../support/applier.ts';
import { Faults, faulty } from '../support/faulty-connection.ts';
import { tempDir } from '../support/temp-dir.ts';
import { frameOf, type Write } from '../support/writes.ts';

const GUARDED = `
  CREATE TABLE forbidden (word TEXT PRIMARY KEY, how TEXT);
  CREATE TABLE guard (key TEXT PRIMARY KEY, value TEXT);
  CREATE TRIGGER guard_insert AFTER INSERT ON guard BEGIN
    SELECT CASE (SELECT how FROM forbidden WHERE word = NEW.value)
      WHEN 'abort' THEN RAISE(ABORT, 'no') WHEN 'rollback' THEN RAISE(ROLLBACK, 'no') END;
  END;
  CREATE TRIGGER guard_delete AFTER DELETE ON guard BEGIN
    SELECT CASE (SELECT how FROM forbidden WHERE word = 'del:' || OLD.key) WHEN 'rollback' THEN RAISE(ROLLBACK, 'no') END;
  END;
  CREATE TABLE owner (key TEXT PRIMARY KEY);
  CREATE TABLE owned (owner TEXT REFERENCES owner (key) DEFERRABLE INITIALLY DEFERRED);
`;

function writer(): { db: Connection; faults: Faults } & ReturnType<typeof writerOn> {
  const db = openConnection(':memory:', { readonly: false, busyTimeoutMs: 0 });
  db.exec(GUARDED);
  claimState(db, 'test', true);
  const faults = new Faults();
  return { db, faults, ...writerOn(faulty(db, faults)) };
}

function batchOf(writes: readonly Write[], afterSeq = 0): Batch {
  return { frames: [frameOf(writes, afterSeq + 1)], afterSeq, lastSeq: afterSeq + writes.length };
}

const put = (key: string, value: string): Write => ({ kind: 'put', table: 'guard', key, value });

describe('a change that goes wrong half way', () => {
  test('a retry with a transaction for each entry that finds the database locked tells what it has done', () => {
    const { db, faults, applier, queue } = writer();
    db.exec("INSERT INTO forbidden VALUES ('bad', 'rollback')");
    applier.apply(batchOf(['a', 'b', 'c', 'd'].map((key) => put(key, 'bad'))));
    db.exec("DELETE FROM forbidden; INSERT INTO forbidden VALUES ('d', 'rollback')");
    db.exec("UPDATE _sluice_dead_letters SET attempts = 1; INSERT INTO forbidden VALUES ('bad', 'rollback')");
    // All at once, then a, its failure, b, its failure, and there it is locked.
    faults.arm({ point: 'begin', at: 5, what: 'SQLITE_BUSY' });
    const part = queue.change('1', { do: 'retry', ids: [1, 2, 3, 4] });
    expect(part).toMatchObject({ failed: [1, 2], complete: false });
    db.exec('DELETE FROM forbidden');
    expect(queue.change('2', { do: 'retry', ids: [3, 4] })).toMatchObject({ applied: [3, 4], complete: true });
    expect(db.prepare('SELECT id, attempts FROM _sluice_dead_letters').raw().all()).toEqual([
      [1, 2],
      [2, 2],
    ]);
  });

  test('one that has done nothing rejects', () => {
    const { db, faults, applier, queue } = writer();
    db.exec("INSERT INTO forbidden VALUES ('bad', 'abort')");
    applier.apply(batchOf([put('a', 'bad')]));
    faults.arm({ point: 'commit', at: 0, what: 'SQLITE_FULL' });
    expect(() => queue.change('1', { do: 'retry', ids: [1] })).toThrow(/FULL/);
    expect(db.prepare('SELECT attempts FROM _sluice_dead_letters').pluck().get()).toBe(1);
  });
});

describe('a batch whose answer is lost', () => {
  test('counts the writes whose entries somebody has retried or cleared by the time it is asked for again', () => {
    const { db, faults, applier, queue } = writer();
    db.exec("INSERT INTO forbidden VALUES ('bad', 'abort')");
    const batch = batchOf(['a', 'b', 'c'].map((key) => put(key, 'bad')));
    faults.arm({ point: 'committed', at: 0, what: 'SQLITE_IOERR' });
    expect(() => applier.apply(batch)).toThrow(/IOERR/);
    expect(queue.change('1', { do: 'clear', ids: [2] }).cleared).toBe(1);
    db.exec('DELETE FROM forbidden');
    expect(queue.change('2', { do: 'retry', ids: [3] }).applied).toEqual([3]);
    const result = applier.apply(batch);
    expect([result.applied, result.deadSeqs, result.dead.map(({ seq }) => seq)]).toEqual([0, [1, 2, 3], [1]]);
  });

  test('does not take an entry of another database, imported meanwhile, for one of its own', () => {
    const { db, faults, applier, queue } = writer();
    const batch = batchOf([put('a', 'good'), put('b', 'good')]);
    faults.arm({ point: 'committed', at: 0, what: 'SQLITE_IOERR' });
    expect(() => applier.apply(batch)).toThrow(/IOERR/);
    const write = Buffer.from(frameOf([put('k', 'v')], 7).bytes);
    const times = { acceptedAt: 1, firstFailedAt: 1, lastFailedAt: 1, attempts: 1 };
    const error = { errorClass: 'permanent', errorCode: 'X', errorMessage: 'x' } as const;
    const content = { table: null, operation: 'put', key: null, statement: null, payload: null, bytes: 0 } as const;
    const letter = { id: 0, seq: 7, origin: 'elsewhere:7', write, overwritten: [], ...times, ...error, ...content };
    expect(queue.change('1', { do: 'import', letters: [letter] }).imported).toBe(1);
    expect(applier.apply(batch)).toMatchObject({ applied: 2, deadSeqs: [], dead: [] });
    db.close();
  });
});

test('a write that only a doomed one made fail is applied: COMMIT refuses the one, the other had lost the transaction', () => {
  const { db, applier } = writer();
  db.exec("INSERT INTO forbidden VALUES ('del:k', 'rollback')");
  const doomed: Write = {
    kind: 'group',
    members: [
      put('k', 'v'),
      { kind: 'append', table: 'owned', sql: 'INSERT INTO owned VALUES (?)', values: ['nobody'] },
    ],
  };
  const result = applier.apply(batchOf([put('x', '1'), doomed, put('y', '2'), { kind: 'clear', table: 'guard' }]));
  expect(result.deadSeqs).toEqual([2]);
  expect(db.prepare('SELECT key FROM guard').pluck().all()).toEqual([]);
  db.close();
});

// ── through the public face ───────────────────────────────────────────────────────────────────────────────────────────

async function opened(): Promise<Database> {
  const db = await open(join(tempDir(), 'a.db'), { flush: { mode: 'manual' } });
  db.on('dead-letter', () => {});
  await db.aexecute('CREATE TABLE forbidden (value TEXT PRIMARY KEY)');
  await db.aexecute('CREATE TABLE guarded (key TEXT PRIMARY KEY, value TEXT)');
  for (const on of ['INSERT', 'UPDATE']) {
    await db.aexecute(`CREATE TRIGGER guard_${on} BEFORE ${on} ON guarded
      WHEN EXISTS (SELECT 1 FROM forbidden WHERE value = NEW.value) BEGIN SELECT RAISE(ABORT, 'forbidden'); END`);
  }
  return db;
}

async function forbid(db: Database, ...values: string[]): Promise<void> {
  await db.aexecute('DELETE FROM forbidden', [], { ahead: true });
  for (const value of values) await db.aexecute('INSERT INTO forbidden VALUES (?)', [value], { ahead: true });
}

describe('a retry', () => {
  test('of very many entries of one key is as quick as of many keys, and tries each once', async () => {
    const db = await opened();
    const table = db.table('guarded');
    const count = 20_000;
    await forbid(db, '"bad"');
    // In parts that the breaker lets pass.
    for (let part = 0; part < 4; part++) {
      for (let i = 0; i < count / 4; i++) table.set('k', 'bad');
      await db.aflush();
    }
    expect(db.dlq.size).toBe(count);
    expect(await db.dlq.retry('all')).toEqual({ applied: 0, failed: count, superseded: 0, missing: 0 });
    expect(
      await db.afetchOne('SELECT min(attempts) AS least, max(attempts) AS most FROM _sluice_dead_letters'),
    ).toEqual({
      least: 2,
      most: 2,
    });
    await forbid(db);
    expect(await db.dlq.retry('all')).toEqual({ applied: 1, failed: 0, superseded: count - 1, missing: 0 });
    expect(db.dlq.size).toBe(0);
    await db.close();
  });

  test('counts an entry once, though it is tried along with several older ones', async () => {
    const db = await opened();
    const table = db.table('guarded');
    await forbid(db, '"bad"');
    table.set('a', 'bad');
    table.set('b', 'bad');
    table.setMany({ a: 'bad', b: 'bad' });
    await db.aflush();
    expect(await db.dlq.retry('all', { batchSize: 1 })).toEqual({ applied: 0, failed: 3, superseded: 0, missing: 0 });
    await db.close();
  });

  test('is not kept from the rest by an entry whose table somebody would have to repair', async () => {
    const db = await opened();
    await forbid(db, '"bad"');
    db.table('guarded').set('a', 'bad');
    await db.aexecute('CREATE TABLE shape (key TEXT PRIMARY KEY, value TEXT CHECK (value <> 1))');
    db.table('shape').set('a', 1);
    db.table('guarded').set('b', 'bad');
    await db.aflush();
    await db.aexecute('ALTER TABLE shape RENAME COLUMN value TO wrong');
    await forbid(db);
    expect(await db.dlq.retry('all')).toEqual({ applied: 2, failed: 1, superseded: 0, missing: 0 });
    expect(await db.dlq.list()).toMatchObject([
      { table: 'shape', errorClass: 'config', errorCode: 'SQLITE_ERROR', attempts: 2 },
    ]);
    await db.close();
  });
});

describe('a dead letter and the watermark', () => {
  test('[fault 68] between the two it dies: neither is there, and asked for again each write is in one place', () => {
    const path = join(tempDir(), 'a.db');
    const opened = (takeOver: boolean) => {
      const db = openConnection(path, { readonly: false, busyTimeoutMs: 0 });
      db.pragma('journal_mode = WAL');
      if (takeOver) db.exec(GUARDED);
      claimState(db, 'test', takeOver);
      const faults = new Faults();
      return { db, faults, ...writerOn(faulty(db, faults)) };
    };
    const places = ({ db }: { db: Connection }) => [
      db.prepare('SELECT key FROM guard ORDER BY key').pluck().all(),
      db.prepare('SELECT key FROM _sluice_dead_letters').pluck().all(),
      db.prepare('SELECT applied_seq FROM _sluice_state').pluck().get(),
    ];
    const batch = batchOf([put('a', 'good'), put('b', 'bad'), put('c', 'good')]);
    const first = opened(true);
    first.db.exec("INSERT INTO forbidden VALUES ('bad', 'abort')");
    for (const point of ['insert', 'remember', 'commit'] as const) {
      const dying = point === 'insert' ? first : opened(false);
      dying.faults.arm({ point, at: 0, what: 'death' });
      expect(() => dying.applier.apply(batch)).toThrow();
      dying.db.close();
      const next = opened(false);
      expect(places(next)).toEqual([[], [], 0]);
      next.db.close();
    }
    const last = opened(false);
    expect(last.applier.apply(batch)).toMatchObject({ applied: 2, deadSeqs: [2] });
    expect(places(last)).toEqual([['a', 'c'], ['b'], 3]);
    last.db.close();
    const restarted = opened(false);
    expect(places(restarted)).toEqual([['a', 'c'], ['b'], 3]);
    restarted.db.close();
  });

  test.each(['SQLITE_FULL', 'SQLITE_IOERR_WRITE', 'SQLITE_IOERR', 'SQLITE_BUSY'] as const)(
    '[fault 70] the queue itself cannot be written to (%s): the batch is not advanced, and nothing of it is applied',
    (what) => {
      const { db, faults, applier, queue } = writer();
      db.exec("INSERT INTO forbidden VALUES ('bad', 'abort')");
      const batch = batchOf([put('a', 'good'), put('b', 'bad'), put('c', 'bad')]);
      for (const at of [0, 1]) {
        faults.arm({ point: 'insert', at, what });
        expect(() => applier.apply(batch)).toThrow(what);
        expect(db.prepare('SELECT applied_seq FROM _sluice_state').pluck().get()).toBe(0);
        expect(db.prepare('SELECT count(*) FROM guard').pluck().get()).toBe(0);
        expect(db.prepare('SELECT count(*) FROM _sluice_dead_letters').pluck().get()).toBe(0);
      }
      expect(applier.apply(batch)).toMatchObject({ applied: 1, deadSeqs: [2, 3], queue: { entries: 2 } });
      expect(queue.change('1', { do: 'clear', ids: [1, 2] })).toMatchObject({
        cleared: 2,
        queue: { entries: 0, bytes: 0 },
      });
      db.close();
    },
  );

  test('[fault 70] a full disk while poison is written down: nothing is advanced until there is room', () => {
    const { db, applier } = writer();
    const poison = 'x'.repeat(5_000);
    db.prepare("INSERT INTO forbidden VALUES (?, 'abort')").run(poison);
    const used = db.pragma('page_count', { simple: true }) as number;
    db.pragma(`max_page_count = ${used + 5}`);
    const keys = Array.from({ length: 100 }, (_, i) => `k${i}`);
    const batch = batchOf([put('a', 'good'), ...keys.map((key) => put(key, poison))]);
    for (let again = 0; again < 2; again++) {
      expect(() => applier.apply(batch)).toThrow(
        expect.objectContaining({ failure: 'space', sqliteCode: 'SQLITE_FULL' }),
      );
      expect(db.prepare('SELECT applied_seq FROM _sluice_state').pluck().get()).toBe(0);
      expect(db.prepare('SELECT count(*) FROM guard').pluck().get()).toBe(0);
      expect(db.prepare('SELECT count(*) FROM _sluice_dead_letters').pluck().get()).toBe(0);
    }
    db.pragma('max_page_count = 1000000');
    expect(applier.apply(batch)).toMatchObject({ applied: 1, queue: { entries: 100 } });
    db.close();
  });
});

test('an export knows which keys have been written since, so that an import brings no old value back', async () => {
  const db = await opened();
  const table = db.table('guarded');
  await forbid(db, '"bad"');
  table.setMany({ a: 'old', b: 'bad' });
  await db.aflush();
  table.set('a', 'new');
  await db.aflush();
  const lines: string[] = [];
  for await (const line of db.dlq.export()) lines.push(line);
  await db.dlq.clear('all');
  expect(await db.dlq.import(lines)).toEqual({ imported: 1, duplicates: 0 });
  await forbid(db);
  expect(await db.dlq.retry('all')).toMatchObject({ applied: 1 });
  expect(Object.fromEntries(table.entries())).toEqual({ a: 'new', b: 'bad' });
  await db.close();
});
