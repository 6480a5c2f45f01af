import type { Database } from './database.ts';

const SIGNALS = ['SIGTERM', 'SIGINT'] as const;

/**
 * Closes a database when the process is told to end: on SIGTERM or SIGINT everything staged is applied, then the signal is
 * raised again, so that the process ends as it would have without this. Returns a function that takes it back.
 *
 * @example
 * ```ts
 * import { closeOnSignals, open } from 'sluicedb';
 *
 * const db = await open(':memory:');
 * const forget = closeOnSignals(db);
 * // … the program …
 * forget();
 * await db.close();
 * ```
 */
export function closeOnSignals(db: Pick<Database, 'close'>): () => void {
  const forget = () => {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  };
  const onSignal = (signal: NodeJS.Signals) => {
    const raise = () => {
      forget();
      process.kill(process.pid, signal);
    };
    db.close().then(raise, (error: unknown) => {
      process.emitWarning(`the database did not close cleanly: ${String(error)}`, { type: 'SluiceWarning' });
      raise();
    });
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  return forget;
}
