import { foldName } from '../base/fold-name.ts';
import { type Frame, Target } from '../base/frame/index.ts';

/** A value as it is stored: JSON text, or the bytes of a BLOB. */
export type Encoded = string | Uint8Array;

/** What staging knows of a key: its value, `null` for deleted, `undefined` for nothing. */
export type Staged = Encoded | null | undefined;

/** The staged keys of one table in one generation. */
export class Stage {
  /** Newest value by key, `null` for deleted. */
  readonly keys: Map<string, Encoded | null> = new Map();
  /** Whether the table was cleared in this generation: then older generations and the store say nothing of it. */
  cleared = false;
}

/** A key-value table as the engine writes to it. One object per table: it remembers where its stage is. */
export class TableTarget extends Target {
  override readonly table: string;
  /** The name as it is compared: SQL does not tell the upper from the lower case of ASCII letters. */
  readonly folded: string;
  /** @internal The open generation's stage of this table, while `generation` is the open one. */
  stage: Stage | undefined;
  /** @internal */
  generation: Generation | undefined;

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

export interface ReadonlyStage {
  readonly keys: ReadonlyMap<string, Encoded | null>;
  readonly cleared: boolean;
}

/** One staging map, from the moment it opens to the moment its writes are applied. */
export class Generation implements SealedGeneration {
  readonly firstSeq: number;
  lastSeq: number;
  writes = 0;
  bytes = 0;
  /** 0 while there is no write. */
  since = 0;
  readonly frames: Frame[] = [];
  readonly #stages = new Map<string, Stage>();

  constructor(firstSeq: number) {
    this.firstSeq = firstSeq;
    this.lastSeq = firstSeq - 1;
  }

  stage(foldedTable: string): Stage | undefined {
    return this.#stages.get(foldedTable);
  }

  stageFor(target: TableTarget): Stage {
    if (target.generation === this) return target.stage as Stage;
    let stage = this.#stages.get(target.folded);
    if (stage === undefined) {
      stage = new Stage();
      this.#stages.set(target.folded, stage);
    }
    target.generation = this;
    target.stage = stage;
    return stage;
  }
}
