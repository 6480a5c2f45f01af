import { FrameReader, Kind } from '../../dist/base/frame/index.js';
import { type Batch, type BatchResult, type Store, StoreFailure } from '../../dist/store/store.js';

/** A store of one table in memory, for tests of what stands above a store. `before` holds an apply up, or refuses it. */
export class FakeStore {
  readonly keys: Map<string, string> = new Map();
  appliedSeq = 0;
  /** Runs ahead of the commit, and again between the commit and the answer. */
  before: (step: 'commit' | 'answer', batch: Batch) => Promise<void> = async () => {};

  async apply(batch: Batch): Promise<BatchResult> {
    const { frames, afterSeq, lastSeq } = batch;
    await this.before('commit', batch);
    const before = this.appliedSeq;
    // As the real one: a batch that was committed, and whose answer got lost, is applied once.
    if (before !== afterSeq && before !== lastSeq) throw new StoreFailure('fatal', `at ${before}, not ${afterSeq}`);
    if (before === afterSeq) {
      let seq = afterSeq;
      for (const { bytes } of frames) seq = this.#replay(bytes, seq);
      if (seq !== lastSeq) throw new StoreFailure('fatal', `the frames end with ${seq}, the batch with ${lastSeq}`);
      this.appliedSeq = lastSeq;
    }
    await this.before('answer', batch);
    const applied = lastSeq - afterSeq;
    const queue = { entries: 0, bytes: 0, oldestAt: undefined };
    return {
      applied,
      coalesced: 0,
      superseded: [],
      evicted: [],
      untold: { superseded: 0, evicted: 0 },
      deadSeqs: [],
      dead: [],
      queue,
      durable: true,
      splits: 0,
      durationMs: 0,
    };
  }

  async reopen(): Promise<void> {}

  /** The engine's parts use no more of a store than what is here. */
  get asStore(): Store {
    return this as unknown as Store;
  }

  #replay(bytes: Buffer, after: number): number {
    let last = after;
    const reader = new FrameReader(bytes);
    while (reader.next()) {
      if (reader.seq <= after) continue;
      if (reader.seq !== last + 1) throw new StoreFailure('fatal', `write ${reader.seq} follows write ${last}`);
      last = reader.seq;
      if (reader.kind === Kind.putText) this.keys.set(reader.key, reader.value as string);
      else if (reader.kind === Kind.delete) this.keys.delete(reader.key);
      else this.keys.clear();
    }
    return last;
  }
}
