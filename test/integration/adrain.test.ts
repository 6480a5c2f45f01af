import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { open } from 'sluicedb';
import { expect, it } from 'vitest';
import { tempDir } from '../support/temp-dir.ts';

it('adrain rejects when the database is closed before there is room', async () => {
  const file = join(tempDir(), 'drain.db');
  const db = await open(file, { staging: { maxEntries: 10 }, closeTimeoutMs: 50 });
  db.on('failure', () => undefined);
  const other = new Sqlite(file);
  other.exec('BEGIN IMMEDIATE');
  try {
    for (let i = 0; i < 10; i++) db.set(`key/${i}`, i);
    const drained = db.adrain();
    const seen = expect(drained).rejects.toMatchObject({ code: 'SLUICE_CLOSED' });
    const { pending } = await db.close();
    expect(pending, 'writes that could not be applied').toBe(10);
    await seen;
  } finally {
    other.close();
  }
});
