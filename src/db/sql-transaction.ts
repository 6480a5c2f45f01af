import { AsyncLocalStorage } from 'node:async_hooks';
import pLimit from 'p-limit';
import { backoffMs } from '../base/backoff.ts';
import { SluiceError } from '../base/errors.ts';
import { foldName } from '../base/fold-name.ts';
import { show } from '../base/options.ts';
import { checkWait, Deferred, sleep, type WaitOptions, waitFor } from '../base/waiting.ts';
import {
  type ExecuteResult,
  type Parameters,
  type SqlRow,
  StoreFailure,
  type StoreTransaction,
  toCallerError,
} from '../store/store.ts';
import type { Core } from './core.ts';
import { checkName } from './names.ts';
import { givenAlone } from './sql/direct.ts';
import { parametersOf, type SqlParameters } from './sql/parameters.ts';
import { checkDirectSql } from './sql/statements.ts';
import type { Sql } from './sql/template.ts';
import { assertFunction, assertNotInItsOwnWay } from './transaction.ts';

/** Options of an SQL transaction: {@link Database.atransaction} with `sql: true`, and {@link Database.abeginTransaction}. */
export interface SqlTransactionOptions extends WaitOptions {
  /**
   * What the whole of it may take, the wait for its turn included. Milliseconds; past it, it is rolled back: while it is open no
   * batch is written, whoever waits for that.
   * @defaultValue 10_000
   */
  readonly timeoutMs?: number | undefined;
}

const TIMEOUT_MS = 10_000;

/** How long the first and the longest pause is before SQLite is asked again, where another program has the write lock. */
const PAUSES = [5, 200] as const;

/** How a transaction, or a part of it, has ended. */
type End = 'committed' | 'rolled back' | SluiceError;

interface Savepoint {
  /** As it is compared. */
  readonly name: string;
  /** As SQLite knows it: no name of the user's gets into a statement, and none can mean another one's savepoint. */
  readonly id: string;
}

/**
 * An SQL transaction, held open on the writer thread: see {@link Database.atransaction} with `sql: true`. Made by that, by
 * {@link Database.abeginTransaction}, and within itself by {@link SqlTransaction.atransaction}.
 *
 * Calls are carried out one after the other. A statement that SQLite refuses changes nothing, and the transaction goes on; but for one
 * that ends it, with `OR ROLLBACK` or `RAISE(ROLLBACK)`, and takes everything back. When it is over every call throws: `SLUICE_CLOSED`,
 * or what has ended it, `SLUICE_TIMEOUT` say.
 */
export class SqlTransaction {
  readonly #session: Session;
  readonly #parent: SqlTransaction | undefined;
  readonly #oneAtATime = pLimit(1);
  /** The one that it is, inside another transaction. */
  readonly #whole: Savepoint | undefined;
  #savepoints: Savepoint[] = [];
  #end: End | undefined;

  /** @internal */
  constructor(session: Session, parent?: { readonly transaction: SqlTransaction; readonly whole: Savepoint }) {
    this.#session = session;
    this.#parent = parent?.transaction;
    this.#whole = parent?.whole;
  }

  /** Whether it is neither committed nor rolled back. */
  get isOpen(): boolean {
    return this.#over === undefined;
  }

