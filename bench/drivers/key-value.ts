import type { EntryOf } from '../workload.ts';

/** A store of keys and values, as a careful user would write to it. */
export interface KeyValueDriver {
  readonly name: string;
  readonly durability: string;
  /** Whether each write waits for the disk: a round has fewer of them then. */
  readonly slow?: boolean;
  open(folder: string): Promise<KeyValueStore>;
}

export interface KeyValueStore {
  /** Makes the writes `from` up to `to`. */
  write(entryOf: EntryOf, from: number, to: number): void | Promise<void>;
  /** Resolves when all writes are as safe as the driver's durability says. */
  acknowledged(): Promise<unknown> | undefined;
  /** Where that is another moment: resolves when all writes are in the database file's own structures. */
  applied?(): Promise<unknown>;
  get(key: string): unknown;
  getMany?(keys: readonly string[]): unknown;
  close(): Promise<unknown> | void;
}
