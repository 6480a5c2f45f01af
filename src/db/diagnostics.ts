import { type Channel, channel } from 'node:diagnostics_channel';
import type { Clock } from '../base/clock.ts';
import type { Stall } from '../flush/index.ts';
import type { DeadLetterSummary } from '../store/store.ts';
import type { DatabaseEvents, EventHandlers } from './events.ts';

/** What every message on a channel has: enough to make a span of it afterwards. */
export interface DiagnosticMessage {
  /** `db.path` of the database that it is about. */
  readonly path: string;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  /** `startedAt + durationMs` is when it was over. */
  readonly durationMs: number;
}

/** A batch was committed in SQLite. `durationMs` is its time on the writer thread. */
export type FlushMessage = DiagnosticMessage & DatabaseEvents['flush'][0];

/** The log was synced (fdatasync). At `durability: 'interval'` mostly with no writes and no bytes of its own. */
export type SyncMessage = DiagnosticMessage & Omit<DatabaseEvents['commit'][0], 'syncMs'>;

/** SQLite refused a write for good. It began when the write was accepted. Neither its payload nor its key is told. */
export type DeadLetterMessage = DiagnosticMessage & Omit<DeadLetterSummary, 'key'>;

/** The flush stands still. It began with the first attempt that failed; `durationMs` is how long that is ago. */
export type StallMessage = DiagnosticMessage & Omit<Stall, 'since'>;

/** It goes on. Began when the stall did. */
export type ResumeMessage = DiagnosticMessage & Pick<Stall, 'reason'>;

/**
 * The channels of `node:diagnostics_channel` that every open database publishes on, and what. A message is made only where
 * somebody has subscribed.
 *
 * @example
 * ```ts
 * import { subscribe } from 'node:diagnostics_channel';
 * import { type DiagnosticMessages, open } from 'sluicedb';
 *
 * subscribe('sluicedb:flush', (message) => {
 *   const { writes, applied, coalesced } = message as DiagnosticMessages['sluicedb:flush'];
 *   console.log(`${writes} writes: ${applied} applied, ${coalesced} made pointless by a newer one`);
 * });
 *
 * const db = await open(':memory:');
 * db.set('a', 1);
 * db.set('a', 2);
 * await db.close(); // … 2 writes: 1 applied, 1 made pointless by a newer one …
 * ```
 */
export interface DiagnosticMessages {
  readonly 'sluicedb:flush': FlushMessage;
  readonly 'sluicedb:sync': SyncMessage;
  readonly 'sluicedb:dead-letter': DeadLetterMessage;
  readonly 'sluicedb:stall': StallMessage;
  readonly 'sluicedb:resume': ResumeMessage;
}

/** Node.js forgets a channel that nobody holds. */
const channels: { readonly [Name in keyof DiagnosticMessages]: Channel } = {
  'sluicedb:flush': channel('sluicedb:flush'),
  'sluicedb:sync': channel('sluicedb:sync'),
  'sluicedb:dead-letter': channel('sluicedb:dead-letter'),
  'sluicedb:stall': channel('sluicedb:stall'),
  'sluicedb:resume': channel('sluicedb:resume'),
};

/** Publishes the events of a database. What a subscriber throws becomes an `uncaughtException`, and stays out of the way. */
export function diagnosticsOf(path: string, clock: Pick<Clock, 'now'>): EventHandlers {
  const publish = <Name extends keyof DiagnosticMessages>(
    name: Name,
    message: (now: number) => Omit<DiagnosticMessages[Name], 'path'>,
  ) => {
    if (channels[name].hasSubscribers) channels[name].publish({ path, ...message(clock.now()) });
  };
  return {
    flush: (flush) => publish('sluicedb:flush', (now) => ({ ...flush, startedAt: now - flush.durationMs })),
    commit({ syncMs, ...commit }) {
      if (syncMs === undefined) return;
      publish('sluicedb:sync', (now) => ({ ...commit, startedAt: now - syncMs, durationMs: syncMs }));
    },
    'dead-letter': (letter) =>
      publish('sluicedb:dead-letter', () => {
        const { key: _, ...rest } = letter;
        const durationMs = Math.max(0, letter.lastFailedAt - letter.acceptedAt);
        return { ...rest, startedAt: letter.acceptedAt, durationMs };
      }),
    stall: ({ reason, error, since }) =>
      publish('sluicedb:stall', (now) => ({ reason, error, startedAt: since, durationMs: Math.max(0, now - since) })),
    resume: ({ reason, stalledMs }) =>
      publish('sluicedb:resume', (now) => ({ reason, startedAt: now - stalledMs, durationMs: stalledMs })),
  };
}
