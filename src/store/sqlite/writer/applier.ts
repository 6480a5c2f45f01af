import { appendUpTo } from '../../../base/append-up-to.ts';
import { FrameReader, Kind } from '../../../base/frame/index.ts';
import {
  type Batch,
  type BatchResult,
  type Breaker,
  type DeadLetterSummary,
  LISTED_MAX,
  type QueueLimits,
  StoreFailure,
  type SupersededLetter,
} from '../../store.ts';
import type { Statement } from '../connection.ts';
import { copyGroup, copyOf, isOfKey, type WriteCopy } from '../dead-letters/write-copy.ts';
import type { Classified } from '../result-codes.ts';
import { SELECT_STATE, type StateRow, takenOver } from '../schema.ts';
import { type Appending, type KeyTable, ROWS_AT_ONCE } from './catalog.ts';
import type { Executor } from './executor.ts';
import { type NewestWrite, Run, type TableRun } from './run.ts';
import { CommitRefused, RunRefused, TransactionLost } from './transaction.ts';
import type { WriterParts } from './writer-parts.ts';

/** What a batch has done so far, kept in the state row until the next batch begins. */
interface Counts {
  applied: number;
  coalesced: number;
  readonly dead: number[];
  readonly superseded: SupersededLetter[];
  readonly evicted: DeadLetterSummary[];
  readonly untold: { superseded: number; evicted: number };
}

const UNTRIED_MAX = 31;

/** How often a transaction is run again from its beginning because a write took it along. */
const LOSSES_MAX = 8;

export interface ApplierOptions {
  readonly limits: QueueLimits;
  readonly breaker: Breaker;
}

/**
 * Carries batches of writes into SQLite. The outcome is that of applying the writes one by one in sequence order, each
 * on its own; everything below is a faster way to the same end.
 *
 * 1. One transaction per batch: writes, dead letters, watermark. The watermark update names the owner and the value it
 *    expects, so a batch is applied once, and never by a process that has lost the database.
 * 2. A run of puts and deletes on plain tables is coalesced: the newest write of each key is applied, about in the order of
 *    the keys ({@link inKeyOrder}), which nothing tells but the rowid. There is next to nothing for which SQLite refuses one; if
 *    it does, what is left of the batch is run again without such runs. A run of rows that are appended in one way is inserted
 *    {@link ROWS_AT_ONCE} at a time, and so are puts. If SQLite refuses one of them, it undoes the statement, and they are
 *    applied one by one. Everything else ends the run first, and is applied by the {@link Executor}.
 * 3. A write that SQLite refuses for good becomes a dead letter in the same transaction. A write that takes the transaction
 *    with it is condemned and the batch run again without it, and where there are many of them, what comes before is
 *    committed now and then: no write is run more than {@link LOSSES_MAX} + 1 times for it. If COMMIT is refused, the batch is halved,
 *    each half with its own watermark, until the guilty write stands alone: of `n` writes, each guilty one costs at most
 *    2 log2 n + 2 attempts, of which the last one buries it. A batch that is too large for the memory is halved as well.
 * 4. A large batch of which more than the breaker's share dies is rolled back, for somebody to look at.
 *
 * Rejected: bisecting on any error (13 times slower at 64 poison rows in 4,096), a savepoint per write (65 % slower).
 */
export class Applier {
  readonly #parts: WriterParts;
  readonly #options: ApplierOptions;
  readonly #state: Statement;
  readonly #advance: Statement;
  readonly #run = new Run();
  /** Whether puts and deletes may wait in the run. */
  #coalescing = true;
  /** Rows that wait to be appended, all in the same way. */
  readonly #rows: WriteCopy[] = [];
  #appendingTo: Appending | undefined;
  /** Statements for many rows that were refused one after the other, and how many are not to be tried. */
  #refusals = 0;
  #untried = 0;
  #counts: Counts = noCounts();
  /** The entries that this call has made. */
  #died: DeadLetterSummary[] = [];
  #deadMax = 0;
  #attempts = 0;
  /** See {@link Batch.take}. */
  #taken = false;

