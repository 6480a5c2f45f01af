import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Child } from '../support/child.ts';
import { NO_PRELOAD } from '../support/compiled.ts';
import { type Fault, FaultShim } from '../support/fault-shim.ts';
import { tempDir } from '../support/temp-dir.ts';

test.for([
  ['SQLITE_IOERR_LOCK', { operation: 'lock', file: 'a.db', error: 'EIO' }],
  ['SQLITE_PERM', { operation: 'lock', file: 'a.db', error: 'EPERM' }],
  ['SQLITE_IOERR', { operation: 'stat', file: 'a.db', error: 'EIO' }],
  ['SQLITE_IOERR_FSTAT', { operation: 'stat', file: 'a.db', error: 'EIO', skip: 1 }],
  ['SQLITE_IOERR_SHMOPEN', { operation: 'truncate', file: 'a.db-shm', error: 'EIO' }],
  ['SQLITE_IOERR_SHMMAP', { operation: 'map', file: 'a.db-shm', error: 'ENODEV' }],
  ['SQLITE_IOERR_DELETE', { operation: 'unlink', file: 'a.db-journal', error: 'EIO' }],
  ['SQLITE_READONLY_DIRECTORY', { operation: 'open', file: 'a.db-journal', error: 'EACCES' }],
  ['SQLITE_CANTOPEN', { operation: 'open', file: 'a.db', error: 'EMFILE' }],
] as [string, Fault][])('%s at open refuses it, and changes nothing', async ([code, fault], context) => {
  if (NO_PRELOAD !== undefined) context.skip(NO_PRELOAD);
  const shim = new FaultShim();
  const folder = join(tempDir(), 'folder');
  mkdirSync(folder);
  const attempt = async () => {
    const child = new Child(
      `try {
         const db = await open(process.argv[2]);
         await db.aset('k', 1);
         await db.close();
         console.log('opened');
       } catch (error) {
         console.log(error.code, error.sqliteCode);
       }`,
      [join(folder, 'a.db')],
      { env: shim.env },
    );
    return (await child.end()).output.trim();
  };
  shim.arm(fault);
  expect(await attempt()).toBe(`SLUICE_STORE ${code}`);
  expect(shim.hits()[0]).toBeGreaterThan(0);
  shim.arm();
  expect(await attempt()).toBe('opened');
});
