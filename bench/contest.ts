/** What a measurement is: cases, and who takes part in them. */

/** What a round has measured, each with its unit last in its name. */
export type Figures = Readonly<Record<string, number>>;

/** Somebody who takes part in a case, in a process of its own. */
export interface Contestant {
  readonly name: string;
  /** When what it acknowledges is safe. */
  readonly durability: string;
  /** Makes what all rounds work on, and returns what a round does. Each is given a folder of its own, empty at first. */
  start(folder: string): Promise<() => Promise<Figures>>;
}

export interface Case {
  readonly name: string;
  readonly title: string;
  /** One more warms up and does not count. */
  readonly rounds?: number;
  /** Whether a round before those that count would only cost time: where a process is measured from its beginning. */
  readonly cold?: boolean;
  readonly contestants: readonly Contestant[];
}

/** A goal: a ratio of two figures of one case, round by round. */
export interface Goal {
  readonly what: string;
  readonly against: string;
  readonly case: string;
  readonly ours: readonly [contestant: string, figure: string];
  /** Of several, the one that does best in the round. */
  readonly theirs: readonly (readonly [contestant: string, figure: string])[];
  readonly atLeast?: number;
  readonly atMost?: number;
}
