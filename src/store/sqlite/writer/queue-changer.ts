import { appendUpTo } from '../../../base/append-up-to.ts';
import {
  type DeadLetterSummary,
  LISTED_MAX,
  type QueueChange,
  type QueueChanged,
  type QueueLimits,
  type SupersededLetter,
} from '../../store.ts';
import type { Statement } from '../connection.ts';
import type { Classified } from '../result-codes.ts';
import { SELECT_STATE, type StateRow, takenOver } from '../schema.ts';
import { CommitRefused, TransactionLost } from './transaction.ts';
import type { WriterParts } from './writer-parts.ts';

/** What a change has done so far. */
interface Done {
  readonly applied: number[];
  readonly failed: number[];
  readonly superseded: SupersededLetter[];
  readonly evicted: DeadLetterSummary[];
  readonly untold: { superseded: number; evicted: number };
  cleared: number;
  imported: number;
}

/**
 * Changes the dead-letter queue. What a change has done is kept in the state row, in the transaction in which it was done:
 * asked for again under the same id, since the thread died before it could answer, it is not done twice.
 *
 * A retry tries all its entries in one transaction, each after the newer ones of its keys. Where an entry takes the
 * transaction with it, or the COMMIT is refused, they are done again with a transaction for each.
 */
export class QueueChanger {
  readonly #parts: WriterParts;
  readonly #limits: QueueLimits;
  readonly #remember: Statement;

  constructor(parts: WriterParts, limits: QueueLimits) {
    this.#parts = parts;
    this.#limits = limits;
    this.#remember = parts.db.prepare('UPDATE _sluice_state SET change_id = ?, change_result = ? WHERE owner = ?');
  }

  change(id: string, change: QueueChange): QueueChanged {
    const before = this.#doneUnder(id);
    try {
      const done = change.do === 'retry' ? this.#retry(id, change.ids, before) : (before ?? this.#make(id, change));
      return { ...done, complete: true, queue: this.#parts.dead.state };
    } catch (error) {
      // Some entries may have had their transaction before it went wrong: nobody would hear of them.
      const done = this.#doneUnder(id, error);
      if (done === undefined) throw error;
      return { ...done, complete: false, queue: this.#parts.dead.state };
    }
  }

  #make(id: string, change: Exclude<QueueChange, { do: 'retry' }>): Done {
    const { dead } = this.#parts;
    return this.#inTransaction(id, nothing(), (done) => {
      if (change.do === 'clear') {
        for (const entry of change.ids) if (dead.remove(entry) !== undefined) done.cleared++;
        return;
      }
      if (change.do === 'import') {
        const own = this.#state();
        for (const letter of change.letters) if (dead.import(letter, own)) done.imported++;
      }
      done.untold.evicted += appendUpTo(done.evicted, dead.evict(this.#limits), LISTED_MAX);
    });
  }

  #retry(id: string, ids: readonly number[], before: Done = nothing()): Done {
    const { dead } = this.#parts;
    try {
      return this.#inTransaction(id, before, (done) => {
        const failed = new Set(done.failed);
        for (const entry of ids) {
          // It was one of the newer ones of another, and those that are newer than itself were, too.
          if (failed.has(entry)) continue;
          for (const each of dead.newestFirst(entry)) this.#retryOne(each, done, failed);
        }
      });
    } catch (error) {
      if (!isOfOneEntry(error)) throw error;
    }
    let done = before;
    const failed = new Set(done.failed);
    for (const entry of ids) {
      if (failed.has(entry)) continue;
      for (const each of dead.newestFirst(entry)) done = this.#retryAlone(id, each, done, failed);
    }
    return done;
  }

  #retryAlone(id: string, entry: number, before: Done, failed: Set<number>): Done {
    try {
      return this.#inTransaction(id, before, (done) => this.#retryOne(entry, done, failed));
    } catch (error) {
      if (!isOfOneEntry(error)) throw error;
      return this.#inTransaction(id, before, (done) => this.#failAgain(entry, error.reason, done, failed));
    }
  }

  #retryOne(entry: number, done: Done, failed: Set<number>): void {
    const { dead, executor } = this.#parts;
    const write = failed.has(entry) ? undefined : dead.write(entry);
    // It has failed already, as one of the newer ones, or it is gone.
    if (write === undefined) return;
    // What somebody would have to repair fails like the rest, or one such entry would keep all others from their retry.
    const error = executor.attempt(write, true);
    if (error !== undefined) return this.#failAgain(entry, error, done, failed);
    dead.remove(entry);
    done.applied.push(entry);
    done.untold.superseded += appendUpTo(done.superseded, dead.supersededBy(write, entry), LISTED_MAX);
  }

  #failAgain(entry: number, reason: Classified, done: Done, failed: Set<number>): void {
    this.#parts.dead.failedAgain(entry, reason);
    done.failed.push(entry);
    failed.add(entry);
  }

  /** Does more of a change, on top of what it has done before, and remembers it. */
  #inTransaction(id: string, before: Done, work: (done: Done) => void): Done {
    const done = structuredClone(before);
    this.#parts.transactions.run(() => {
      this.#parts.catalog.refresh();
      work(done);
      const { changes } = this.#remember.run(id, JSON.stringify(done), this.#parts.owner);
      if (changes !== 1) {
        throw takenOver();
      }
    });
    return done;
  }

  /** What was committed of a change; throws `failure` where that cannot be read. */
  #doneUnder(id: string, failure?: unknown): Done | undefined {
    try {
      const { changeId, changeResult } = this.#state();
      return changeId === id ? (JSON.parse(changeResult) as Done) : undefined;
    } catch (error) {
      throw failure ?? error;
    }
  }

  #state(): StateRow {
    return this.#parts.db.prepare(SELECT_STATE).get() as StateRow;
  }
}

function isOfOneEntry(error: unknown): error is TransactionLost | CommitRefused {
  return error instanceof TransactionLost || error instanceof CommitRefused;
}

function nothing(): Done {
  return {
    applied: [],
    failed: [],
    superseded: [],
    evicted: [],
    untold: { superseded: 0, evicted: 0 },
    cleared: 0,
    imported: 0,
  };
}
