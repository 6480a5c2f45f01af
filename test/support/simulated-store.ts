import Sqlite from 'better-sqlite3';
import { claimState } from '../../dist/store/sqlite/schema.js';
import type { Applier } from '../../dist/store/sqlite/writer/applier.js';
import { type Batch, type BatchResult, type Store, StoreFailure } from '../../dist/store/store.js';
import { applierOn } from './applier.ts';

/** What a database holds at one moment. */
export interface StoreState {
  /** The database itself, to go on from. */
  readonly bytes: Buffer;
  readonly appliedSeq: number;
  readonly contents: Contents;
}

export interface Contents {
  readonly keys: ReadonlyMap<string, string>;
  /** Every row of `events`, in the order of insertion. */
  readonly rows: readonly number[];
  readonly tally: number;
  /** The sequence numbers of the dead letters. */
  readonly dead: readonly number[];
}

/** Where a store begins. */
export interface StoreStart {
  readonly state: StoreState;
  /**
   * What a power cut would still lead back to: the process before this one was killed when it had written its last commit,
   * and not synced it.
   */
  readonly synced: StoreState | undefined;
}

/**
 * A store with the real applier on the real SQLite, in memory, that commits atomically: `onCommit` is told when a commit can
 * be seen, and again when it is on the disk, and nobody has been answered before that.
 */
export class SimulatedStore {
  /** Fails the next batch, before its commit or after it. */
  trouble: 'before' | 'after' | undefined;
  /** So many attempts fail before the first batch goes down. */
  lockedFor = 0;
  /** For how many batches a complete checkpoint is held up, which alone proves that the commit it began with is on the disk. */
  heldUp = 0;
  /** Runs between the steps of a batch. */
  between: () => Promise<void> = async () => {};
  onCommit: (state: StoreState, synced: boolean) => void = () => {};
  #state: StoreState;
  #durable: boolean;
  readonly #db: Sqlite.Database;
  readonly #applier: Applier;

  constructor({ state, synced }: StoreStart) {
    this.#db = new Sqlite(state.bytes);
    this.#db.transaction(() => claimState(this.#db, 'test', true))();
    this.#applier = applierOn(this.#db, 'test');
    this.#state = state;
    this.#durable = synced === undefined;
  }

  /** A database with nothing in it but its tables. */
  static empty(): StoreState {
    const db = new Sqlite(':memory:');
    db.exec(`
      CREATE TABLE data (key TEXT PRIMARY KEY, value TEXT);
      CREATE TABLE events (id INTEGER, n INTEGER CHECK (n >= 0), pad TEXT);
      CREATE TABLE tally (n INTEGER);
      INSERT INTO tally VALUES (0)`);
    db.transaction(() => claimState(db, 'test', true))();
    const state = stateOf(db);
    db.close();
    return state;
  }

  get state(): StoreState {
    return this.#state;
  }

  /** Whether the watermark is known to be on the disk. */
  get durable(): boolean {
    return this.#durable;
  }

  async apply(batch: Batch): Promise<BatchResult> {
    await this.between();
    this.#fail('before');
    const result = this.#applier.apply(batch);
    if (batch.lastSeq !== this.#state.appliedSeq) {
      this.#state = stateOf(this.#db);
      this.onCommit(this.#state, false);
      await this.between();
      // Behind a commit whose sync had failed, the sync of the next one proves nothing.
      if (this.#durable) this.onCommit(this.#state, true);
    }
    await this.between();
    this.#fail('after');
    if (!this.#durable && this.heldUp-- <= 0) {
      this.#durable = true;
      this.onCommit(this.#state, true);
    }
    return { ...result, durable: this.#durable, durationMs: 0 };
  }

  async reopen(): Promise<void> {}

  end(): void {
    this.#db.close();
  }

  /** The engine's parts use no more of a store than what is here. */
  get asStore(): Store {
    return this as unknown as Store;
  }

  #fail(when: 'before' | 'after'): void {
    if (when === 'before' && this.lockedFor > 0) {
      this.lockedFor--;
      throw new StoreFailure('transient', 'another program has the database');
    }
    if (this.trouble !== when) return;
    this.trouble = undefined;
    throw new StoreFailure('transient', `the thread died ${when} the commit`);
  }
}

function stateOf(db: Sqlite.Database): StoreState {
  const column = (sql: string) => db.prepare(sql).pluck().all();
  return {
    bytes: db.serialize(),
    appliedSeq: column('SELECT applied_seq FROM _sluice_state')[0] as number,
    contents: {
      keys: new Map(db.prepare('SELECT key, value FROM data').raw().all() as [string, string][]),
      rows: column('SELECT id FROM events ORDER BY rowid') as number[],
      tally: column('SELECT n FROM tally')[0] as number,
      dead: column('SELECT seq FROM _sluice_dead_letters ORDER BY seq') as number[],
    },
  };
}
