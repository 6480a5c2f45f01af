import { foldName } from '../base/fold-name.ts';
import { type Frame, type FrameBuilder, FrameReader, Target } from '../base/frame/index.ts';
import { type ReadonlyStage, Stage } from './stage.ts';
import { isEntry, StagedEntries } from './staged-entries.ts';

/** A key-value table as the engine writes to it. One object per table: it remembers where its stage is, while there is one. */
export class TableTarget extends Target {
  override readonly table: string;
  /** The name as it is compared: SQL does not tell the upper from the lower case of ASCII letters. */
  readonly folded: string;
  /** @internal The open generation's stage of this table, while `generation` is the open one. */
  stage: Stage | undefined;
  /** @internal */
  generation: Generation | undefined;
  /** @internal How many entries its stage had before. */
  lastSize = 0;

  constructor(table: string) {
    super(table);
    this.table = table;
    this.folded = foldName(table);
  }
}

/** A generation as reads see it. */
export interface ReadonlyGeneration {
  readonly lastSeq: number;
  stage(foldedTable: string): ReadonlyStage | undefined;
}

/** A sealed generation: nothing can be added any more. */
export interface SealedGeneration extends ReadonlyGeneration {
  readonly writes: number;
  readonly bytes: number;
  /** When its first write was accepted: milliseconds since 1970. */
  readonly since: number;
  readonly frames: readonly Frame[];
}

/** What is staged together, from the moment it opens to the moment its writes are applied. */
export class Generation implements SealedGeneration {
  readonly firstSeq: number;
  lastSeq: number;
  writes = 0;
  bytes = 0;
  /** 0 while there is no write. */
  since = 0;
  readonly #frames: Frame[] = [];
  readonly #entries = new StagedEntries();
  readonly #stages = new Map<string, Stage>();
  readonly #targets: TableTarget[] = [];

  constructor(firstSeq: number) {
    this.firstSeq = firstSeq;
    this.lastSeq = firstSeq - 1;
  }

  get frames(): readonly Frame[] {
    return this.#frames;
  }

  stage(foldedTable: string): Stage | undefined {
    return this.#stages.get(foldedTable);
  }

  /** An entry of the open frame, the last one unless said otherwise, is the newest of its key. */
  set(target: TableTarget, key: string, open: FrameBuilder, entry: number = open.entries - 1): void {
    this.stageFor(target).set(key, this.#entries.placeOf(open, entry));
  }

  /** The open frame is built. */
  addFrame(frame: Frame, entries: number): void {
    this.#frames.push(frame);
    this.#entries.built(frame, entries);
  }

  /** Takes over a frame that was built before; `see` says which of its keys are to be seen. */
  adopt(frame: Frame, see: (reader: FrameReader) => TableTarget | undefined): void {
    const first = this.#entries.next;
    let entries = 0;
    const reader = new FrameReader(frame.bytes);
    while (reader.next()) {
      const table = see(reader);
      if (!isEntry(reader.kind)) continue;
      if (table !== undefined) this.stageFor(table).set(reader.key, first + entries);
      entries++;
    }
    this.addFrame(frame, entries);
  }

  stageFor(target: TableTarget): Stage {
    if (target.generation === this) return target.stage as Stage;
    let stage = this.#stages.get(target.folded);
    if (stage === undefined) {
      // The next one is likely to be as large as the one before it: it need not grow.
      stage = new Stage(this.#entries, target.stage?.size ?? target.lastSize);
      this.#stages.set(target.folded, stage);
    }
    target.generation = this;
    target.stage = stage;
    this.#targets.push(target);
    return stage;
  }

  /** Its writes are applied or dead. A table that nobody writes to any more would keep all of it. */
  release(): void {
    for (const target of this.#targets) {
      if (target.generation !== this) continue;
      target.lastSize = target.stage?.size ?? 0;
      target.generation = target.stage = undefined;
    }
  }
}
