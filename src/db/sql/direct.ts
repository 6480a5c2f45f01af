import { SluiceError } from '../../base/errors.ts';
import type { SqlValue } from '../../base/frame/index.ts';
import { show } from '../../base/options.ts';
import { checkWait, limitsFrom, type WaitOptions, waitFor } from '../../base/waiting.ts';
import type {
  ExecutedAll,
  ExecuteResult,
  Parameters,
  RepeatedStatement,
  SqlRow,
  Statement,
} from '../../store/store.ts';
import type { Core } from '../core.ts';
import { limitAge } from '../scan.ts';
import { assertNotInItsOwnWay } from '../transaction.ts';
import { parametersOf, type SqlParameters, stagedParameters } from './parameters.ts';
import { checkDirectSql, directStatement } from './statements.ts';
import { Sql } from './template.ts';
import { invalidSql } from './tokens.ts';

/** Options of {@link Database.afetchAll} and {@link Database.afetchOne}. */
export interface QueryOptions extends WaitOptions {
  /**
   * Read what SQLite has now, instead of waiting until everything accepted before the call is applied.
   * @defaultValue false
   */
  readonly stale?: boolean | undefined;
  /** At most this many rows. Integer of at least 1. @defaultValue no limit */
  readonly maxRows?: number | undefined;
}

/** Options of {@link Database.aexecute}. */
export interface ExecuteOptions extends WaitOptions {
  /**
   * Run it at once, ahead of everything that is staged: for the repair of what the flush stands still for (see the event
   * `stall`), which is tried again right after it.
   * @defaultValue false
   */
  readonly ahead?: boolean | undefined;
}

/** Options of {@link Database.aiterate}. */
export interface IterateOptions extends WaitOptions {
  /**
   * Read what SQLite has now, instead of waiting until everything accepted before the call is applied.
   * @defaultValue false
   */
  readonly stale?: boolean | undefined;
  /** Rows that are read at a time, and held. Integer, 1 to 100,000. @defaultValue 256 */
  readonly pageSize?: number | undefined;
}

/** What may come as a statement with its parameters and its options. */
export interface Given<Options> {
  readonly sql: string;
  readonly parameters: SqlParameters;
  readonly options: Options;
}

/** A statement made with {@link sql} has its values with it: what follows are the options. */
export function given<Options extends object>(
  sql: string | Sql,
  parameters: SqlParameters | Options | undefined,
  options: Options | undefined,
): Given<Options> {
  if (!(sql instanceof Sql)) {
    return { sql, parameters: (parameters ?? []) as SqlParameters, options: options ?? ({} as Options) };
  }
  if (Array.isArray(parameters) && parameters.length > 0) {
    throw invalidSql('a statement that sql`…` has made has its values in it: pass none beside it');
  }
  const isOptions = parameters !== undefined && !Array.isArray(parameters);
  return {
    sql: sql.text,
    parameters: sql.checkedValues(),
    options: options ?? (isOptions ? (parameters as Options) : ({} as Options)),
  };
}

/** A statement for which there are no options. */
export function givenAlone(sql: string | Sql, parameters: SqlParameters | undefined): Omit<Given<object>, 'options'> {
  if (!(sql instanceof Sql)) return { sql, parameters: parameters ?? [] };
  if (parameters === undefined) return { sql: sql.text, parameters: sql.checkedValues() };
  throw invalidSql('a statement that sql`…` has made has its values in it: pass nothing beside it');
}

/** A statement to be written behind, with its values. */
export function givenStaged(sql: string | Sql, parameters: readonly unknown[]): { sql: string; values: SqlValue[] } {
  const { sql: text, parameters: values } = given(sql, parameters, undefined);
  return { sql: text, values: stagedParameters(values as readonly unknown[]) };
}

const PAGE_ROWS = 256;
const PAGE_ROWS_MAX = 100_000;

/**
 * Runs statements at once: those that read on a reader, those that write on the writer thread, both after everything that was
 * accepted before.
 */
export class DirectSql {
  readonly #core: Core;
  /** Statements that were handed to the writer … */
  statements = 0;
  /** … and those of them that it has done with, one way or the other. */
  executed = 0;
  #lastInsertRowid: number | bigint = 0;

  constructor(core: Core) {
    this.#core = core;
  }

  /** The rowid of the last row that a direct statement has inserted, 0 before the first. */
  get lastInsertRowid(): number | bigint {
    return this.#lastInsertRowid;
  }

