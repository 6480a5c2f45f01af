/** Logs so many writes and says so: to be killed then. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { open } from 'sluicedb';
import { ROOM } from './cases/recovery.ts';
import { uniqueObjects } from './workload.ts';

const [, , folder = '', count = ''] = process.argv;
const writes = Number(count);
const entryOf = uniqueObjects(writes);
mkdirSync(folder, { recursive: true });
const db = await open(join(folder, 'sluice.db'), { staging: ROOM, flush: { mode: 'manual' } });
for (let i = 0; i < writes; i++) {
  db.set(...entryOf(i));
  if (i % 1_000 === 0) await nextTurn();
}
await db.adurable();
process.send?.('logged');
