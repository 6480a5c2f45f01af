import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { open } from 'sluicedb';
import { expect, test } from 'vitest';
import { FrameBuilder, Target } from '../../dist/base/frame/index.js';
import { codeFrom } from '../support/eventually.ts';
import { tempDir } from '../support/temp-dir.ts';

/** The tables of format 1, which had no names for changes of the queue and no origin of its entries. */
const FORMAT_1 = `
  CREATE TABLE _sluice_state (
    id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL, database_id TEXT NOT NULL, epoch INTEGER NOT NULL,
    owner TEXT NOT NULL, applied_seq INTEGER NOT NULL, batch_after INTEGER NOT NULL, batch_result TEXT NOT NULL);
  CREATE TABLE _sluice_dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL, table_name TEXT, operation TEXT NOT NULL, key TEXT,
    accepted_at INTEGER NOT NULL, first_failed_at INTEGER NOT NULL, last_failed_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL, error_class TEXT NOT NULL, error_code TEXT NOT NULL, error_message TEXT NOT NULL,
    write BLOB NOT NULL);
  CREATE INDEX _sluice_dead_letters_seq ON _sluice_dead_letters (seq);
  INSERT INTO _sluice_state VALUES (1, 1, '00112233445566778899aabbccddeeff', 1, 'someone', 7, 3, '{}');
  CREATE TABLE data (key TEXT PRIMARY KEY, value TEXT);
  INSERT INTO data VALUES ('a', '"old"');
`;

function oldFile(): string {
  const file = join(tempDir(), 'a.db');
  const db = new Sqlite(file);
  db.pragma('journal_mode = WAL');
  db.exec(FORMAT_1);
  const builder = new FrameBuilder(1_000);
  builder.put(new Target('data'), 'a', '"new"');
  db.prepare(
    `INSERT INTO _sluice_dead_letters VALUES (5, 6, 'data', 'put', 'a', 1000, 2000, 3000, 4, 'permanent', 'X', 'no', ?)`,
  ).run(builder.build(6).bytes);
  db.close();
  return file;
}

test('a database of format 1 is brought up to date, with its dead letters', async () => {
  const file = oldFile();
  const db = await open(file);
  expect(db.stats()).toMatchObject({ appliedSeq: 7, deadLetters: { entriesAtOpen: 1, oldestAt: 2_000 } });
  expect(await db.dlq.list()).toMatchObject([{ id: 5, seq: 6, key: 'a', payload: '"new"', attempts: 4 }]);
  expect(await db.dlq.retry('all')).toMatchObject({ applied: 1 });
  expect(db.get('a')).toBe('new');
  await db.close();
  const again = await open(file);
  expect(again.get('a')).toBe('new');
  await again.close();
});

test('a format that is not known yet is left alone', async () => {
  const file = oldFile();
  const sqlite = new Sqlite(file);
  sqlite.exec('UPDATE _sluice_state SET format = 99');
  sqlite.close();
  expect(await codeFrom(() => open(file))).toBe('SLUICE_UNSUPPORTED');
});
