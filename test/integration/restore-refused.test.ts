import { randomBytes } from 'node:crypto';
import { existsSync, linkSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { type Database, inspect, type OpenOptions } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { backupOf, contentOf, simple } from '../support/backups.ts';
import { Child } from '../support/child.ts';
import { codeFrom, eventually, refusal } from '../support/eventually.ts';
import { FaultFileSystem } from '../support/fault-file-system.ts';
import { killed } from '../support/left-behind.ts';
import { machine } from '../support/machine.ts';
import { openTemp } from '../support/open-temp.ts';
import { failOnce } from '../support/patched-fs.ts';
import { tempDir } from '../support/temp-dir.ts';

/** Where a restore is refused, the database goes on with what it has. */
async function expectRefused(db: Database, source: string, code: string, text = ''): Promise<void> {
  const error = await refusal(() => db.arestore(source));
  expect([error.code, error.message]).toEqual([code, expect.stringContaining(text)]);
  expect(existsSync(`${db.path}-restoring`)).toBe(false);
  await db.aset('goes on', 1);
  await db.aflush();
  expect(db.get('a')).toBe('before');
}

async function victim(options: OpenOptions = {}): Promise<Database> {
  const db = await openTemp('victim.db', options);
  db.set('a', 'before');
  return db;
}

test('files that are no backups', async () => {
  const db = await victim();
  const file = (name: string, content: string | Buffer) => {
    const path = join(tempDir(), name);
    writeFileSync(path, content);
    return path;
  };
  await expectRefused(db, join(tempDir(), 'nowhere.db'), 'SLUICE_NOT_FOUND');
  await expectRefused(db, file('text.db', 'no database\n'.repeat(1_000)), 'SLUICE_STORE', 'no SQLite database');
  await expectRefused(db, file('empty.db', ''), 'SLUICE_NOT_FOUND');
  const plain = join(tempDir(), 'plain.db');
  const sqlite = new Sqlite(plain);
  sqlite.exec('CREATE TABLE data (key TEXT PRIMARY KEY, value TEXT)');
  sqlite.close();
  await expectRefused(db, plain, 'SLUICE_NOT_FOUND', 'Sluice');
  await expectRefused(db, dirname(plain), 'SLUICE_INVALID_OPTION');
  await expectRefused(db, ':memory:', 'SLUICE_INVALID_OPTION');
  await expectRefused(db, db.path, 'SLUICE_INVALID_OPTION');
  linkSync(db.path, join(dirname(db.path), 'hard.db'));
  await expectRefused(db, join(dirname(db.path), 'hard.db'), 'SLUICE_INVALID_OPTION');
  const bad = await refusal(() => db.arestore(plain, { onProgres: 1 } as never));
  expect(bad.code).toBe('SLUICE_INVALID_OPTION');
});

test('a table in use for keys that is of another shape there, or has another key', async () => {
  const keys = [randomBytes(32), randomBytes(32)] as const;
  const shaped = (sql: string) => backupOf(async (db) => void (await db.aexecute(sql)));
  const encrypted = await backupOf((db) => {
    db.table('Other', { encryption: { key: keys[0] } }).set('a', 1);
  });
  const db = await victim();
  const other = db.table('other');
  other.set('a', 'before');
  await expectRefused(db, await shaped('CREATE TABLE other (n INTEGER)'), 'SLUICE_CONFLICT', 'other');
  await expectRefused(db, await shaped('CREATE TABLE OTHER (key TEXT, value TEXT)'), 'SLUICE_CONFLICT', 'OTHER');
  await expectRefused(db, await shaped('CREATE VIEW other AS SELECT 1 AS key, 2 AS value'), 'SLUICE_CONFLICT');
  await expectRefused(db, encrypted, 'SLUICE_DECRYPT', 'Other');
  expect(other.get('a')).toBe('before');
  const wrong = await victim();
  wrong.table('other', { encryption: { key: keys[1] } }).set('a', 1);
  await expectRefused(wrong, encrypted, 'SLUICE_DECRYPT', 'Other');
  const right = await victim();
  const same = right.table('other', { encryption: { key: keys[0] } });
  await right.arestore(encrypted);
  expect(same.get('a')).toBe(1);
  // One that nobody has asked for can be anything.
  const another = await victim();
  await another.arestore(await shaped('CREATE TABLE other (n INTEGER)'));
  expect(await codeFrom(() => another.table('other'))).toBe('SLUICE_INVALID_OPTION');
});

test('a table that is asked for while it is restored', async () => {
  const source = await backupOf(async (db) => void (await db.aexecute('CREATE TABLE late (n INTEGER)')));
  const db = await victim();
  const restoring = db.arestore(source, { onProgress: ({ phase }) => phase === 'check' && db.table('late') });
  expect((await refusal(() => restoring)).code).toBe('SLUICE_CONFLICT');
  db.table('late').set('b', 1);
  await db.aflush();
  expect([db.get('a'), db.table('late').get('b'), db.state]).toEqual(['before', 1, 'ok']);
});

test('a damaged page, wherever it is; a backup cut short', async () => {
  const source = await backupOf((db) => {
    for (let i = 0; i < 500; i++) db.set(`k${i}`, 'x'.repeat(1_000));
  });
  const sound = readFileSync(source);
  const db = await victim();
  for (const page of [60, 100]) {
    const bytes = Buffer.from(sound);
    bytes.fill(0xff, page * 4096, page * 4096 + 200);
    writeFileSync(source, bytes);
    await expectRefused(db, source, 'SLUICE_STORE');
  }
  writeFileSync(source, sound.subarray(0, sound.length - 8 * 4096));
  await expectRefused(db, source, 'SLUICE_STORE');
  writeFileSync(source, sound);
  await db.arestore(source);
  expect(db.size).toBe(500);
});

test('of a later format; one of an earlier format is brought to this one', async () => {
  const source = await simple();
  const format = (value: number) => {
    const sqlite = new Sqlite(source);
    sqlite.prepare('UPDATE _sluice_state SET format = ?').run(value);
    sqlite.close();
  };
  const db = await victim();
  format(99);
  await expectRefused(db, source, 'SLUICE_UNSUPPORTED', 'format 99');
  format(2);
  await db.arestore(source);
  expect(db.get('a')).toBe('restored');
  expect((await inspect(db.path)).state.format).toBe(3);
});

test('open in a process, or killed with writes that only its log has', async () => {
  const db = await victim();
  const other = await openTemp('other.db');
  await other.aset('a', 'other');
  await expectRefused(db, other.path, 'SLUICE_LOCKED', 'backup');
  await other.close();
  const unclosed = await killed({ flushed: 5 });
  await expectRefused(db, unclosed, 'SLUICE_CONFLICT', 'was not closed');
  await db.arestore(other.path);
  expect(db.get('a')).toBe('other');
});

test('aborted, and late', async () => {
  const db = await victim();
  const source = await simple();
  const stop = new AbortController();
  const signals = { signal: stop.signal, onProgress: () => stop.abort() };
  expect(await codeFrom(() => db.arestore(source, signals))).toBe('SLUICE_ABORTED');
  expect(await codeFrom(() => db.arestore(source, { timeoutMs: 1 }))).toBe('SLUICE_TIMEOUT');
  await expectRefused(db, join(tempDir(), 'nowhere.db'), 'SLUICE_NOT_FOUND');
});

test('a rename that fails', async () => {
  const db = await victim();
  await db.aget('a');
  for (const name of ['renameSync', 'chmodSync'] as const) {
    const hits = failOnce(name, '-restoring', 'EACCES');
    await expectRefused(db, await simple(), 'SLUICE_STORE', 'EACCES');
    expect(hits()).toBe(1);
  }
  expect(db.stats().writerRestarts).toBe(0);
  await db.close();
  expect(await contentOf(db.path)).toEqual({ a: 'before', 'goes on': 1 });
});

test('another program that reads the database: it would go on with what is replaced', async () => {
  const db = await victim();
  await db.aflush();
  const sqlite = new URL('../../node_modules/better-sqlite3/lib/index.js', import.meta.url).href;
  const reader = new Child(
    `import Sqlite from ${JSON.stringify(sqlite)};
       const db = new Sqlite(process.argv[2], { readonly: true });
       db.exec('BEGIN');
       db.prepare('SELECT * FROM data').all();
       console.log('reading');
       setInterval(() => {}, 1000);`,
    [db.path],
  );
  await reader.says('reading');
  await db.aset('b', 'not in the file alone');
  const source = await simple();
  await expectRefused(db, source, 'SLUICE_CONFLICT', 'some other program');
  reader.process.kill('SIGKILL');
  await reader.end();
  await db.arestore(source);
  expect(db.toDict()).toEqual({ a: 'restored', b: 'restored' });
});

test('while the flush stands still', async () => {
  const db = await victim();
  db.on('failure', () => {});
  await db.aflush();
  await db.aexecute('CREATE TABLE broken (key TEXT PRIMARY KEY, value TEXT)');
  db.table('broken').set('x', 1);
  await db.aflush();
  await db.aexecute('ALTER TABLE broken RENAME COLUMN value TO other');
  db.table('broken').set('y', 1);
  await eventually(() => db.stats().stall !== undefined, 'it stands still', 20_000);
  const error = await refusal(async () => db.arestore(await simple()));
  expect([error.code, error.message]).toEqual(['SLUICE_STORE', expect.stringContaining('stands still')]);
  expect(db.get('a')).toBe('before');
  await db.aexecute('ALTER TABLE broken RENAME COLUMN other TO value', { ahead: true });
  await db.aflush();
  expect(db.table('broken').get('y')).toBe(1);
});

test('when its name is not safe after the swap, it takes nothing more; opened again, it is restored', async () => {
  const fileSystem = new FaultFileSystem();
  const db = await openOn(machine({ fileSystem }), join(tempDir(), 'a.db'), {});
  db.on('failure', () => {});
  await db.aset('a', 'before');
  const source = await simple();
  await db.aflush();
  fileSystem.fail('syncDirectory', 'EIO', { file: /^sluice-test-/ });
  expect(await codeFrom(() => db.arestore(source))).toBe('SLUICE_FAILED');
  expect(fileSystem.hit('syncDirectory')).toBe(1);
  expect(db.get('a')).toBe('restored');
  expect(await codeFrom(() => db.set('b', 1))).toBe('SLUICE_FAILED');
  await db.close();
  expect(await contentOf(db.path)).toEqual({ a: 'restored', b: 'restored' });
});
