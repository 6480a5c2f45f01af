/** What a measurement is: cases, who takes part in them, and what a round of them measures. */

/** Every figure there is, with its heading in a table. */
export const FIGURES = {
  writes: 'writes',
  acknowledgedPerSecond: 'acknowledged/s',
  appliedPerSecond: 'applied/s',
  operationsPerSecond: 'operations/s',
  getPerSecond: 'get, keys/s',
  getManyPerSecond: 'getMany, keys/s',
  rangePerSecond: 'ranges, entries/s',
  shortPerSecond: 'ranges of ten, ranges/s',
  wholePerSecond: 'everything, entries/s',
  recoveredPerSecond: 'recovered/s',
  p50Us: 'p50, µs',
  p99Us: 'p99, µs',
  cpuUsEach: 'CPU µs each',
  delayP99Ms: 'event loop p99, ms',
  delayMaxMs: 'event loop max, ms',
  peakRssMiB: 'peak RSS, MiB',
  rows: 'rows',
  usPerWrite: 'µs/write',
} as const;

export type Figure = keyof typeof FIGURES;

/** What a round has measured. */
export type Figures = Readonly<Partial<Record<Figure, number>>>;

/** What outlives a power cut of what was acknowledged; in a case that only reads there is nothing to lose. */
export type Durability =
  | 'on disk, in SQLite'
  | 'on disk'
  | 'on disk within 0.2 s'
  | 'with the system'
  | 'in memory'
  | 'only read';

/** Measures once, in a folder that is empty at first and deleted afterwards. */
export type Round = (scratch: string) => Promise<Figures>;

/** Who takes part in a case, in a process of its own. */
export interface Contestant {
  readonly name: string;
  readonly durability: Durability;
  /** Makes what all rounds work on, in a folder that is there until the last of them is over. */
  start(folder: string): Promise<Round>;
}

export interface Case {
  readonly name: string;
  readonly title: string;
  /** How many rounds count. One before them warms up. */
  readonly rounds: number;
  /** No round warms up: a process is measured from its beginning, or runs for so long that its beginning does not matter. */
  readonly cold?: boolean;
  readonly contestants: readonly Contestant[];
}
