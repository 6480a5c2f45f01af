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
    const reason = reasonAgainst(state, stall !== undefined, appliedSeq < this.#recoveredSeq);
    return {
      ready: reason === undefined,
      state,
      ...(reason === undefined ? {} : { reason }),
      ...(stall === undefined ? {} : { stall }),
    };
  }
}

function reasonAgainst(state: State, isStalled: boolean, isRecovering: boolean): ReadyAnswer['reason'] {
  // One busy moment is retried and over: `degraded` alone is no reason.
  if (state !== 'ok' && state !== 'degraded') return state;
  if (isStalled) return 'stalled';
  return isRecovering ? 'recovering' : undefined;
}