  /**
   * Runs one statement; resolves to its rows (of a `SELECT`, or through `RETURNING`), how many rows it changed, and the last rowid.
   *
   * Errors: as of {@link Database.aexecute}.
   */
  async aexecute(sql: string, parameters?: SqlParameters): Promise<ExecuteResult>;
  async aexecute(sql: Sql): Promise<ExecuteResult>;
  async aexecute(given: string | Sql, parameters?: SqlParameters): Promise<ExecuteResult> {
    const { sql, values } = checked(given, parameters, 'write');
    return this.#inTurn(() => {
      this.#session.counts.statements++;
      return this.#session.perform((held) => held.execute(sql, values));
    });
  }

  /**
   * The rows of a `SELECT`, as objects, with what the transaction has written until then. Integers that a number cannot hold exactly
   * come as bigint.
   *
   * Errors: as of {@link Database.afetchAll}.
   */
  async afetchAll<R = SqlRow>(sql: string, parameters?: SqlParameters): Promise<R[]>;
  async afetchAll<R = SqlRow>(sql: Sql): Promise<R[]>;
  async afetchAll<R = SqlRow>(sql: string | Sql, parameters?: SqlParameters): Promise<R[]> {
    return (await this.#fetch(sql, parameters)) as R[];
  }

  /** The first row of a `SELECT`, `undefined` if there is none. See {@link SqlTransaction.afetchAll}. */
  async afetchOne<R = SqlRow>(sql: string, parameters?: SqlParameters): Promise<R | undefined>;
  async afetchOne<R = SqlRow>(sql: Sql): Promise<R | undefined>;
  async afetchOne<R = SqlRow>(sql: string | Sql, parameters?: SqlParameters): Promise<R | undefined> {
    return (await this.#fetch(sql, parameters, 1))[0] as R | undefined;
  }

  /**
   * A part of the transaction that can fail by itself: when the function throws, what it did is rolled back, and what it threw is
   * thrown. Calls of the outer transaction wait until it is done; inside the function they would wait for ever, and are refused with
   * `SLUICE_CONFLICT`.
   */
  async atransaction<R>(part: (tx: SqlTransaction) => Promise<R>): Promise<R> {
    assertFunction(part);
    return this.#inTurn(async () => {
      const whole = this.#session.newSavepoint('');
      await this.#session.run(`SAVEPOINT ${whole.id}`);
      return new SqlTransaction(this.#session, { transaction: this, whole }).run(part);
    });
  }

  /** Marks a moment that {@link SqlTransaction.arollbackTo} can go back to. Of several with one name the last one is meant. */
  async asavepoint(name: string): Promise<void> {
    checkName(name, 'the name of a savepoint');
    return this.#inTurn(async () => {
      const savepoint = this.#session.newSavepoint(name);
      await this.#session.run(`SAVEPOINT ${savepoint.id}`);
      this.#savepoints.push(savepoint);
    });
  }

  /**
   * Takes back what was done since a savepoint; that stays, those that came after it do not. `SLUICE_NOT_FOUND` where there is none of
   * that name.
   */
  async arollbackTo(name: string): Promise<void> {
    return this.#inTurn(async () => {
      const { at, id } = this.#savepointNamed(name);
      await this.#session.run(`ROLLBACK TO ${id}`);
      this.#savepoints.length = at + 1;
    });
  }

  /** Forgets a savepoint, and those that came after it. What was done since stays. `SLUICE_NOT_FOUND` where there is none of that name. */
  async arelease(name: string): Promise<void> {
    return this.#inTurn(async () => {
      const { at, id } = this.#savepointNamed(name);
      await this.#session.run(`RELEASE ${id}`);
      this.#savepoints.length = at;
    });
  }

  /**
   * Commits; resolves when that is on the disk. Called for you at the end of the function of `atransaction`. It is over in any case:
   * where SQLite refuses, because of a deferred foreign key say, everything is rolled back.
   *
   * Errors: `SLUICE_STORE`; `SLUICE_OUTCOME_UNKNOWN` where the writer thread died on the way, or the disk refused the sync;
   * `SLUICE_CLOSED` where it is over already, or what has ended it.
   */
  async acommit(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#whole === undefined) await this.#session.commit();
      else await this.#session.run(`RELEASE ${this.#whole.id}`);
      this.#end = 'committed';
    });
  }

  /** Takes everything back. Harmless where that has happened already; `SLUICE_CLOSED` where it is committed. */
  async arollback(): Promise<void> {
    const over = this.#over;
    if (over === 'committed') throw ended(over);
    if (over !== undefined) return;
    // What waits for its turn has no point any more.
    this.#end = 'rolled back';
    if (this.#whole === undefined) return this.#session.rollback();
    await this.#session.run(`ROLLBACK TO ${this.#whole.id}`);
    await this.#session.run(`RELEASE ${this.#whole.id}`);
  }

  /** @internal Calls the function that it is for. What that throws rolls it back, and is thrown. */
  async run<R>(body: (tx: SqlTransaction) => Promise<R>): Promise<R> {
    let result: R;
    try {
      result = await this.#session.unlessCut(this.#session.scope.run({ tx: this }, async () => body(this)));
    } catch (error) {
      // What was thrown says more than what may be in the way of the rollback: then it is over as well.
      await this.arollback().catch(() => undefined);
      throw error;
    }
    // The function may have ended it by itself.
    if (this.#end === undefined) await this.acommit();
    return result;
  }

  async #fetch(given: string | Sql, parameters: SqlParameters | undefined, maxRows?: number): Promise<SqlRow[]> {
    const { sql, values } = checked(given, parameters, 'read');
    return this.#inTurn(() => this.#session.perform((held) => held.query(sql, values, maxRows)));
  }

  get #over(): End | undefined {
    const parent = this.#parent;
    return this.#end ?? this.#session.end ?? (parent === undefined ? undefined : parent.#over);
  }

  #assertOpen(): void {
    const over = this.#over;
    if (over !== undefined) throw ended(over);
  }

  #isWithin(other: SqlTransaction): boolean {
    const parent = this.#parent;
    return parent !== undefined && (parent === other || parent.#isWithin(other));
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    this.#assertOpen();
    const inner = this.#session.scope.getStore()?.tx;
    if (inner?.isOpen === true && inner.#isWithin(this)) {
      throw new SluiceError(
        'SLUICE_CONFLICT',
        'the outer transaction waits for the end of the inner one, which makes this call: make it on the inner one',
      );
    }
    return this.#session.unlessCut(
      this.#oneAtATime(() => {
        this.#assertOpen();
        return work();
      }),
    );
  }

  #savepointNamed(name: string): { readonly at: number; readonly id: string } {
    const folded = typeof name === 'string' ? foldName(name) : undefined;
    const at = this.#savepoints.findLastIndex((savepoint) => savepoint.name === folded);
    const id = this.#savepoints[at]?.id;
    if (id !== undefined) return { at, id };
    throw new SluiceError('SLUICE_NOT_FOUND', `there is no savepoint ${show(name)} in this transaction`);
  }
}

