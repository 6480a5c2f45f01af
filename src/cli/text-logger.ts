import { messageOf } from '../base/errors.ts';
import type { Database } from '../db/database.ts';
import type { DeadLetterSummary } from '../store/store.ts';

/** How long what comes by the thousand is counted before it is told. */
const BURST_MS = 1_000;

/** Says on standard error what somebody should know of a database that is served. */
export function logEvents(db: Database): void {
  const say = (text: string) => console.error(`sluice: ${text}`);
  db.on('failure', ({ during, error }) => say(`${during}: ${messageOf(error)}`));
  db.on('state', ({ state, previous }) => {
    if (state !== 'closing' && state !== 'closed') say(`the database is ${state}, it was ${previous}`);
  });
  db.on('stall', ({ reason, error }) => say(`nothing is applied any more (${reason}): ${messageOf(error)}`));
  db.on('resume', ({ reason, stalledMs }) =>
    say(`writes are applied again, after ${(stalledMs / 1_000).toFixed(1)} s (${reason})`),
  );
  logBursts(db, 'dead-letter', (count, { table, errorMessage }) =>
    say(
      count === 1
        ? `SQLite refused a write to ${table ?? 'the database'} for good: ${errorMessage}`
        : `SQLite refused ${count} writes for good, the last one to ${table ?? 'the database'}: ${errorMessage}`,
    ),
  );
  logBursts(db, 'evicted', (count) =>
    say(`${count} dead letters were dropped for good, to keep their queue within its limits`),
  );
}

/** A line for each would say less than their number, and cost more. */
function logBursts(
  db: Database,
  event: 'dead-letter' | 'evicted',
  say: (count: number, last: DeadLetterSummary) => void,
): void {
  let count = 0;
  let last: DeadLetterSummary | undefined;
  let timer: NodeJS.Timeout | undefined;
  const tell = () => {
    clearTimeout(timer);
    timer = undefined;
    if (last !== undefined) say(count, last);
    count = 0;
    last = undefined;
  };
  db.on(event, (letter) => {
    count++;
    last = letter;
    timer ??= setTimeout(tell, BURST_MS).unref();
  });
  // The last ones, too.
  db.on('state', ({ state }) => {
    if (state === 'closed' || state === 'failed') tell();
  });
}
