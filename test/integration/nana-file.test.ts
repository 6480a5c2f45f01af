import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { open } from 'sluicedb';
import { expect, test } from 'vitest';
import { tempDir } from '../support/temp-dir.ts';

/** What NanaSQLite leaves behind: Python's `json.dumps`, which puts spaces after colons and commas, and escapes. */
const WRITTEN: readonly (readonly [string | null, string])[] = [
  ['compact', '{"a":1,"b":[true,null]}'],
  ['spaced', '{"a": 1, "b": [true, null], "c": 1.5}'],
  ['日本語', '"\\u65e5\\u672c\\u8a9e"'],
  ['emoji 😀', '"😀 é"'],
  ['', '"the empty key"'],
  ['number', '42'],
  ['null', 'null'],
  ['text', '"plain"'],
  ['gone', '"to be deleted"'],
  [null, '"a NULL key"'],
];

test('a file of NanaSQLite is read, written, and read by others afterwards', async () => {
  const file = join(tempDir(), 'nana.db');
  const made = new Sqlite(file);
  made.pragma('journal_mode = WAL');
  made.exec('CREATE TABLE IF NOT EXISTS "data" (key TEXT PRIMARY KEY, value TEXT)');
  const insert = made.prepare('INSERT OR REPLACE INTO "data" (key, value) VALUES (?, ?)');
  for (const entry of WRITTEN) insert.run(...entry);
  made.close();

  const db = await open(file);
  expect(db.get('compact')).toEqual({ a: 1, b: [true, null] });
  expect(db.get('spaced')).toEqual({ a: 1, b: [true, null], c: 1.5 });
  expect(db.get('日本語')).toBe('日本語');
  expect(await db.aget('emoji 😀')).toBe('😀 é');
  expect(db.get('')).toBe('the empty key');
  expect([db.get('number'), db.get('null'), db.get('text')]).toEqual([42, null, 'plain']);
  expect([db.has('null'), db.has('nothing')]).toEqual([true, false]);
  const keys = WRITTEN.flatMap(([key]) => (key === null ? [] : [key])).sort((a, b) =>
    Buffer.compare(Buffer.from(a), Buffer.from(b)),
  );
  expect([...db.keys()]).toEqual(keys);
  expect(db.size).toBe(keys.length);
  expect(await db.asize()).toBe(keys.length);
  const found: string[] = [];
  for await (const key of db.akeys()) found.push(key);
  expect(found).toEqual(keys);

  db.set('compact', { changed: 'ü', list: [1, 2] });
  db.set('new ✓', 'added');
  db.delete('gone');
  await db.close();

  const after = new Sqlite(file, { readonly: true });
  const rows = after.prepare('SELECT key, value FROM "data"').all() as { key: string | null; value: string }[];
  const values = new Map(rows.map(({ key, value }) => [key, value]));
  expect(values.get('compact')).toBe('{"changed":"ü","list":[1,2]}');
  expect(values.get('new ✓')).toBe('"added"');
  expect(values.has('gone')).toBe(false);
  expect(values.get('spaced')).toBe('{"a": 1, "b": [true, null], "c": 1.5}');
  expect(values.get(null)).toBe('"a NULL key"');
  expect(rows).toHaveLength(WRITTEN.length);
  expect(after.prepare("SELECT sql FROM sqlite_master WHERE name = 'data'").pluck().get()).toContain(
    '(key TEXT PRIMARY KEY, value TEXT)',
  );
  expect(after.pragma('integrity_check', { simple: true })).toBe('ok');
  after.close();
});

test('a table that Sluice has made is one that NanaSQLite can write to', async () => {
  const file = join(tempDir(), 'a.db');
  const db = await open(file);
  db.set('a', 1);
  await db.close();
  const other = new Sqlite(file);
  other.exec('CREATE TABLE IF NOT EXISTS "data" (key TEXT PRIMARY KEY, value TEXT)');
  other.prepare('INSERT OR REPLACE INTO "data" (key, value) VALUES (?, ?)').run('a', '{"x": 2}');
  other.close();
  const again = await open(file);
  expect(again.get('a')).toEqual({ x: 2 });
  await again.close();
});

test('what is there and is no JSON is refused at the read, by name, and harms nothing else', async () => {
  const file = join(tempDir(), 'a.db');
  const made = new Sqlite(file);
  made.exec('CREATE TABLE "data" (key TEXT PRIMARY KEY, value TEXT)');
  made.prepare('INSERT INTO "data" VALUES (?, ?)').run('a', 'NaN');
  made.prepare('INSERT INTO "data" VALUES (?, ?)').run('b', null);
  made.prepare('INSERT INTO "data" VALUES (?, ?)').run('c', Buffer.from([1, 2]));
  made.close();
  const db = await open(file);
  expect(() => db.get('a')).toThrow(expect.objectContaining({ code: 'SLUICE_INVALID_VALUE' }));
  expect(db.get('b')).toBeNull();
  expect(db.get('c')).toEqual(Uint8Array.of(1, 2));
  await db.close();
});
