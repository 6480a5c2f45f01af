import { type FrameReader, Kind } from '../../../base/frame/index.ts';
import type { KeyTable } from './catalog.ts';
import { inKeyOrder } from './key-order.ts';

/** The newest put or delete of a key that waits in the run. */
export interface RunEntry {
  readonly key: string;
  /** `null` deletes. */
  value: string | Uint8Array | null;
  seq: number;
  /** How many writes of the key come before it in the run. */
  olderWrites: number;
}

/** The writes of one table in a run. */
export class TableRun {
  readonly statements: KeyTable;
  readonly table: string;
  readonly #newest = new Map<string, RunEntry>();

  constructor(statements: KeyTable, table: string) {
    this.statements = statements;
    this.table = table;
  }

  add({ key, kind, value: put, seq }: FrameReader): void {
    const value = kind === Kind.delete ? null : put;
    const entry = this.#newest.get(key);
    if (entry === undefined) {
      this.#newest.set(key, { key, value, seq, olderWrites: 0 });
    } else {
      entry.value = value;
      entry.seq = seq;
      entry.olderWrites++;
    }
  }

  /** How many different keys there are. */
  get keys(): number {
    return this.#newest.size;
  }

  /** The newest write of each key, about in the order of the keys: see {@link inKeyOrder}. */
  newest(): RunEntry[] {
    return inKeyOrder([...this.#newest.values()]);
  }
}

/** Puts and deletes on plain tables, waiting to be coalesced. */
export class Run {
  /** By their folded names: one table may be written to under several, and the order of its writes counts. */
  readonly #tables = new Map<string, TableRun>();
  #keys = 0;

  get tables(): Iterable<TableRun> {
    return this.#tables.values();
  }

  /** How many different keys wait. */
  get keys(): number {
    return this.#keys;
  }

  add(statements: KeyTable, reader: FrameReader): void {
    let run = this.#tables.get(statements.folded);
    if (run === undefined) {
      run = new TableRun(statements, reader.target.table as string);
      this.#tables.set(statements.folded, run);
    }
    const before = run.keys;
    run.add(reader);
    this.#keys += run.keys - before;
  }

  /** Forgets all of it: it was applied, or its transaction is gone. */
  reset(): void {
    this.#tables.clear();
    this.#keys = 0;
  }
}
