import { randomBytes } from 'node:crypto';
import { copyFileSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { type Database, inspect, open, restore, UniqueHook, verify } from 'sluicedb';
import { describe, expect, onTestFinished, test } from 'vitest';
import { QueryConnection } from '../../dist/store/sqlite/index.js';
import { backupOf, contentOf, simple } from '../support/backups.ts';
import { codeFrom, eventually } from '../support/eventually.ts';
import { killed, segmentsOf } from '../support/left-behind.ts';
import { openTemp } from '../support/open-temp.ts';
import { Recorder } from '../support/recorder.ts';
import { tempDir } from '../support/temp-dir.ts';

/** What holds of the queue at all times. */
function expectBalance(db: Database): void {
  const { deadLetters: q, accepted, recovered, applied, coalesced, deadLettered, pending } = db.stats();
  expect(q.entriesAtOpen + deadLettered + q.imported).toBe(
    q.entries + q.retried + q.superseded + q.cleared + q.evicted,
  );
  expect(accepted + recovered).toBe(applied + coalesced + deadLettered + pending);
}

describe('a database that is open', () => {
  test('has what the backup has, and nothing else, and goes on above all numbers', async () => {
    const logger = new Recorder();
    const db = await openTemp('data.db', { logger });
    db.setMany({ a: 'before', c: 'before' });
    db.table('other').set('x', 1);
    await db.abackup(join(dirname(db.path), 'early.db'));
    for (let i = 0; i < 500; i++) db.set(`k${i}`, i);
    await db.aflush();
    const last = db.stats().lastSeq;
    const source = await simple();
    const bytes = readFileSync(source);
    const result = await db.arestore(source);
    expect(result).toMatchObject({
      path: db.path,
      from: source,
      bytes: statSync(source).size,
      epoch: 2,
      appliedSeq: last,
    });
    expect(readFileSync(source).equals(bytes)).toBe(true);
    expect(readdirSync(dirname(source))).toEqual(['backup.db']);
    expect(db.toDict()).toEqual({ a: 'restored', b: 'restored' });
    expect([await db.aget('a'), await db.aget('c'), db.get('c'), db.table('other').size]).toEqual([
      'restored',
      undefined,
      undefined,
      0,
    ]);
    expect(await db.afetchAll('SELECT key FROM data ORDER BY key')).toEqual([{ key: 'a' }, { key: 'b' }]);
    expect(logger.said).toContain(`warn: restored from ${source}: what was here is gone`);
    expectBalance(db);
    await db.aset('d', 'after');
    expect(db.stats()).toMatchObject({ lastSeq: last + 1, writerRestarts: 0, state: 'ok' });
    await db.aflush();
    expectBalance(db);
    // And back again.
    expect((await db.arestore(join(dirname(db.path), 'early.db'))).epoch).toBe(3);
    expect(db.toDict()).toEqual({ a: 'before', c: 'before' });
    db.set('e', 1);
    const { databaseId } = (await inspect(db.path)).state;
    await db.close();
    expect(await verify(db.path)).toMatchObject({ ok: true, notes: [] });
    expect((await inspect(db.path)).state).toMatchObject({ databaseId, epoch: 3 });
    expect(await contentOf(db.path)).toEqual({ a: 'before', c: 'before', e: 1 });
  });

  test('of a backup with higher numbers goes on above those', async () => {
    const source = await backupOf((db) => {
      for (let i = 0; i < 100; i++) db.set('n', i);
    });
    const db = await openTemp();
    await db.aset('a', 1);
    expect((await db.arestore(source)).appliedSeq).toBe(100);
    await db.aset('b', 1);
    expect(db.stats()).toMatchObject({ lastSeq: 101, pending: expect.any(Number) });
    await db.aflush();
    expect(db.toDict()).toEqual({ b: 1, n: 99 });
    expectBalance(db);
  });

  test('dead letters are those of the backup: retried there, and known again', async () => {
    const db = await openTemp();
    await db.aexecute('CREATE TABLE r (n INTEGER CHECK (n > 0))');
    db.rows('r').append({ n: -1 });
    await db.aflush();
    const exported = [];
    for await (const line of db.dlq.export()) exported.push(line);
    const source = join(dirname(db.path), 'backup.db');
    await db.abackup(source);
    await db.dlq.clear('all');
    db.rows('r').append({ n: -2 });
    db.rows('r').append({ n: -3 });
    await db.aflush();
    await db.arestore(source);
    expect(db.dlq.size).toBe(1);
    expectBalance(db);
    expect((await db.agetDlq()).map(({ payload }) => payload)).toEqual([[-1]]);
    expect(await db.dlq.import(exported)).toEqual({ imported: 0, duplicates: 1 });
    db.rows('r').append({ n: -4 });
    await db.aflush();
    const seqs = (await db.agetDlq()).map(({ seq }) => seq);
    expect(new Set(seqs).size).toBe(2);
    await db.aexecute('DROP TABLE r');
    await db.aexecute('CREATE TABLE r (n INTEGER)');
    expect(await db.dlq.retry('all')).toMatchObject({ applied: 2, failed: 0 });
    expectBalance(db);
    expect(await verify(db.path)).toMatchObject({ findings: [] });
  });

  test('takes no writes while the files are swapped, says so, and loses none that it took', async () => {
    const db = await openTemp('data.db', { flush: { mode: 'immediate' } });
    for (let i = 0; i < 200; i++) db.set(`old${i}`, 'x'.repeat(1_000));
    const source = await simple();
    const outcomes: Record<string, number> = {};
    const acknowledged = new Set<string>();
    let turn = 0;
    let restored = false;
    const timer = setInterval(() => {
      const key = `${restored ? 'new' : 'meanwhile'}${turn++}`;
      const count = (outcome: string) => {
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
      };
      db.aset(key, 1).then(
        () => {
          count('done');
          acknowledged.add(key);
        },
        ({ code }) => count(code),
      );
      db.aexecute('SELECT 1').then(
        () => count('sql'),
        ({ code }) => count(`sql ${code}`),
      );
      // Reads go on all the time, of the one or the other.
      expect(['x'.repeat(1_000), undefined]).toContain(db.get('old7'));
      expect([undefined, 'restored']).toContain(db.get('a'));
      db.aget('old7').then(
        () => count('read'),
        ({ code }) => count(`read ${code}`),
      );
    }, 1);
    onTestFinished(() => clearInterval(timer));
    await eventually(() => (outcomes['done'] ?? 0) > 10, 'it is under way');
    await db.arestore(source);
    restored = true;
    await eventually(() => [...acknowledged].some((key) => key.startsWith('new')), 'it goes on');
    clearInterval(timer);
    await db.aflush();
    expect(outcomes).toMatchObject({ SLUICE_CONFLICT: expect.any(Number), 'sql SLUICE_CONFLICT': expect.any(Number) });
    expect(Object.keys(outcomes).sort()).toEqual(['SLUICE_CONFLICT', 'done', 'read', 'sql', 'sql SLUICE_CONFLICT']);
    const { refusedBy } = db.stats();
    expect([refusedBy.closed, refusedBy.invalid]).toEqual([outcomes['SLUICE_CONFLICT'], 0]);
    const content = db.toDict();
    expect(Object.keys(content).filter((key) => key.startsWith('old'))).toEqual([]);
    // What was acknowledged before is gone, by request; what was acknowledged after is there.
    for (const key of acknowledged) if (key.startsWith('new')) expect(content).toHaveProperty([key]);
    expectBalance(db);
  });

  test('walks over a snapshot end with an error, in this thread and in the others', async () => {
    const db = await openTemp();
    for (let i = 0; i < 2_000; i++) db.set(`k${i}`, i);
    await db.aflush();
    const walk = db.entries();
    const asyncWalk = db.ascan();
    walk.next();
    await asyncWalk.next();
    await db.arestore(await simple());
    const code = await codeFrom(() => {
      for (const _ of walk);
    });
    const asyncCode = await codeFrom(async () => {
      for await (const _ of asyncWalk);
    });
    expect([code, asyncCode]).toEqual(['SLUICE_CONFLICT', 'SLUICE_CONFLICT']);
    expect([...db.keys()]).toEqual(['a', 'b']);
  });

  test('so do rows of a statement, at whatever moment the next one is asked for', async () => {
    const db = await openTemp();
    db.set('k', 1);
    const endless = 'WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c';
    const restoring = db.arestore(await simple());
    const walks = [1, 7, 256].map(async (pageSize) => {
      const rows = db.aiterate(endless, [], { pageSize });
      // It never comes to an end by itself.
      for (;;) if ((await rows.next()).done === true) return;
    });
    expect(await Promise.all(walks.map((walk) => codeFrom(() => walk)))).toEqual(Array(3).fill('SLUICE_CONFLICT'));
    await restoring;
    expect([...db.keys()]).toEqual(['a', 'b']);
  });

  test('what is known of tables is asked anew: columns of rows, and what a constraint has seen', async () => {
    const source = await backupOf(async (db) => {
      db.table('users').set('ada', { email: 'ada@example.org' });
      db.rows('r', { columns: { n: 'integer' } }).append({ n: 1 });
    });
    const db = await openTemp();
    const users = db.table('users', { hooks: [new UniqueHook('email')] });
    users.set('bob', { email: 'bob@example.org' });
    expect(await codeFrom(() => users.set('eve', { email: 'bob@example.org' }))).toBe('SLUICE_VALIDATION');
    const wide = db.rows('r', { columns: { n: 'integer', name: 'text' } });
    const gone = db.rows('gone', { columns: { n: 'integer' } });
    wide.append({ n: 1, name: 'one' });
    gone.append({ n: 1 });
    await db.arestore(source);
    expect(await codeFrom(() => users.set('eve', { email: 'ada@example.org' }))).toBe('SLUICE_VALIDATION');
    users.set('eve', { email: 'bob@example.org' });
    // Refused at the call, and no dead letters.
    expect(await codeFrom(() => wide.append({ n: 2, name: 'two' }))).toBe('SLUICE_INVALID_VALUE');
    expect(await codeFrom(() => gone.append({ n: 2 }))).toBe('SLUICE_NOT_FOUND');
    wide.append({ n: 2 });
    db.rows('gone', { columns: { n: 'integer' } }).append({ n: 3 });
    gone.append({ n: 4 });
    expect(await db.afetchAll('SELECT n FROM r UNION ALL SELECT n FROM gone')).toEqual(
      [1, 2, 3, 4].map((n) => ({ n })),
    );
    expect(db.dlq.size).toBe(0);
  });

  test('a cache, and what is known of triggers, though the schema has as many changes behind it', async () => {
    const cache = { strategy: 'lru', maxEntries: 100 } as const;
    const source = await backupOf(async (db) => {
      db.table('t').setMany({ a: 'restored', c: 'restored' });
      await db.aexecute('CREATE TABLE changes (n)');
      await db.aexecute(
        'CREATE TRIGGER upper AFTER INSERT ON t BEGIN UPDATE t SET value = upper(value) WHERE key = new.key; END',
      );
    });
    // Closed, it is a backup too, and keeps the version of its schema, which a backup begins anew.
    const closed = join(dirname(source), 'source.db');
    const db = await openTemp();
    const table = db.table('t', { cache });
    table.setMany({ a: 'before', b: 'before' });
    await db.aexecute('CREATE TABLE changes (n)');
    await db.aexecute('CREATE TABLE other (n)');
    expect([table.get('a'), table.get('b'), table.get('c'), table.isCached('a')]).toEqual([
      'before',
      'before',
      undefined,
      true,
    ]);
    const versions = async () => db.afetchOne('SELECT schema_version AS n FROM pragma_schema_version');
    const before = await versions();
    await db.arestore(closed);
    expect(await versions()).toEqual(before);
    expect([table.get('a'), table.get('b'), table.get('c'), await table.aget('a')]).toEqual([
      'restored',
      undefined,
      'restored',
      'restored',
    ]);
    table.set('d', 'written');
    await db.aflush();
    expect(table.get('d')).toBe('WRITTEN');
  });

  test('a transaction that has read what was there before begins anew, and sees what is there now', async () => {
    const source = await backupOf((db) => db.set('n', 100));
    const db = await openTemp();
    db.set('n', 1);
    let tries = 0;
    await db.atransaction(async (tx) => {
      const n = tx.get('n') as number;
      if (tries++ === 0) await db.arestore(source);
      tx.set('n', n + 1);
    });
    expect([tries, db.get('n')]).toEqual([2, 101]);
  });

  test('at every level of durability, and of a temporary one', async () => {
    const source = await simple();
    for (const durability of ['memory', 'interval', 'applied'] as const) {
      const db = await open(durability === 'memory' ? ':memory:' : join(tempDir(), 'a.db'), { durability });
      await db.aset('a', 'before');
      await db.arestore(source);
      await db.aset('c', 'after');
      await db.adurable();
      expect(db.toDict()).toEqual({ a: 'restored', b: 'restored', c: 'after' });
      if (durability !== 'memory') {
        const { log, state } = await inspect(db.path);
        for (const { own } of log.segments) expect(own).toBe(true);
        expect(state.epoch).toBe(2);
      }
      await db.close();
      if (durability !== 'memory') expect(await contentOf(db.path)).toMatchObject({ c: 'after' });
    }
  });

  test('a process that runs queries for others sees what was restored', async () => {
    const db = await openTemp();
    await db.aset('a', 'before');
    await db.aflush();
    const query = new QueryConnection(db.path);
    const ask = () => query.run('SELECT value FROM data ORDER BY key', { maxRows: 10, maxBytes: 1_000 }).rows;
    expect(ask()).toContain('before');
    await db.arestore(await simple());
    expect(ask()).not.toContain('before');
    expect(ask()).toContain('restored');
  });

  test('one at a time, and neither beside a backup nor beside a change of keys', async () => {
    const source = await simple();
    const db = await openTemp('data.db', { encryption: { key: randomBytes(32) } });
    const [one, two, copy, keys] = await Promise.allSettled([
      db.arestore(source),
      db.arestore(source),
      db.abackup(join(tempDir(), 'b.db')),
      db.arotateKey({ key: randomBytes(32) }),
    ]);
    expect(one.status).toBe('fulfilled');
    for (const other of [two, copy, keys]) expect(other).toMatchObject({ reason: { code: 'SLUICE_CONFLICT' } });
    const during = db.abackup(join(tempDir(), 'b.db'));
    expect(await codeFrom(() => db.arestore(source))).toBe('SLUICE_CONFLICT');
    await during;
    const rotation = db.arotateKey({ key: randomBytes(32) });
    expect(await codeFrom(() => db.arestore(source))).toBe('SLUICE_CONFLICT');
    await rotation;
  });

  test('closed while it is restored, it is the one or the other, and whole', async () => {
    const source = await simple();
    const db = await openTemp();
    await db.aset('a', 'before');
    const restoring = codeFrom(() => db.arestore(source));
    await db.close();
    expect(await restoring).toBe('SLUICE_CLOSED');
    expect(await contentOf(db.path)).toEqual({ a: 'before' });
    expect(readdirSync(dirname(db.path)).sort()).toEqual(['data.db', 'data.db-log']);
  });
});

describe('keys', () => {
  test('a backup needs keys that the database is open with', async () => {
    const [right, wrong] = [{ key: randomBytes(32) }, { key: randomBytes(32) }];
    const source = await backupOf((db) => db.set('a', 'secret'), { encryption: right });
    for (const encryption of [undefined, wrong]) {
      const db = await openTemp('a.db', { encryption });
      db.set('a', 'before');
      expect(await codeFrom(() => db.arestore(source))).toBe('SLUICE_DECRYPT');
      expect(db.get('a')).toBe('before');
    }
    const db = await openTemp('a.db', { encryption: { ...wrong, previous: [right] } });
    await db.arestore(source);
    expect(db.get('a')).toBe('secret');
    expect(await db.aget('a')).toBe('secret');
    db.set('b', 'new');
    await db.close();
    expect(await codeFrom(() => open(db.path, { encryption: right }))).toBe('SLUICE_DECRYPT');
    const encryption = { ...wrong, previous: [right] };
    expect(await contentOf(db.path, { encryption })).toEqual({ a: 'secret', b: 'new' });
    const again = await open(db.path, { encryption });
    await again.arotateKey();
    await again.close();
    expect(await contentOf(db.path, { encryption: wrong })).toEqual({ a: 'secret', b: 'new' });
  });

  test('a backup from before a change of keys, of a passphrase too', async () => {
    const before = { passphrase: 'correct horse battery' };
    const after = { passphrase: 'staple staple staple' };
    const db = await openTemp('a.db', { encryption: before });
    db.set('a', 'old');
    const source = join(dirname(db.path), 'backup.db');
    await db.abackup(source);
    await db.arotateKey(after);
    db.set('a', 'new');
    await db.arestore(source);
    expect(db.get('a')).toBe('old');
    db.set('b', 'after');
    await db.close();
    const encryption = { ...after, previous: [before] };
    expect(await contentOf(db.path, { encryption })).toEqual({ a: 'old', b: 'after' });
    expect(await codeFrom(() => open(db.path, { encryption: after }))).toBe('SLUICE_DECRYPT');
  });

  test('a backup that is not encrypted, into a database that is', async () => {
    const encryption = { key: randomBytes(32) };
    const db = await openTemp('a.db', { encryption });
    db.set('a', 'before');
    await db.arestore(await simple());
    expect([db.get('a'), await db.aget('b')]).toEqual(['restored', 'restored']);
    db.set('c', 'sealed');
    await db.close();
    expect(await contentOf(db.path, { encryption })).toEqual({ a: 'restored', b: 'restored', c: 'sealed' });
    expect(readFileSync(db.path).includes('sealed')).toBe(false);
    expect(await codeFrom(() => open(db.path))).toBe('SLUICE_DECRYPT');
  });
});

describe('a database that nobody has open', () => {
  test('that was killed: its log is set aside, and never replayed', async () => {
    const file = await killed({ flushed: 5 });
    const { state, recovery } = await inspect(file);
    expect(recovery?.writes).toBeGreaterThan(0);
    const segments = segmentsOf(file);
    const source = await simple();
    const result = await restore(file, source);
    expect(result).toMatchObject({ path: file, from: source, epoch: state.epoch + 1 });
    // New writes get numbers that the log has not given to others.
    expect(result.appliedSeq).toBe(state.watermark + (recovery?.writes ?? 0));
    expect(await inspect(file)).toMatchObject({
      state: { databaseId: state.databaseId, epoch: state.epoch + 1 },
      recovery: { writes: 0, setAside: segments },
    });
    expect(await contentOf(file)).toEqual({ a: 'restored', b: 'restored' });
    const aside = readdirSync(`${file}-log`).filter((name) => name.includes('set-aside'));
    expect(aside.length).toBe(segments.length);
    expect(readdirSync(dirname(file)).filter((name) => name.startsWith('a.db'))).toEqual(['a.db', 'a.db-log']);
  });

  test('that is not there', async () => {
    const file = join(tempDir(), 'new.db');
    expect((await restore(file, await simple())).epoch).toBe(1);
    expect(await contentOf(file)).toEqual({ a: 'restored', b: 'restored' });
  });

  test('that is damaged, with what a process has left beside it', async () => {
    const source = await simple();
    const file = await killed({ flushed: 5 });
    for (const path of [file, `${file}-wal`]) writeFileSync(path, 'no database any more\n'.repeat(1_000));
    await restore(file, source);
    expect(await contentOf(file)).toEqual({ a: 'restored', b: 'restored' });
  });

  test('but not one that is open, or that is no database of Sluice’s', async () => {
    const source = await simple();
    const db = await openTemp();
    await db.aset('a', 'before');
    expect(await codeFrom(() => restore(db.path, source))).toBe('SLUICE_LOCKED');
    expect(await codeFrom(() => restore(':memory:', source))).toBe('SLUICE_INVALID_OPTION');
    expect(await codeFrom(() => restore(source, source))).toBe('SLUICE_INVALID_OPTION');
    expect(await codeFrom(() => restore(join(tempDir(), 'a.db'), source, { signal: AbortSignal.abort() }))).toBe(
      'SLUICE_ABORTED',
    );
    const plain = join(tempDir(), 'plain.db');
    const sqlite = new Sqlite(plain);
    sqlite.exec('CREATE TABLE mine (n)');
    sqlite.close();
    const before = readFileSync(plain);
    expect(await codeFrom(() => restore(plain, source))).toBe('SLUICE_NOT_FOUND');
    expect(readFileSync(plain).equals(before)).toBe(true);
    expect(db.get('a')).toBe('before');
  });

  test('what a restore has left behind that was killed is gone with the next open', async () => {
    const db = await openTemp();
    await db.aset('a', 'before');
    await db.close();
    copyFileSync(await simple(), `${db.path}-restoring`);
    expect(await contentOf(db.path)).toEqual({ a: 'before' });
    expect(readdirSync(dirname(db.path)).sort()).toEqual(['data.db', 'data.db-log']);
  });
});
