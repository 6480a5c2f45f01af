import type { Database } from '../db/database.ts';

/** A database that has been retrying for this long is stalled. */
const STALL_MS = 5_000;

/** Whether it makes sense to send work here: what was found in the log is applied, and nothing is stuck. */
export class Readiness {
  readonly #db: Database;
  readonly #recoveredSeq: number;
  #degradedAt: number | undefined;
  readonly #watch = () => {
    this.#degradedAt = this.#db.state === 'degraded' ? (this.#degradedAt ?? performance.now()) : undefined;
  };

  constructor(db: Database) {
    this.#db = db;
    this.#recoveredSeq = db.stats().recovered > 0 ? db.stats().lastSeq : 0;
    db.on('state', this.#watch);
    this.#watch();
  }

  /** `ready`, or why not. */
  get word(): string {
    const { state } = this.#db;
    if (state !== 'ok' && state !== 'degraded') return state;
    if (this.#db.stats().appliedSeq < this.#recoveredSeq) return 'recovering';
    // One busy moment is retried and over; only what lasts is news.
    const stalled = this.#degradedAt !== undefined && performance.now() - this.#degradedAt > STALL_MS;
    return stalled ? 'stalled' : 'ready';
  }

  close(): void {
    this.#db.off('state', this.#watch);
  }
}
