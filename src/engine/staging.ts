import { type Frame, Kind } from '../base/frame/index.ts';
import { hashOf } from '../base/hash.ts';
import { Generation, type ReadonlyGeneration, type SealedGeneration, TableTarget } from './generation.ts';
import type { Staged } from './stage.ts';

/** What is accepted and not yet applied: one open generation, and the sealed ones that wait for their flush. */
export class Staging {
  open: Generation;
  #sealed: Generation[] = [];
  readonly #recovered = new Map<string, TableTarget>();

  constructor(firstSeq: number) {
    this.open = new Generation(firstSeq);
  }

  /** The newest staged value of a key; `undefined` if staging does not know it. */
  lookup(target: TableTarget, key: string): Staged {
    const { folded } = target;
    const hash = hashOf(key);
    const open = target.generation === this.open ? target.stage : this.open.stage(folded);
    if (open !== undefined) {
      const found = open.get(key, hash);
      if (found !== undefined) return found;
      if (open.cleared) return null;
    }
    for (let i = this.#sealed.length - 1; i >= 0; i--) {
      const stage = (this.#sealed[i] as Generation).stage(folded);
      const found = stage?.get(key, hash);
      if (found !== undefined) return found;
      if (stage?.cleared) return null;
    }
    return undefined;
  }

  /**
   * The generations, oldest first. The last one is open: who reads it later may find newer writes in it, never fewer.
   * (Sealing it instead would make a generation of each write where somebody scans after each write, and every read looks
   * through all of them.)
   */
  all(): readonly ReadonlyGeneration[] {
    return [...this.#sealed, this.open];
  }

  /** When the oldest write was accepted, `undefined` where there is none. */
  get since(): number | undefined {
    return this.oldest?.since ?? (this.open.writes > 0 ? this.open.since : undefined);
  }

  /** The oldest sealed generation. */
  get oldest(): SealedGeneration | undefined {
    return this.#sealed[0];
  }

  /** Begins anew behind `seq`. To be called with nothing staged. */
  restart(seq: number): void {
    this.open = new Generation(seq + 1);
  }

  /** Ends the open generation, which must have writes, and opens the next. */
  seal(): void {
    this.#sealed.push(this.open);
    this.open = new Generation(this.open.lastSeq + 1);
  }

  /** The oldest sealed generations up to `lastSeq`, as many as fit, the first one in any case. */
  batch(lastSeq: number, maxWrites: number, maxBytes: number): readonly SealedGeneration[] {
    const batch: Generation[] = [];
    let writes = 0;
    let bytes = 0;
    for (const generation of this.#sealed) {
      writes += generation.writes;
      bytes += generation.bytes;
      const fits = batch.length === 0 || (writes <= maxWrites && bytes <= maxBytes);
      if (!fits || generation.lastSeq > lastSeq) break;
      batch.push(generation);
    }
    return batch;
  }

  /** Drops the generations up to `seq`; returns them. */
  drop(seq: number): readonly SealedGeneration[] {
    const dropped = this.#sealed.filter((generation) => generation.lastSeq <= seq);
    this.#sealed = this.#sealed.slice(dropped.length);
    for (const generation of dropped) generation.release();
    return dropped;
  }

  clear(table: TableTarget): void {
    this.open.stageFor(table).clear();
  }

  /** Whether a write to the table was found in the log. */
  hasRecovered({ folded }: TableTarget): boolean {
    return [...this.#recovered.values()].some((table) => table.folded === folded);
  }

  /** Stages a frame that recovery has found, but for what is not above `appliedSeq`. */
  adopt(frame: Frame, appliedSeq: number): void {
    this.open.adopt(frame, ({ seq, kind, target }) => {
      if (seq <= appliedSeq || kind > Kind.clear) return undefined;
      const table = this.#recoveredTable(target.table as string);
      if (kind === Kind.clear) this.clear(table);
      return table;
    });
  }

  #recoveredTable(name: string): TableTarget {
    let table = this.#recovered.get(name);
    if (table === undefined) {
      table = new TableTarget(name);
      this.#recovered.set(name, table);
    }
    return table;
  }
}
