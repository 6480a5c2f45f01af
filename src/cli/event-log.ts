import { messageOf } from '../base/errors.ts';
import type { Database } from '../db/database.ts';

/** How long dropped entries are counted before they are told. */
const EVICTED_MS = 1_000;

/** Says on standard error what somebody should know of a database that is served. */
export function logEvents(db: Database): void {
  const say = (text: string) => console.error(`sluice: ${text}`);
  db.on('failure', ({ during, error }) => say(`${during}: ${messageOf(error)}`));
  db.on('state', ({ state, previous }) => {
    if (state !== 'closing' && state !== 'closed') say(`the database is ${state}, it was ${previous}`);
  });
  db.on('dead-letter', ({ table, errorMessage }) =>
    say(`SQLite refused a write to ${table ?? 'the database'} for good: ${errorMessage}`),
  );
  db.on('stall', ({ reason, error }) => say(`nothing is applied any more (${reason}): ${messageOf(error)}`));
  db.on('resume', ({ reason, stalledMs }) =>
    say(`writes are applied again, after ${(stalledMs / 1_000).toFixed(1)} s (${reason})`),
  );
  logEvictions(db, say);
}

/** They come by the thousand: a line for each would say less, and cost more. */
function logEvictions(db: Database, say: (text: string) => void): void {
  let evicted = 0;
  let timer: NodeJS.Timeout | undefined;
  const tell = () => {
    clearTimeout(timer);
    timer = undefined;
    if (evicted > 0) say(`${evicted} dead letters were dropped for good, to keep their queue within its limits`);
    evicted = 0;
  };
  db.on('evicted', () => {
    evicted++;
    timer ??= setTimeout(tell, EVICTED_MS).unref();
  });
  // The last ones, too.
  db.on('state', ({ state }) => {
    if (state === 'closed' || state === 'failed') tell();
  });
}
