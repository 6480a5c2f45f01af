import { SluiceError } from '../../base/errors.ts';
import { type ExecuteResult, type Parameters, type SqlRow, type StoreTransaction, toCallerError } from '../store.ts';
import { directFailure, type ThreadClient, ThreadDied } from './rpc.ts';
import type { HeldStatement, WriterProtocol } from './writer/writer-protocol.ts';

/** The end of a held transaction that its caller has. It is over with its thread: the next one knows nothing of it. */
export class HeldByCaller implements StoreTransaction {
  readonly #writer: ThreadClient<WriterProtocol>;
  readonly #onEnd: (isCommitted: boolean) => void;
  #isOver = false;

  /** `onEnd` is called once, when the writer can do something else. */
  constructor(writer: ThreadClient<WriterProtocol>, onEnd: (isCommitted: boolean) => void) {
    this.#writer = writer;
    this.#onEnd = onEnd;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  execute(sql: string, parameters: Parameters): Promise<ExecuteResult> {
    return this.#run({ sql, parameters });
  }

  async query(sql: string, parameters: Parameters, maxRows: number = Number.POSITIVE_INFINITY): Promise<SqlRow[]> {
    return (await this.#run({ sql, parameters, reading: { maxRows } })).rows;
  }

  async commit(): Promise<void> {
    // Its COMMIT is not sent, so this is no question.
    if (this.#isOver || this.#writer.dead) throw this.#died();
    let isCommitted = false;
    try {
      await this.#writer.call('commit', null);
      isCommitted = true;
    } catch (error) {
      throw directFailure(error);
    } finally {
      this.#end(isCommitted);
    }
  }

  async rollback(): Promise<void> {
    if (this.#isOver) return;
    try {
      await this.#writer.call('rollback', null);
    } catch (error) {
      // The death of the thread is a rollback, too.
      if (!(error instanceof ThreadDied)) throw toCallerError(error);
    } finally {
      this.#end(false);
    }
  }

  async #run(statement: HeldStatement): Promise<ExecuteResult> {
    const { result, refusal, isOpen } = await this.#ask(statement);
    if (!isOpen) this.#end(false);
    if (refusal !== undefined) {
      const { message, sqliteCode } = refusal;
      const andEnded = isOpen ? '' : ', and ended the transaction: nothing of it is left';
      throw new SluiceError('SLUICE_STORE', `SQLite refused the statement${andEnded}: ${message}`, { sqliteCode });
    }
    return result as ExecuteResult;
  }

  async #ask(statement: HeldStatement): Promise<WriterProtocol['executeHeld']['response']> {
    if (this.#isOver) throw this.#died();
    try {
      return await this.#writer.call('executeHeld', statement);
    } catch (error) {
      throw error instanceof ThreadDied ? this.#died(error) : toCallerError(error);
    }
  }

  #died(cause?: ThreadDied): SluiceError {
    this.#end(false);
    return new SluiceError(
      'SLUICE_STORE',
      'the writer thread died, and nothing of the transaction is left: it can be run again',
      { cause },
    );
  }

  #end(isCommitted: boolean): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#onEnd(isCommitted);
  }
}
