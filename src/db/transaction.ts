import { AsyncLocalStorage } from 'node:async_hooks';
import { backoffMs } from '../base/backoff.ts';
import { SluiceError } from '../base/errors.ts';
import { show } from '../base/options.ts';
import { checkWait, Deferred, limitsFrom, sleep, type WaitOptions, waitFor } from '../base/waiting.ts';
import { bytesOfGroup, type Encoded, type GroupMember, type KeyMember } from '../engine/index.ts';
import { decodeValue, encodeValue, listOf } from './codec.ts';
import type { Core } from './core.ts';
import { type Entries, entriesOf } from './entries.ts';
import type { HookChain, PendingWrite } from './hooks.ts';
import { checkKey } from './keys.ts';
import type { Keyspace, Stored, Watch } from './keyspace.ts';
import { isThenable } from './schema.ts';
import { type IncrementOptions, incremented, type PatchOptions, patched } from './transforms.ts';

/** A put or a deletion that a transaction is to make. */
interface KeyStep {
  readonly part: TablePart;
  readonly key: string;
  readonly encoded: Encoded | null;
  readonly pending: PendingWrite | undefined;
}

/** A row that a transaction is to append. */
export interface RowStep {
  readonly member: GroupMember;
  /** The same as the table is by now; throws where it would not take the row any more. */
  readonly current: () => GroupMember;
  readonly told: () => void;
}

type Step = KeyStep | RowStep;

/** @internal A table that can take part. */
export interface Participant {
  readonly inside: { readonly keys: Keyspace; readonly chain: HookChain<unknown> | undefined };
}

/** What of a table takes part in a transaction. */
interface TablePart {
  readonly keys: Keyspace;
  readonly chain: HookChain<unknown> | undefined;
  /** What it has read. */
  readonly found: Map<string, Encoded | undefined>;
  /** What the transaction has written. */
  readonly written: Map<string, Encoded | null>;
  /** Where conflicts count. */
  readonly watch: Watch | undefined;
}

/** Somebody else has written what a transaction had read. */
export class Conflict extends Error {}

/** Who writes in a transaction: its function, or that of a part of it. */
export class Scope {}

/**
 * What a transaction has read and is to write: nothing of it is staged before it is committed, and then all of it, as one atomic
 * group. What it reads is what is there, with its own writes over it.
 *
 * Conflicts are recognised by watching: a key that was read is watched until the end, and a write of it by somebody else makes the
 * transaction one that must begin anew. Rejected: numbers of versions, which every entry of staging, cache and SQLite would need.
 */
export class Work {
  readonly #core: Core;
  readonly #watches: boolean;
  readonly #parts = new Map<Keyspace, TablePart>();
  readonly #steps: Step[] = [];
  /** Takes back, last first, what the steps have changed in the parts. */
  readonly #undo: (() => void)[] = [];
  /** What had been changed past all watches when it first read. */
  #foreign: number | undefined;
  /** Those that have not ended, the innermost last. That alone may write: what a part has written is what came since it began. */
  readonly #scopes: Scope[] = [new Scope()];
  #partEnded: Deferred<void> | undefined;
  #isOver = false;
  #isCommitted = false;

  /** `watches` says whether somebody else can write before the end. */
  constructor(core: Core, watches: boolean) {
    this.#core = core;
    this.#watches = watches;
  }

  get isCommitted(): boolean {
    return this.#isCommitted;
  }

  partOf(table: Participant): TablePart {
    this.assertOpen();
    const { keys, chain } = table.inside;
    let part = this.#parts.get(keys);
    if (part === undefined) {
      const watch = this.#watches ? keys.watch() : undefined;
      part = {
        keys,
        chain,
        found: new Map(),
        written: new Map(),
        watch,
      };
      this.#parts.set(keys, part);
    }
    return part;
  }

