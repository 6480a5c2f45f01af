import { type FrameReader, Kind } from '../../../base/frame/index.ts';
import type { WriteCopy } from '../dead-letters/write-copy.ts';
import type { KeyTable } from './catalog.ts';

/** A put or delete that waits in the run. */
export interface RunEntry {
  readonly statements: KeyTable;
  readonly table: string;
  readonly key: string;
  /** `null` deletes. */
  readonly value: string | Uint8Array | null;
  readonly seq: number;
  readonly acceptedAt: number;
  /** The write of the same key before this one. */
  readonly older: RunEntry | undefined;
  /** How many writes of its key there are up to this one. */
  readonly count: number;
  newest: boolean;
}

/** Puts and deletes on plain tables, waiting to be coalesced. */
export class Run {
  readonly entries: RunEntry[] = [];
  readonly #newest = new Map<KeyTable, Map<string, RunEntry>>();

  add(statements: KeyTable, reader: FrameReader): void {
    let keys = this.#newest.get(statements);
    if (keys === undefined) {
      keys = new Map();
      this.#newest.set(statements, keys);
    }
    const older = keys.get(reader.key);
    if (older !== undefined) older.newest = false;
    const entry: RunEntry = {
      statements,
      table: reader.target.table as string,
      key: reader.key,
      value: reader.kind === Kind.delete ? null : reader.value,
      seq: reader.seq,
      acceptedAt: reader.acceptedAt,
      older,
      count: older === undefined ? 1 : older.count + 1,
      newest: true,
    };
    this.entries.push(entry);
    keys.set(reader.key, entry);
  }

  /** Forgets all of it: it was applied, or its transaction is gone. */
  reset(): void {
    if (this.entries.length === 0) return;
    this.entries.length = 0;
    this.#newest.clear();
  }
}

/** An entry as a write that stands alone. */
export function writeOf({ table, key, value, seq, acceptedAt }: RunEntry): WriteCopy {
  const kind = value === null ? Kind.delete : typeof value === 'string' ? Kind.putText : Kind.putBlob;
  return { seq, acceptedAt, kind, table, statement: null, key, value: value ?? '', parameters: [], members: [] };
}
