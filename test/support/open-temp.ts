import { join } from 'node:path';
import { type Database, type OpenOptions, open } from 'sluicedb';
import { onTestFinished } from 'vitest';
import { tempDir } from './temp-dir.ts';

/** A database in a folder of its own, closed when the test ends. Dead letters are part of the test, and no warning. */
export async function openTemp(name = 'data.db', options: OpenOptions = {}): Promise<Database> {
  const db = await open(join(tempDir(), name), options);
  db.on('dead-letter', () => {});
  onTestFinished(async () => void (await db.close()));
  return db;
}