/** A statement that may be run, with its values. */
function checked(
  given: string | Sql,
  parameters: SqlParameters | undefined,
  purpose: 'read' | 'write',
): { readonly sql: string; readonly values: Parameters } {
  const statement = givenAlone(given, parameters);
  checkDirectSql(statement.sql, purpose);
  return { sql: statement.sql, values: parametersOf(statement.parameters) };
}

/** What a call is told that comes after the end. */
function ended(end: End): SluiceError {
  if (end instanceof SluiceError) return end;
  return new SluiceError(
    'SLUICE_CLOSED',
    `the transaction is over, it was ${end}: what belongs to it must be done before`,
  );
}

/** The transaction whose function, or whose beginner, makes a call: it may not wait for what waits for its end. */
interface Inside {
  tx: SqlTransaction | undefined;
}

/** A transaction that is held, as all its parts see it. */
class Session {
  readonly scope: AsyncLocalStorage<Inside>;
  readonly counts: Counts;
  readonly #held: StoreTransaction;
  readonly #onEnd: (session: Session) => void;
  readonly #cut = new Deferred<never>();
  #end: End | undefined;
  #savepoints = 0;

  constructor(
    held: StoreTransaction,
    parts: { scope: AsyncLocalStorage<Inside>; counts: Counts; onEnd: (session: Session) => void },
  ) {
    this.#held = held;
    this.scope = parts.scope;
    this.counts = parts.counts;
    this.#onEnd = parts.onEnd;
  }

  get end(): End | undefined {
    return this.#end;
  }

  newSavepoint(name: string): Savepoint {
    return { name: foldName(name), id: `sluice_${++this.#savepoints}` };
  }

