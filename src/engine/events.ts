import type { RecoveryReport } from './log/index.ts';

/** One word for how the database is. `degraded`: something is being retried; `space`: the disk is full, writes wait. */
export type State = 'ok' | 'degraded' | 'space' | 'failed' | 'closing' | 'closed';

/** What the engine tells, as it happens. Listeners are called synchronously: they must be quick and must not throw. */
export interface EngineEvents {
  /** Room again after `set` had returned `false`. */
  drain: [];
  /**
   * A group commit was handed to the system, and synced where `syncMs` is given. At `'interval'` a sync mostly comes later
   * and by itself, with no writes and no bytes. `ackMs` is what the write that waited longest for its acknowledgement has waited,
   * `undefined` where there was none to acknowledge.
   */
  commit: [
    {
      readonly writes: number;
      readonly bytes: number;
      readonly writeMs: number;
      readonly syncMs: number | undefined;
      readonly ackMs: number | undefined;
    },
  ];
  /** The log was read at open. */
  recovered: [RecoveryReport];
  /** The state is another one; `reason` says why, where there is something to say. */
  state: [{ readonly state: State; readonly previous: State; readonly reason: string | undefined }];
  /** Something failed behind everybody's back; what it means is in `state`. */
  failure: [{ readonly during: 'log' | 'flush'; readonly error: Error }];
}

/** Tells an event. */
export type Emit<Events extends { [name in keyof Events]: unknown[] }> = <Name extends keyof Events>(
  name: Name,
  ...payload: Events[Name]
) => void;
