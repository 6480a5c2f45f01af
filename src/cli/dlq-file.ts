import { messageOf, SluiceError } from '../base/errors.ts';
import type { Database } from '../db/database.ts';
import { inspect } from '../db/inspect.ts';
import { open } from '../db/open.ts';
import type { DeadLetterPage, DeadLetterQuery, DeadLetterSelection, ImportResult, RetryResult } from '../dlq/index.ts';
import type { DeadLetter, DeadLetterGroup, DeadLetterSummary } from '../store/store.ts';
import type { DlqTarget, RunOptions } from './dlq-target.ts';
import { encryptionOfEnvironment } from './encryption.ts';
import { interruptible } from './interruptible.ts';

/** What cannot be applied now stays in the log: there is no use in waiting for it at the end. */
const CLOSE_MS = 1_000;

/** The queue of a file that no other process has open. */
export class FileQueue implements DlqTarget {
  readonly #db: Database;

  private constructor(db: Database) {
    this.#db = db;
  }

  /** Opens the file, and applies what its log holds. */
  static async open(file: string): Promise<FileQueue> {
    // Whoever looks for dead letters in a file that is not there, or not Sluice's, has made a mistake: it must not make one so.
    await inspect(file);
    const db = await openUnlocked(file);
    db.on('failure', () => {});
    db.on('dead-letter', () => {});
    try {
      await applyBacklog(db);
    } catch (error) {
      await db.close();
      throw error;
    }
    return new FileQueue(db);
  }

  list(page: DeadLetterPage): Promise<DeadLetterSummary[]> {
    return this.#db.dlq.listSummaries(page);
  }

  summary(query: DeadLetterQuery): Promise<DeadLetterGroup[]> {
    return this.#db.dlq.summary(query);
  }

  get(id: number): Promise<DeadLetter | undefined> {
    return this.#db.dlq.get(id);
  }

  export(query: DeadLetterQuery): AsyncIterable<string> {
    return this.#db.dlq.export(query);
  }

  retry(selection: DeadLetterSelection, options: RunOptions): Promise<RetryResult> {
    return interruptible((signal) => this.#db.dlq.retry(selection, { ...options, signal }));
  }

  clear(selection: DeadLetterSelection, options: RunOptions): Promise<number> {
    return interruptible((signal) => this.#db.dlq.clear(selection, { ...options, signal }));
  }

  async take(): Promise<number> {
    return (await interruptible((signal) => this.#db.dlq.take({ signal }))).dead;
  }

  import(source: AsyncIterable<string | Uint8Array>): Promise<ImportResult> {
    return interruptible((signal) => this.#db.dlq.import(source, { signal }));
  }

  async close(): Promise<void> {
    await this.#db.close();
  }
}

async function openUnlocked(file: string): Promise<Database> {
  try {
    return await open(file, {
      // No table of anybody: the usual one may be what has the wrong shape, and is why there are dead letters.
      table: 'sluice dlq',
      closeTimeoutMs: CLOSE_MS,
      encryption: encryptionOfEnvironment(),
      // What the queue may hold is for the program to say that fills it.
      dlq: { maxEntries: Number.MAX_SAFE_INTEGER, maxBytes: Number.MAX_SAFE_INTEGER },
    });
  } catch (error) {
    if (!(error instanceof SluiceError) || error.code !== 'SLUICE_LOCKED') throw error;
    throw new SluiceError(error.code, `${error.message} If it is a collector, work on it with --url URL.`, {
      cause: error,
    });
  }
}

/** The queue can be worked on all the same where the flush stands still. */
async function applyBacklog(db: Database): Promise<void> {
  const stalled = new Promise<Error>((resolve) => {
    db.once('stall', ({ error }) => resolve(error));
  });
  const obstacle = await Promise.race([db.aflush().then(() => undefined), stalled]);
  const { deadLettered, pending } = db.stats();
  if (deadLettered > 0) console.error(`${deadLettered} writes of the log were refused, and are in the queue now`);
  if (obstacle !== undefined) console.error(`${pending} writes of the log are not applied: ${messageOf(obstacle)}`);
}
