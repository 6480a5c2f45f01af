/** A store of keys and values, or of rows, as a careful user would write to it. */
import type { Durability } from './contest.ts';
import type { Workload } from './workload.ts';

export interface Driver<W extends Workload, S extends Store = Store> {
  readonly name: string;
  readonly durability: Durability;
  /** Where the disk or the store is slow, a round has no more writes than this. */
  readonly atMost?: number;
  /** Loads the package too, so that nobody's memory has the packages of the others. */
  open(folder: string, workload: W): Promise<S>;
}

export interface Store {
  /** Makes the writes `from` up to `to` of the workload. What it returns resolves when the store wants more. */
  write(from: number, to: number): Promise<unknown> | undefined;
  /** Resolves when all writes are as safe as the driver's durability says. */
  acknowledged(): Promise<unknown> | undefined;
  /** Where that is a later moment: resolves when all writes are where they will be read from. */
  applied?(): Promise<unknown>;
  /** How many rows or keys there are. */
  count(): number | Promise<number>;
  /** What it returns resolves when the files are left alone. */
  close(): unknown;
}

/** A store that can be asked for the safety of one write. */
export interface PutStore extends Store {
  /** Makes one write. What it returns resolves when that is as safe as the driver's durability says. */
  put(i: number): Promise<unknown> | undefined;
}

/** A store that reads on the calling thread. */
export interface ReadStore extends PutStore {
  get(key: string): unknown;
  getMany(keys: readonly string[]): unknown;
  /** Entries in the order of their keys, from this key on. */
  scan(from: string, limit: number): Iterable<unknown>;
}
