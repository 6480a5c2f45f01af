import type { Database } from '../db/database.ts';
import type { State } from '../engine/index.ts';
import type { StallReason } from '../flush/index.ts';

/** How the body of an answer to `GET /readyz` looks. */
export interface ReadyAnswer {
  readonly ready: boolean;
  /** `db.state`, as it is. */
  readonly state: State;
  /** Why it is not ready: `recovering`, `stalled`, or else the state. */
  readonly reason?: 'recovering' | 'stalled' | State;
  /** Why the flush stands still, if it does. */
  readonly stall?: StallReason;
}

/** Whether it makes sense to send work here: what was found in the log is applied, and nothing is stuck. */
export class Readiness {
  readonly #db: Database;
  readonly #recoveredSeq: number;

  constructor(db: Database) {
    const { recovered, lastSeq } = db.stats();
    this.#db = db;
    this.#recoveredSeq = recovered > 0 ? lastSeq : 0;
  }

  get answer(): ReadyAnswer {
    const { state, stall, appliedSeq } = this.#db.stats();
    // One busy moment is retried and over: `degraded` alone is no reason.
    const reason =
      state !== 'ok' && state !== 'degraded'
        ? state
        : stall !== undefined
          ? 'stalled'
          : appliedSeq < this.#recoveredSeq
            ? 'recovering'
            : undefined;
    return {
      ready: reason === undefined,
      state,
      ...(reason === undefined ? {} : { reason }),
      ...(stall === undefined ? {} : { stall }),
    };
  }
}
