import { foldName } from '../base/fold-name.ts';
import type { SqlValue } from '../base/frame/index.ts';
import { hashOf } from '../base/hash.ts';
import type { Encoded, ReadonlyGeneration } from '../engine/index.ts';
import { expiryTableOf } from '../store/expiry-table.ts';
import type { CountOverlay, Entry, KeyRange } from '../store/store.ts';
import { hasExpired } from './expiry.ts';
import { compareKeys, inRange } from './keys.ts';

/** What the generations above a watermark say of a table, put over what the store says. */
export interface Overlay {
  /** Newest staged value by key, `null` for deleted or expired. */
  readonly keys: ReadonlyMap<string, Encoded | null>;
  /** The table was cleared: the store's own entries do not count. */
  readonly cleared: boolean;
}

export function overlayOf(
  generations: readonly ReadonlyGeneration[],
  appliedSeq: number,
  table: string,
  range: KeyRange = {},
): Overlay {
  const keys = new Map<string, Encoded | null>();
  const { liveAt } = range;
  const expiries = liveAt === undefined ? undefined : foldName(expiryTableOf(table));
  let cleared = false;
  for (const generation of generations) {
    if (generation.lastSeq <= appliedSeq) continue;
    const stage = generation.stage(foldName(table));
    if (stage === undefined) continue;
    if (stage.cleared) {
      keys.clear();
      cleared = true;
    }
    // A moment is staged in one write with its value, and so in the same generation.
    const moments = expiries === undefined ? undefined : generation.stage(expiries);
    for (let entry = 0; entry < stage.size; entry++) {
      const key = stage.keyAt(entry);
      if (!inRange(key, range)) continue;
      const expired = moments !== undefined && hasExpired(moments.get(key, hashOf(key)), liveAt as number);
      keys.set(key, expired ? null : stage.valueAt(entry));
    }
  }
  return { keys, cleared };
}

export function countOverlay({ keys, cleared }: Overlay, liveAt: number | undefined): CountOverlay {
  const present: string[] = [];
  const absent: string[] = [];
  for (const [key, value] of keys) (value === null ? absent : present).push(key);
  return { cleared, present, absent, liveAt };
}

/** Merges an overlay into the store's entries, page by page, in key order. */
export class Merger {
  readonly #overlay: Overlay;
  readonly #order: (a: string, b: string) => number;
  readonly #staged: readonly string[];
  #position = 0;

  constructor(overlay: Overlay, reverse: boolean) {
    this.#overlay = overlay;
    this.#order = reverse ? (a, b) => compareKeys(b, a) : compareKeys;
    this.#staged = [...overlay.keys.keys()].sort(this.#order);
  }

  /** The merged entries up to the end of `page`; with `isLast`, all that is left. */
  merge(page: readonly Entry[], isLast: boolean): Entry[] {
    const merged: Entry[] = [];
    for (const entry of page) {
      this.#takeStaged(merged, (key) => this.#order(key, entry[0]) <= 0);
      if (!this.#overlay.cleared && !this.#overlay.keys.has(entry[0])) merged.push(entry);
    }
    if (isLast) this.#takeStaged(merged, () => true);
    return merged;
  }

  #takeStaged(merged: Entry[], accept: (key: string) => boolean): void {
    for (; this.#position < this.#staged.length; this.#position++) {
      const key = this.#staged[this.#position] as string;
      if (!accept(key)) return;
      const value = this.#overlay.keys.get(key) as SqlValue;
      if (value !== null) merged.push([key, value]);
    }
  }
}
