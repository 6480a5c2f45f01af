import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Database, type OpenOptions, open } from 'sluicedb';
import { openTemp } from './open-temp.ts';
import { tempDir } from './temp-dir.ts';

/** A backup of a database that was filled so. */
export async function backupOf(fill: (db: Database) => unknown, options: OpenOptions = {}): Promise<string> {
  const db = await openTemp('source.db', options);
  await fill(db);
  const { path } = await db.abackup(join(dirname(db.path), 'backup.db'));
  await db.close();
  return path;
}

let template: Buffer | undefined;

/** A backup with two keys. */
export async function simple(): Promise<string> {
  template ??= readFileSync(await backupOf((db) => db.setMany({ a: 'restored', b: 'restored' })));
  const file = join(tempDir(), 'backup.db');
  writeFileSync(file, template);
  return file;
}

/** What the default table of a file has. */
export async function contentOf(file: string, options: OpenOptions = {}): Promise<Record<string, unknown>> {
  const db = await open(file, options);
  const content = db.toDict();
  await db.close();
  return content;
}