  /** Whether it has read anything that is another by now. */
  get isConflicting(): boolean {
    if (!this.#watches) return false;
    return this.hasMetSql || [...this.#parts.values()].some(({ watch }) => watch?.isChanged === true);
  }

  /** Whether SQL, or what else nobody watches, may have changed what it has read. */
  get hasMetSql(): boolean {
    return this.#watches && this.#foreign !== undefined && this.#core.foreignChanges() !== this.#foreign;
  }

  /** Whether SQL would make it begin anew. */
  get mindsSql(): boolean {
    return this.#watches && this.#foreign !== undefined && !this.#isOver;
  }

  assertOpen(): void {
    if (!this.#isOver) return;
    throw new SluiceError('SLUICE_CLOSED', 'the transaction is over: what belongs to it must be done before it ends');
  }

  /** The value of a key, as JSON text or bytes. */
  read(part: TablePart, key: string): Encoded | undefined {
    const own = this.#own(part, key);
    if (own !== undefined) return own ?? undefined;
    if (!part.found.has(key)) part.found.set(key, opened(part, key, part.keys.read(key)));
    return part.found.get(key);
  }

  /** The same of several, by a reader thread. */
  async readMany(part: TablePart, keys: readonly string[]): Promise<(Encoded | undefined)[]> {
    const unknown = keys.filter((key) => this.#own(part, key) === undefined && !part.found.has(key));
    const stored = await part.keys.readMany(unknown);
    for (const [i, key] of unknown.entries()) part.found.set(key, opened(part, key, stored[i]));
    return keys.map((key) => this.read(part, key));
  }

  put(scope: Scope, part: TablePart, key: string, encoded: Encoded): void {
    this.assertWriting(scope);
    const pending = part.chain === undefined ? undefined : { key, encoded, waiting: this.#watches };
    if (pending !== undefined) part.chain?.pend(pending);
    this.#step({ part, key, encoded, pending });
  }

  remove(scope: Scope, part: TablePart, key: string): void {
    this.assertWriting(scope);
    this.#step({ part, key, encoded: null, pending: undefined });
  }

  append(scope: Scope, step: RowStep): void {
    this.assertWriting(scope);
    this.#steps.push(step);
    this.#undo.push(() => this.#steps.pop());
  }

  /** The scope of the function itself. */
  get whole(): Scope {
    return this.#scopes[0] as Scope;
  }

  /** Throws unless it is the innermost scope: what another one writes meanwhile would be taken back with the part. */
  assertWriting(scope: Scope): void {
    this.assertOpen();
    if (this.#scopes.at(-1) === scope) return;
    throw this.#scopes.includes(scope)
      ? new SluiceError(
          'SLUICE_CONFLICT',
          'a part of the transaction is under way: write in that, with the tx that its function is given, or await it first',
        )
      : new SluiceError('SLUICE_CLOSED', 'the part of the transaction is over: what belongs to it must be done before');
  }

  /** A part that nobody can come between, and so has none that others could. Its writes are taken back where it fails. */
  partAtOnce<R>(scope: Scope, body: () => R): R {
    this.assertWriting(scope);
    const { savepoint } = this;
    try {
      const result = body();
      if (isThenable(result)) throw notSynchronous(result);
      if (this.#scopes.at(-1) === scope) return result;
      throw new SluiceError(
        'SLUICE_CONFLICT',
        'a part of the transaction is under way, and cannot be awaited in a function that is not asynchronous: nothing of both was made. Use atransaction() for both',
      );
    } catch (error) {
      this.#scopes.length = this.#scopes.indexOf(scope) + 1;
      this.rollbackTo(savepoint);
      throw error;
    }
  }

  /** A part that others can come between. Its writes are taken back where it fails. */
  async part<R>(outer: Scope, body: (scope: Scope) => Promise<R>): Promise<R> {
    this.assertWriting(outer);
    const scope = new Scope();
    const { savepoint } = this;
    this.#scopes.push(scope);
    try {
      const result = await body(scope);
      await this.whenInnermost(scope);
      return result;
    } catch (error) {
      await this.whenInnermost(scope);
      if (this.#isUnderWay(scope)) this.rollbackTo(savepoint);
      throw error;
    } finally {
      if (this.#isUnderWay(scope)) this.#scopes.pop();
      this.#partEnded?.resolve();
      this.#partEnded = undefined;
    }
  }

  /** Resolves when no part of it is under way: one that nobody has awaited must not be made in half. */
  async whenInnermost(scope: Scope): Promise<void> {
    while (this.#scopes.at(-1) !== scope && this.#isUnderWay(scope)) {
      this.#partEnded ??= new Deferred();
      await this.#partEnded.promise;
    }
  }

  #isUnderWay(scope: Scope): boolean {
    return !this.#isOver && this.#scopes.includes(scope);
  }

  /** A point to go back to. */
  get savepoint(): number {
    return this.#undo.length;
  }

  rollbackTo(savepoint: number): void {
    while (this.#undo.length > savepoint) this.#undo.pop()?.();
  }

  rollback(): void {
    this.rollbackTo(0);
    this.#end();
  }

  /** How many writes it has. */
  get size(): number {
    return this.#steps.length;
  }

  /** What it costs in staging. */
  get bytes(): number {
    return this.#steps.reduce((total, step) => total + bytesOf(step), 0);
  }

  /** Stages everything as one write, and tells the hooks. Throws {@link Conflict}, or whatever refuses a write. */
  commit(): void {
    this.assertOpen();
    if (this.isConflicting) throw new Conflict();
    const before = this.#steps.map((step) => ('part' in step ? valueBefore(step) : undefined));
    const members = this.#steps.map((step) => ('part' in step ? step.part.keys.membersOf([step]) : [step.current()]));
    // Its own writes are no conflict, and those of others none any more.
    this.#end();
    if (members.length > 0) this.#core.engine.group(members.flat());
    this.#isCommitted = true;
    this.#undo.length = 0;
    for (const [i, step] of this.#steps.entries()) {
      if ('part' in step) step.part.keys.wroteGroup(members[i] as KeyMember[]);
    }
    this.#settle();
    const latest = new Map<TablePart, Map<string, unknown>>();
    for (const [i, step] of this.#steps.entries()) {
      if ('part' in step) tellOf(step, before[i], latest);
      else step.told();
    }
  }

  #own(part: TablePart, key: string): Encoded | null | undefined {
    this.assertOpen();
    const own = part.written.get(key);
    if (own !== undefined) return own;
    this.#foreign ??= this.#core.foreignChanges();
    part.watch?.add(key);
    // Whoever goes on would see two states at once.
    if (this.isConflicting) throw new Conflict();
    return undefined;
  }

  #step(step: KeyStep): void {
    const { part, key, encoded, pending } = step;
    const before = part.written.get(key);
    part.written.set(key, encoded);
    this.#steps.push(step);
    this.#undo.push(() => {
      this.#steps.pop();
      if (before === undefined) part.written.delete(key);
      else part.written.set(key, before);
      if (pending !== undefined) part.chain?.settle(pending);
    });
  }

  #settle(): void {
    for (const step of this.#steps)
      if ('part' in step && step.pending !== undefined) step.part.chain?.settle(step.pending);
  }

  #end(): void {
    this.#isOver = true;
    this.#partEnded?.resolve();
    for (const { watch } of this.#parts.values()) watch?.end();
  }
}

/** A key-value table within a transaction: what {@link Table} has under these names, of the transaction. */
export class TransactionTable<T = unknown, In = T> {
  /** @internal */
  protected readonly work: Work;
  /** @internal */
  protected readonly scope: Scope;
  readonly #part: TablePart;

  /** @internal */
  constructor(work: Work, scope: Scope, table: Participant) {
    this.work = work;
    this.scope = scope;
    this.#part = work.partOf(table);
  }

  /** The value of a key, with what the transaction has written; `fallback`, `undefined` if left out, where there is none. */
  get(key: string): T | undefined;
  get<D>(key: string, fallback: D): T | D;
  get(key: string, fallback?: unknown): unknown {
    checkKey(key);
    const found = this.work.read(this.#part, key);
    return found === undefined ? fallback : this.#toReader(key, found);
  }

  /** {@link TransactionTable.get}. What is not staged is read by a reader thread. */
  async aget(key: string): Promise<T | undefined> {
    return (await this.agetMany([key])).get(key);
  }

  /** The values of those of the keys that are there. */
  getMany(keys: Iterable<string>): Map<string, T> {
    const found = new Map<string, T>();
    for (const key of listOf(keys, 'keys')) {
      const value = this.get(key);
      if (value !== undefined) found.set(key, value);
    }
    return found;
  }

  /** {@link TransactionTable.getMany}. What is not staged is read by a reader thread, in one message. */
  async agetMany(keys: Iterable<string>): Promise<Map<string, T>> {
    const wanted = listOf(keys, 'keys');
    for (const key of wanted) checkKey(key);
    const values = await this.work.readMany(this.#part, wanted);
    const found = new Map<string, T>();
    for (const [i, key] of wanted.entries()) {
      const value = values[i];
      if (value !== undefined) found.set(key, this.#toReader(key, value));
    }
    return found;
  }

  /** Whether the key is there. */
  has(key: string): boolean {
    checkKey(key);
    return this.work.read(this.#part, key) !== undefined;
  }

  /** Writes a value when the transaction is committed. Hooks and the validator look at it now. */
  set(key: string, value: In): void {
    checkKey(key);
    const { chain } = this.#part;
    this.work.put(
      this.scope,
      this.#part,
      key,
      encodeValue(chain === undefined ? value : chain.beforeWrite(key, value)),
    );
  }

  /** Writes several entries. */
  setMany(entries: Entries<In>): void {
    const savepoint = this.work.savepoint;
    try {
      for (const [key, value] of entriesOf(entries)) this.set(key, value);
    } catch (error) {
      this.work.rollbackTo(savepoint);
      throw error;
    }
  }

  /** Deletes a key; returns whether it was there. */
  delete(key: string): boolean {
    if (!this.has(key)) return false;
    this.#part.chain?.beforeDelete(key);
    this.work.remove(this.scope, this.#part, key);
    return true;
  }

  /** Deletes several keys; returns how many of them were there. */
  deleteMany(keys: Iterable<string>): number {
    const savepoint = this.work.savepoint;
    try {
      return listOf(keys, 'keys').filter((key) => this.delete(key)).length;
    } catch (error) {
      this.work.rollbackTo(savepoint);
      throw error;
    }
  }

  /** Deletes a key; returns the value it had, `undefined` if it was not there. */
  pop(key: string): T | undefined {
    const value = this.get(key);
    this.delete(key);
    return value;
  }

  /** The value of a key; if there is none, writes and returns `value`. */
  setDefault(key: string, value: In): T {
    const present = this.get(key);
    if (present !== undefined) return present;
    this.set(key, value);
    return this.get(key) as T;
  }

  /** Adds to a number, see {@link Table.increment}. */
  increment(key: string, amount = 1, options: IncrementOptions = {}): T {
    return this.#change(key, (value) => incremented(key, value, amount, options));
  }

  /** Replaces some fields of an object, see {@link Table.patch}. */
  patch(key: string, changes: Partial<In> & object, options: PatchOptions = {}): T {
    return this.#change(key, (value) => patched(key, value, changes, options));
  }

  #change(key: string, change: (value: unknown) => unknown): T {
    checkKey(key);
    const found = this.work.read(this.#part, key);
    this.set(key, change(found === undefined ? undefined : decodeValue(found)) as In);
    return decodeValue(this.#part.written.get(key) as Encoded) as T;
  }

  #toReader(key: string, found: Encoded): T {
    const value = decodeValue(found);
    const { chain } = this.#part;
    return (chain?.changesReads === true ? chain.afterRead(key, value) : value) as T;
  }
}

/** Rows within a transaction. */
export interface TransactionRows<R> {
  /** Appends a row when the transaction is committed. */
  append(row: R): void;
  /** Appends several rows. */
  appendMany(rows: Iterable<R>): void;
}

/** @internal Where the tables of a transaction come from. */
export interface Tables {
  table(name: string): Participant;
  rows(name: string): { toStep(row: object): RowStep };
}

/**
 * A group of writes that takes effect whole or not at all: made by {@link Database.transaction} and {@link Database.atransaction}.
 * It is its own default table, as the database is.
 */
export class Transaction<T = unknown, In = T> extends TransactionTable<T, In> {
  readonly #table: Participant;
  readonly #tables: Tables;

  /** @internal */
  constructor(work: Work, scope: Scope, table: Participant, tables: Tables) {
    super(work, scope, table);
    this.#table = table;
    this.#tables = tables;
  }

  /** A key-value table, as {@link Database.table} has it. */
  table<U = unknown, UIn = U>(name: string): TransactionTable<U, UIn> {
    return new TransactionTable<U, UIn>(this.work, this.scope, this.#tables.table(name));
  }

  /** A table to append rows to, as {@link Database.rows} has it. Columns that are added on the way stay, whatever comes of it. */
  rows<R extends object = Record<string, unknown>>(name: string): TransactionRows<R> {
    this.work.assertOpen();
    const rows = this.#tables.rows(name);
    const append = (row: R) => this.work.append(this.scope, rows.toStep(row));
    return {
      append,
      appendMany: (given) => {
        const savepoint = this.work.savepoint;
        try {
          for (const row of listOf(given, 'rows')) append(row);
        } catch (error) {
          this.work.rollbackTo(savepoint);
          throw error;
        }
      },
    };
  }

  /**
   * A part of the transaction that can fail by itself: what it has written is taken back when the function throws, and the rest stays.
   * As a savepoint in SQL (https://sqlite.org/lang_savepoint.html).
   */
  transaction<R>(part: (tx: Transaction<T, In>) => R): R {
    assertFunction(part);
    return this.work.partAtOnce(this.scope, () => part(this));
  }

  /**
   * {@link Transaction.transaction} for a function that is asynchronous. Inside it, write with the `tx` that it is given: until it is
   * done, what writes in the outer one, or begins another part of that, is refused with `SLUICE_CONFLICT`.
   */
  async atransaction<R>(part: (tx: Transaction<T, In>) => Promise<R>): Promise<R> {
    assertFunction(part);
    return this.work.part(this.scope, async (scope) =>
      part(new Transaction<T, In>(this.work, scope, this.#table, this.#tables)),
    );
  }
}

/** Options of {@link Database.atransaction}. */
export interface TransactionOptions extends WaitOptions {
  /**
   * How often the function is called again, when something that it has read was written by somebody else before it was committed.
   * Integer, 0 to 1,000.
   * @defaultValue 10
   */
  readonly maxRetries?: number | undefined;
  /** With `true` it is an SQL transaction, with other options: see {@link SqlTransactionOptions}. @defaultValue false */
  readonly sql?: false | undefined;
}

const RETRIES_MAX = 1_000;
const RETRY_FIRST_MS = 1;
const RETRY_MAX_MS = 50;

/** Runs a function whose writes are staged when it returns: nobody else can come between. */
export function runTransaction<Tx, R>(core: Core, make: (work: Work) => Tx, body: (tx: Tx) => R): R {
  core.engine.assertAcceptingWrite();
  assertFunction(body);
  const work = new Work(core, false);
  try {
    const result = work.partAtOnce(work.whole, () => body(make(work)));
    work.commit();
    return result;
  } catch (error) {
    work.rollback();
    throw error;
  }
}

/**
 * The attempt that a call is made in, once SQL has come between. From the first attempt on it would slow down every promise of the
 * process: https://nodejs.org/api/async_context.html.
 */
const attempts = new AsyncLocalStorage<Work>();

/** SQL that the function of a transaction runs itself, after it has read something, is in its way however often it is called. */
export function assertNotInItsOwnWay(): void {
  if (attempts.getStore()?.mindsSql !== true) return;
  throw new SluiceError(
    'SLUICE_CONFLICT',
    'the function of a transaction runs SQL that is no part of it, and that may change what it has read: run it before the first read, or after the transaction, or make it all of SQL, with { sql: true }. Of the transaction nothing was made; the SQL was run once',
  );
}

/** Runs a function whose writes are staged when it is done, again and again where somebody else has come between. */
export async function runTransactionAsync<Tx, R>(
  core: Core,
  make: (work: Work) => Tx,
  body: (tx: Tx) => Promise<R>,
  { maxRetries = 10, ...wait }: TransactionOptions,
): Promise<R> {
  checkWait(wait);
  if (!(Number.isInteger(maxRetries) && maxRetries >= 0 && maxRetries <= RETRIES_MAX)) {
    throw new SluiceError(
      'SLUICE_INVALID_OPTION',
      `maxRetries must be an integer from 0 to ${RETRIES_MAX}, not ${show(maxRetries)}`,
    );
  }
  core.engine.assertMayAwait('atransaction');
  const left = limitsFrom(wait, core.clock);
  let work: Work | undefined;
  let hasMetSql = false;
  let isGivenUp = false;
  const attempt = async () => {
    core.engine.assertAcceptingWrite();
    const mine = new Work(core, true);
    work = mine;
    try {
      const done = async () => {
        const result = await body(make(mine));
        await mine.whenInnermost(mine.whole);
        return result;
      };
      const result = await (hasMetSql ? attempts.run(mine, done) : done());
      await commitWithin(core, mine, left());
      return result;
    } catch (error) {
      hasMetSql ||= mine.hasMetSql;
      const isConflict = !mine.isCommitted && (error instanceof Conflict || mine.isConflicting);
      mine.rollback();
      throw isConflict ? new Conflict() : error;
    }
  };
  const untilMade = async () => {
    for (let runs = 1; ; runs++) {
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof Conflict) || isGivenUp) throw error;
        if (runs > maxRetries) {
          throw new SluiceError(
            'SLUICE_CONFLICT',
            `what the transaction had read was written by somebody else, ${runs} times: nothing of it was made. Make it shorter, or raise maxRetries`,
          );
        }
      }
      await sleep(backoffMs(runs, RETRY_FIRST_MS, RETRY_MAX_MS, core.random), core.clock, wait.signal);
      if (isGivenUp) throw new Conflict();
    }
  };
  const giveUp = () => {
    isGivenUp = true;
    work?.rollback();
  };
  return waitFor(untilMade(), 'the transaction', wait, core.clock, giveUp);
}

async function commitWithin({ engine }: Core, work: Work, wait: WaitOptions): Promise<void> {
  const commit = async () => {
    work.commit();
    if (work.size > 0) await engine.acknowledgement();
  };
  const { bytes } = work;
  return engine.admission.hasRoom(bytes) ? commit() : engine.whenRoom(bytes, commit, wait);
}

export function assertFunction(body: unknown): void {
  if (typeof body === 'function') return;
  throw new SluiceError('SLUICE_INVALID_OPTION', `a transaction takes a function, not ${show(body)}`);
}

/** For a function that would still be at work when its transaction is over. */
function notSynchronous(promise: PromiseLike<unknown>): SluiceError {
  // Nobody will wait for it.
  promise.then(undefined, () => undefined);
  return new SluiceError(
    'SLUICE_UNSUPPORTED',
    'the function of transaction() returned a promise: use atransaction(), which waits for it',
  );
}

function opened({ keys }: TablePart, key: string, stored: Stored): Encoded | undefined {
  return stored === undefined || stored === null ? undefined : (keys.open(key, stored) as Encoded);
}

function bytesOf(step: Step): number {
  if (!('part' in step)) return bytesOfGroup([step.member]);
  const { part, key, encoded } = step;
  return encoded === null ? part.keys.bytesOfRemoves([key]) : part.keys.bytesOfPuts([{ key, encoded }]);
}

/** What a key had before the transaction, where a hook wants to know it. */
function valueBefore({ part: { keys, chain }, key }: KeyStep): unknown {
  if (chain === undefined || !(chain.hearsOfWrites || chain.hearsOfDeletes)) return undefined;
  const stored = keys.read(key);
  return stored === undefined || stored === null ? undefined : decodeValue(keys.open(key, stored));
}

function tellOf({ part, key, encoded }: KeyStep, before: unknown, latest: Map<TablePart, Map<string, unknown>>): void {
  const { chain } = part;
  if (chain === undefined) return;
  const known = latest.get(part) ?? new Map<string, unknown>();
  latest.set(part, known);
  const old = known.has(key) ? known.get(key) : before;
  const value = encoded === null ? undefined : decodeValue(encoded);
  known.set(key, value);
  if (encoded !== null) chain.onWriteSuccess(key, value, old);
  else if (old !== undefined) chain.onDeleteSuccess(key, old);
}
