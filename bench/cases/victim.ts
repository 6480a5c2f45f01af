/** Logs its writes and says so: to be killed then. */
import { open } from 'sluicedb';
import { inTurns } from '../host.ts';
import { uniqueObjects } from '../workload.ts';
import { ALL_STAGED, WRITES } from './recovery.ts';

process.on('disconnect', () => process.exit());
const { entryOf } = uniqueObjects(WRITES);
const db = await open(process.argv[2] ?? '', ALL_STAGED);
await inTurns(WRITES, (from, to) => {
  for (let i = from; i < to; i++) db.set(...entryOf(i));
  return undefined;
});
await db.adurable();
process.send?.('logged');