  assertOpen(): void {
    if (this.#end !== undefined) throw ended(this.#end);
  }

  /** Something that is done in it. What ends the transaction on the way is what later calls are told. */
  async perform<T>(work: (held: StoreTransaction) => Promise<T>): Promise<T> {
    this.assertOpen();
    try {
      return await work(this.#held);
    } catch (error) {
      if (this.#held.isOver && error instanceof SluiceError) this.#over(error);
      throw error;
    }
  }

  /** A statement of our own. */
  async run(sql: string): Promise<void> {
    await this.perform((held) => held.execute(sql, []));
  }

  async commit(): Promise<void> {
    // Sent, it goes on, whatever happens to us.
    this.#over('committed');
    try {
      await this.#held.commit();
    } catch (error) {
      this.#end = error as SluiceError;
      throw error;
    } finally {
      // Refused or not: who keeps what SQLite had looks again.
      this.counts.commits++;
    }
  }

  rollback(): Promise<void> {
    this.#over('rolled back');
    return this.#held.rollback();
  }

  /** Ends it from outside. Whoever waits for it is told at once, also where a statement is being run, which nothing can stop. */
  cut(error: SluiceError): void {
    if (this.#end !== undefined) return;
    this.#over(error);
    this.#cut.reject(error);
    this.#held.rollback().catch(() => undefined);
  }

  unlessCut<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#cut.promise]);
  }

  #over(end: End): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.#onEnd(this);
  }
}

interface Counts {
  /** Statements that were run in transactions. */
  statements: number;
  /** Transactions that were committed, or may have been. */
  commits: number;
}

/** The SQL transactions of a database. */
export class SqlTransactions {
  readonly counts: Counts = { statements: 0, commits: 0 };
  readonly #core: Core;
  /** What ends those that are open. */
  readonly #cuts = new Set<(error: SluiceError) => void>();
  readonly #scope = new AsyncLocalStorage<Inside>();
  /** The one of {@link begin}; `null` while it is on its way. */
  #begun: SqlTransaction | null | undefined;

  constructor(core: Core) {
    this.#core = core;
    core.engine.assertMayWait = (what) => this.#refuseInside(what);
  }

  /** See {@link Database.atransaction}. */
  async run<R>(body: (tx: SqlTransaction) => Promise<R>, options: SqlTransactionOptions): Promise<R> {
    const session = await this.#open('atransaction', options);
    return new SqlTransaction(session).run(body);
  }

  /** See {@link Database.abeginTransaction}. Not `async`: whatever its caller does next is inside. */
  begin(options: SqlTransactionOptions): Promise<SqlTransaction> {
    try {
      this.#refuseInside('abeginTransaction');
      if (this.#begun === null || this.#begun?.isOpen === true) {
        throw new SluiceError(
          'SLUICE_CONFLICT',
          'a transaction was begun already: end it first, or use atransaction, which waits for its turn',
        );
      }
    } catch (error) {
      return Promise.reject(error);
    }
    this.#begun = null;
    return this.hold('abeginTransaction', options).then(
      (tx) => {
        this.#begun = tx;
        return tx;
      },
      (error: unknown) => {
        this.#begun = undefined;
        throw error;
      },
    );
  }

  /** One that its caller ends. Not `async`: whatever that does next is inside. */
  hold(what: string, options: SqlTransactionOptions): Promise<SqlTransaction> {
    try {
      this.#refuseInside(what);
    } catch (error) {
      return Promise.reject(error);
    }
    const opening = this.#open(what, options);
    const inside: Inside = { tx: undefined };
    this.#scope.enterWith(inside);
    return opening.then((session) => {
      inside.tx = new SqlTransaction(session);
      return inside.tx;
    });
  }

  /** The one of {@link begin}, which is not that any more. */
  takeBegun(): SqlTransaction {
    const tx = this.#begun;
    if (tx === undefined || tx === null) {
      throw new SluiceError('SLUICE_CONFLICT', 'there is no transaction to be ended: begin one with abeginTransaction');
    }
    this.#begun = undefined;
    return tx;
  }

  get hasBegun(): boolean {
    return this.#begun?.isOpen === true;
  }

  /** Rolls back all that are open. */
  close(): void {
    for (const cut of this.#cuts) {
      cut(new SluiceError('SLUICE_CLOSED', 'the database is closed, and the transaction was rolled back'));
    }
  }

  #refuseInside(what: string): void {
    if (this.#scope.getStore()?.tx?.isOpen !== true) return;
    throw new SluiceError(
      'SLUICE_CONFLICT',
      `${what} would wait for the end of the SQL transaction that it is called in: call the transaction instead, or wait until it is over`,
    );
  }

  async #open(what: string, options: SqlTransactionOptions): Promise<Session> {
    const { engine, clock } = this.#core;
    engine.assertAccepting();
    checkWait(options);
    this.#refuseInside(what);
    assertNotInItsOwnWay();
    const { signal, timeoutMs = TIMEOUT_MS } = options;
    const start = clock.elapsed();
    const attempts = new Attempts(this.#core);
    const opening = attempts.hold(what);
    const givenUp = () => {
      attempts.isGivenUp = true;
      opening.then((held) => held.rollback()).catch(() => undefined);
    };
    const held = await waitFor(opening, what, { signal, timeoutMs }, clock, givenUp).catch((error: unknown) => {
      throw attempts.explain(error);
    });
    const timer = clock.after(
      Math.max(1, timeoutMs - (clock.elapsed() - start)),
      () => session.cut(tooLong(timeoutMs)),
      {
        hold: true,
      },
    );
    const onAbort = () =>
      session.cut(
        new SluiceError('SLUICE_ABORTED', 'the transaction was aborted by its signal, and rolled back', {
          cause: signal?.reason,
        }),
      );
    const cut = (error: SluiceError) => session.cut(error);
    const session = new Session(held, {
      scope: this.#scope,
      counts: this.counts,
      onEnd: () => {
        timer.cancel();
        signal?.removeEventListener('abort', onAbort);
        this.#cuts.delete(cut);
      },
    });
    signal?.addEventListener('abort', onAbort);
    this.#cuts.add(cut);
    // It may have come after the wait, and before there was something to end.
    if (signal?.aborted === true) onAbort();
    session.assertOpen();
    return session;
  }
}

function tooLong(timeoutMs: number): SluiceError {
  return new SluiceError(
    'SLUICE_TIMEOUT',
    `the transaction was not over after ${timeoutMs} ms, and was rolled back: it held up everything else that writes. Make it shorter, or give it more time with timeoutMs`,
  );
}

/** The way to a transaction that is held: what was accepted before goes down first, and a lock of another program is waited for. */
class Attempts {
  isGivenUp = false;
  readonly #core: Core;
  #last: StoreFailure | undefined;

  constructor(core: Core) {
    this.#core = core;
  }

  async hold(what: string): Promise<StoreTransaction> {
    const { engine, flusher, store, clock, random } = this.#core;
    await flusher.barrier(what);
    for (let attempt = 1; ; attempt++) {
      engine.assertAccepting();
      try {
        const held = await store.transaction();
        return await this.#unlessClosed(held);
      } catch (error) {
        const passes = error instanceof StoreFailure && (error.failure === 'transient' || error.failure === 'space');
        if (!passes || this.isGivenUp) throw toCallerError(error);
        this.#last = error;
        await sleep(backoffMs(attempt, ...PAUSES, random), clock);
        if (this.isGivenUp) throw toCallerError(error);
      }
    }
  }

  /** What it has waited for says more than that it has waited. */
  explain(error: unknown): unknown {
    const last = this.#last;
    if (last === undefined || !(error instanceof SluiceError) || error.code !== 'SLUICE_TIMEOUT') return error;
    return new SluiceError('SLUICE_TIMEOUT', `${error.message}: ${last.message}`, {
      cause: last,
      sqliteCode: last.sqliteCode,
    });
  }

  /** The database may have been closed while it waited. */
  async #unlessClosed(held: StoreTransaction): Promise<StoreTransaction> {
    try {
      this.#core.engine.assertAccepting();
      return held;
    } catch (error) {
      await held.rollback();
      throw error;
    }
  }
}