  async execute({ sql, parameters, options }: Given<ExecuteOptions>): Promise<ExecuteResult> {
    this.#core.engine.assertAccepting();
    checkWait(options, ['ahead']);
    const { ahead = false, ...wait } = options;
    const { inserts } = checkDirectSql(sql, 'write');
    const values = parametersOf(parameters);
    const { engine, flusher, clock } = this.#core;
    engine.assertMayWait('aexecute');
    if (!ahead) return this.run('aexecute', { sql, parameters: values }, wait, inserts);
    const result = await waitFor(this.#perform({ sql, parameters: values }, inserts), 'aexecute', wait, clock);
    flusher.nudge();
    return result;
  }

  async fetch({ sql, parameters, options }: Given<QueryOptions>): Promise<SqlRow[]> {
    this.#core.assertOpen();
    checkDirectSql(sql, 'read');
    checkWait(options, ['stale', 'maxRows']);
    const { stale = false, maxRows, ...wait } = options;
    if (maxRows !== undefined && !(Number.isInteger(maxRows) && maxRows >= 1)) {
      throw new SluiceError('SLUICE_INVALID_OPTION', `maxRows must be an integer of at least 1, not ${show(maxRows)}`);
    }
    const values = parametersOf(parameters);
    const left = limitsFrom(wait, this.#core.clock);
    if (!stale) await this.#core.flusher.barrier('the query', wait);
    return this.#core.store.query(sql, values, { maxRows, ...left() });
  }

  /** Statements of our own that read, all at one moment. */
  async readAll(
    what: string,
    statements: readonly Statement[],
    { stale = false, ...wait }: WaitOptions & { readonly stale?: boolean | undefined },
  ): Promise<SqlRow[][]> {
    const { flusher, store } = this.#core;
    const left = limitsFrom(wait, this.#core.clock);
    if (!stale) await flusher.barrier(what, wait);
    return store.queryAll(statements, left());
  }

  /** A statement of our own on the writer. */
  async run(what: string, statement: Statement, wait: WaitOptions, inserts = false): Promise<ExecuteResult> {
    await this.#core.flusher.barrier(what, wait);
    return this.#perform(statement, inserts);
  }

  /** Several, in one transaction. */
  async runAll(
    what: string,
    statements: readonly RepeatedStatement[],
    wait: WaitOptions,
    inserts = false,
  ): Promise<ExecutedAll> {
    await this.#core.flusher.barrier(what, wait);
    assertNotInItsOwnWay();
    this.statements++;
    const result = await this.#core.store.executeAll(statements).finally(() => this.executed++);
    if (inserts && result.changes > 0) this.#lastInsertRowid = result.lastInsertRowid;
    return result;
  }

  async #perform({ sql, parameters }: Statement, inserts: boolean): Promise<ExecuteResult> {
    assertNotInItsOwnWay();
    this.statements++;
    const result = await this.#core.store.execute(sql, parameters).finally(() => this.executed++);
    if (inserts && result.changes > 0) this.#lastInsertRowid = result.lastInsertRowid;
    return result;
  }

  /** One statement with each of several sets of parameters, in one transaction. */
  async executeMany(sql: string, sets: Iterable<SqlParameters>, wait: WaitOptions): Promise<ExecutedAll> {
    this.#core.engine.assertAccepting();
    checkWait(wait);
    const { inserts } = checkDirectSql(sql, 'write');
    if (typeof sets !== 'object' || sets === null || !(Symbol.iterator in sets)) {
      throw new SluiceError(
        'SLUICE_INVALID_VALUE',
        `sets of parameters must be an iterable of lists or objects, not ${show(sets)}`,
      );
    }
    const values: Parameters[] = [];
    for (const set of sets) values.push(parametersOf(set));
    return this.runAll('aexecuteMany', [{ sql, sets: values }], wait, inserts);
  }

  /** The pages of what a statement returns, all from one moment. A page is read when it is asked for. */
  async *pages(request: Given<IterateOptions>): AsyncGenerator<SqlRow[], void, undefined> {
    const { sql, parameters, options } = request;
    const { store, flusher, clock } = this.#core;
    const { stale = false, pageSize = PAGE_ROWS, ...wait } = options;
    const statement = { sql, parameters: parametersOf(parameters) };
    this.#core.assertOpen();
    if (!stale) await flusher.barrier('aiterate', wait);
    const cursor = await waitForCursor(store.cursor(statement), wait, clock);
    const age = limitAge(this.#core, cursor);
    try {
      for (let isLast = false; !isLast; ) {
        age.check();
        const page = await waitFor(cursor.next(pageSize), 'aiterate', { signal: wait.signal }, clock).catch((error) => {
          age.check();
          throw error;
        });
        isLast = page.length < pageSize;
        if (page.length > 0) yield page;
      }
    } finally {
      age.end();
      cursor.close();
    }
  }

  /** Checks what {@link pages} is to be asked. */
  checkIterate({ sql, parameters, options }: Given<IterateOptions>): void {
    this.#core.assertOpen();
    checkDirectSql(sql, 'read');
    checkWait(options, ['stale', 'pageSize']);
    parametersOf(parameters);
    const { pageSize = PAGE_ROWS } = options;
    if (Number.isInteger(pageSize) && pageSize >= 1 && pageSize <= PAGE_ROWS_MAX) return;
    throw new SluiceError(
      'SLUICE_INVALID_OPTION',
      `pageSize must be an integer from 1 to ${PAGE_ROWS_MAX}, not ${show(pageSize)}`,
    );
  }

  /** Whether a statement only reads. What is no statement at all says so when it is run. */
  reads(sql: string): boolean {
    return directStatement(sql).reads;
  }
}

/** A cursor that comes when nobody waits for it any more is closed: it would hold its snapshot. */
async function waitForCursor<C extends { close(): void }>(
  opening: Promise<C>,
  wait: WaitOptions,
  clock: Core['clock'],
): Promise<C> {
  return waitFor(opening, 'aiterate', wait, clock, () => {
    opening.then(
      (cursor) => cursor.close(),
      () => undefined,
    );
  });
}