  constructor(parts: WriterParts, options: ApplierOptions) {
    this.#parts = parts;
    this.#options = options;
    this.#state = parts.db.prepare(SELECT_STATE);
    this.#advance = parts.db.prepare(
      'UPDATE _sluice_state SET applied_seq = ?, batch_after = ?, batch_result = ? WHERE owner = ? AND applied_seq = ?',
    );
  }

  apply(batch: Batch): Omit<BatchResult, 'durable' | 'durationMs'> {
    const { dead } = this.#parts;
    const { afterSeq, lastSeq, take = false } = batch;
    const state = this.#state.get() as StateRow;
    const begun = state.batchAfter === afterSeq && state.appliedSeq > afterSeq;
    if (state.appliedSeq !== afterSeq && !begun) {
      throw new StoreFailure(
        'fatal',
        `the database stands at write ${state.appliedSeq}, the batch begins after ${afterSeq}: something else has written to it`,
      );
    }
    this.#counts = begun ? (JSON.parse(state.batchResult) as Counts) : noCounts();
    this.#died = [];
    this.#attempts = 0;
    this.#deadMax = take ? Number.POSITIVE_INFINITY : this.#breakerAt(lastSeq - afterSeq);
    this.#taken = take;
    this.#coalescing = true;
    if (state.appliedSeq < lastSeq) this.#applyRange(batch, state.appliedSeq, lastSeq, new Map());
    const { applied, coalesced, superseded, evicted, untold, dead: deadSeqs } = this.#counts;
    const died = begun ? this.#entriesOf(batch) : this.#died;
    return {
      applied,
      coalesced,
      superseded,
      evicted,
      untold,
      deadSeqs,
      dead: died,
      queue: dead.state,
      splits: Math.max(0, this.#attempts - 1),
    };
  }

  /** What died in a batch that somebody else began: entries that are there, or that a later write or the limits took away. */
  #entriesOf({ afterSeq, lastSeq }: Batch): DeadLetterSummary[] {
    const { dead, superseded, evicted } = this.#counts;
    const left = dead.length === 0 ? [] : this.#parts.dead.summaries(afterSeq, lastSeq);
    const gone = superseded.map(({ bySeq: _, ...letter }) => letter);
    const entries = [...left, ...gone, ...evicted].sort((a, b) => a.id - b.id);
    // An import in the middle of the batch may have brought entries with a number of its.
    const awaited = new Set(dead);
    return entries.filter(({ seq }) => awaited.delete(seq));
  }

  #breakerAt(writes: number): number {
    const { maxDeadShare, minWrites } = this.#options.breaker;
    return writes < minWrites ? Number.POSITIVE_INFINITY : writes * maxDeadShare;
  }

  #applyRange(batch: Batch, begin: number, last: number, condemned: Map<number, Classified>): void {
    let after = begin;
    for (let losses = 0; ; ) {
      const before = structuredClone(this.#counts);
      const diedBefore = this.#died.length;
      this.#attempts++;
      try {
        return this.#parts.transactions.run(() => this.#applyWrites(batch, after, last, condemned));
      } catch (error) {
        this.#run.reset();
        this.#rows.length = 0;
        this.#counts = before;
        this.#died.length = diedBefore;
        if (error instanceof RunRefused) this.#coalescing = false;
        else if (error instanceof TransactionLost) {
          condemned.set(error.seq, error.reason);
          if (++losses < LOSSES_MAX || error.seq === last) continue;
          this.#applyRange(batch, after, error.seq, condemned);
          after = error.seq;
          losses = 0;
        } else if (last - after === 1 && error instanceof CommitRefused) condemned.set(last, error.reason);
        else if (last - after > 1 && (error instanceof CommitRefused || isOutOfMemory(error))) {
          const middle = after + Math.floor((last - after) / 2);
          // What was condemned may have met a write that will not be there.
          this.#applyRange(batch, after, middle, new Map());
          return this.#applyRange(batch, middle, last, new Map());
        } else throw error;
      }
    }
  }

  #applyWrites(batch: Batch, after: number, last: number, condemned: Map<number, Classified>): void {
    this.#parts.catalog.refresh();
    for (const frame of batch.frames) {
      if (frame.lastSeq <= after || frame.firstSeq > last) continue;
      const reader = new FrameReader(Buffer.from(frame.bytes.buffer, frame.bytes.byteOffset, frame.bytes.length));
      while (reader.next()) {
        if (reader.seq > last) break;
        if (reader.seq <= after) {
          if (reader.kind === Kind.group) copyGroup(reader);
        } else {
          this.#take(reader, condemned);
        }
      }
    }
    this.#endRun();
    if (this.#counts.dead.length > 0) {
      const evicted = this.#parts.dead.evict(this.#options.limits);
      this.#counts.untold.evicted += appendUpTo(this.#counts.evicted, evicted, LISTED_MAX);
    }
    const moved = this.#advance.run(
      BigInt(last),
      BigInt(batch.afterSeq),
      JSON.stringify(this.#counts),
      this.#parts.owner,
      BigInt(after),
    ).changes;
    if (moved !== 1) {
      throw takenOver();
    }
  }

  #take(reader: FrameReader, condemned: Map<number, Classified>): void {
    const reason = condemned.size > 0 ? condemned.get(reader.seq) : undefined;
    if (reason === undefined && this.#coalescing && isOfKey(reader.kind)) {
      const table = this.#plainTable(reader.target.table as string);
      if (table !== undefined) return this.#takeKey(table, reader);
    }
    if (reason === undefined && reader.kind === Kind.append) {
      const appending = this.#appending(reader);
      if (appending !== undefined) return this.#takeRow(appending, reader);
    }
    this.#endRun();
    this.#attempt(reader.kind === Kind.group ? copyGroup(reader) : copyOf(reader), reason);
  }

  #attempt(write: WriteCopy, reason?: Classified): void {
    const error = reason ?? this.#parts.executor.attempt(write, this.#taken);
    if (error !== undefined) return this.#die(write, error);
    this.#counts.applied++;
    this.#supersede(this.#parts.dead.supersededBy(write));
  }

  #plainTable(name: string): KeyTable | undefined {
    try {
      const table = this.#parts.catalog.keyTable(name);
      return table.plain ? table : undefined;
    } catch {
      // A table that has not the right columns: said when the write is attempted.
      return undefined;
    }
  }

  #takeKey(table: KeyTable, reader: FrameReader): void {
    this.#endRows();
    if (this.#run.add(table, reader)) return;
    this.#endKeys();
    this.#run.add(table, reader);
  }

  #appending({ target, parameters }: FrameReader): Appending | undefined {
    try {
      const appending = this.#parts.catalog.appending(target.table as string, target.statement as string);
      return appending?.columns === parameters.length ? appending : undefined;
    } catch {
      // There is no such table or column: said when the write is attempted.
      return undefined;
    }
  }

  #takeRow(appending: Appending, reader: FrameReader): void {
    this.#endKeys();
    if (this.#appendingTo !== appending) this.#endRows();
    this.#appendingTo = appending;
    this.#rows.push(copyOf(reader));
    if (this.#rows.length === ROWS_AT_ONCE) this.#endRows();
  }

  #endRun(): void {
    this.#endKeys();
    this.#endRows();
  }

  /** Appends the rows that wait: all with one statement if there are enough, and none is refused. */
  #endRows(): void {
    const rows = this.#rows;
    if (rows.length === 0) return;
    if (rows.length === ROWS_AT_ONCE && this.#appendTogether(rows)) this.#counts.applied += rows.length;
    else for (const row of rows) this.#attempt(row);
    rows.length = 0;
  }

  /** Where one statement after the other is refused, the next ones are not tried: each costs as much as its rows. */
  #appendTogether(rows: readonly WriteCopy[]): boolean {
    if (this.#untried > 0) {
      this.#untried--;
      return false;
    }
    const { rows: statement } = this.#appendingTo as Appending;
    const values = rows.map(({ parameters }) => parameters);
    if (this.#parts.executor.together(statement, values)) {
      this.#refusals = 0;
      return true;
    }
    this.#untried = Math.min(UNTRIED_MAX, 2 ** this.#refusals++ - 1);
    return false;
  }

  /** Applies the newest write of each key in the run. */
  #endKeys(): void {
    const run = this.#run;
    if (run.keys === 0) return;
    for (const table of run.tables) this.#applyKeys(table);
    this.#counts.coalesced += run.coalesced;
    run.reset();
  }

  #applyKeys(table: TableRun): void {
    const puts: NewestWrite[] = [];
    for (const entry of this.#run.newestOf(table)) {
      const write = this.#run.writeAt(entry);
      if (write.value === null) this.#applyKey(table, write);
      else if (puts.push(write) === ROWS_AT_ONCE) this.#applyPuts(table, puts);
    }
    this.#applyPuts(table, puts);
  }

  /** With one statement if there are enough, and none is refused. */
  #applyPuts(table: TableRun, puts: NewestWrite[]): void {
    if (puts.length === ROWS_AT_ONCE && this.#putTogether(table, puts)) {
      for (const put of puts) this.#applied(table, put);
    } else {
      for (const put of puts) this.#applyKey(table, put);
    }
    puts.length = 0;
  }

  #putTogether({ statements }: TableRun, puts: readonly NewestWrite[]): boolean {
    const values: unknown[] = [];
    for (const { key, value } of puts) values.push(key, value);
    return this.#parts.executor.together(statements.putRows, values);
  }

  #applyKey(run: TableRun, write: NewestWrite): void {
    const { statements, table } = run;
    const { key, value, seq } = write;
    try {
      if (value === null) statements.delete.run(key);
      else statements.put.run(key, value);
    } catch (error) {
      this.#parts.executor.verdict(
        error,
        { seq, table, kind: value === null ? Kind.delete : Kind.putText },
        this.#taken,
      );
      throw new RunRefused();
    }
    this.#applied(run, write);
  }

  #applied({ table }: TableRun, { key, seq }: NewestWrite): void {
    this.#counts.applied++;
    this.#supersede(this.#parts.dead.supersededByKey(table, key, seq));
  }

  #supersede(letters: readonly SupersededLetter[]): void {
    this.#counts.untold.superseded += appendUpTo(this.#counts.superseded, letters, LISTED_MAX);
  }

  #die(write: WriteCopy, error: Classified): void {
    this.#died.push(this.#parts.dead.add(write, error));
    this.#counts.dead.push(write.seq);
    if (this.#counts.dead.length > this.#deadMax) {
      throw new StoreFailure(
        'breaker',
        `more than ${Math.floor(this.#deadMax)} writes of one batch died, up to write ${write.seq} (${error.message}), so the transaction was rolled back instead of filling the dead-letter queue. Repair the cause, with aexecute(sql, { ahead: true }) or from outside, and it goes on; or let them die with dlq.take()`,
        error.code,
      );
    }
  }
}

function isOutOfMemory(error: unknown): boolean {
  return error instanceof StoreFailure && /NOMEM$/.test(error.sqliteCode ?? '');
}

function noCounts(): Counts {
  return { applied: 0, coalesced: 0, dead: [], superseded: [], evicted: [], untold: { superseded: 0, evicted: 0 } };
}
