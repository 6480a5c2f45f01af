/** The arithmetic: medians, ratios round by round, and whether they reach a goal. */
import type { Durability, Figure, Figures } from './contest.ts';
import type { Bound, Goal, Pair } from './goals.ts';

/** What one contestant of a case has measured. */
export interface Result {
  readonly case: string;
  readonly title: string;
  readonly contestant: string;
  readonly durability: Durability;
  /** The same place is the same round for every contestant of the case. */
  readonly rounds: readonly Figures[];
}

export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const [a, b] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  if (a === undefined || b === undefined) throw new Error('nothing was measured');
  return (a + b) / 2;
}

export function spreadOf(values: readonly number[]): Spread {
  return { median: median(values), least: Math.min(...values), most: Math.max(...values) };
}

export interface Assessment {
  readonly goal: Goal;
  /** The pair that is farthest from the goal. */
  readonly pair: Pair;
  readonly measured: Spread;
  /** Nothing where there is no bound. */
  readonly met: boolean | undefined;
  /** Ours, and theirs. */
  readonly durability: readonly Durability[];
}

/** What became of a goal, or nothing where not all that it asks for was measured. */
export function assess(goal: Goal, results: readonly Result[]): Assessment | undefined {
  const { bound } = goal;
  const smallIsGood = bound !== undefined && !('atLeast' in bound);
  const pairs: Omit<Assessment, 'goal' | 'met'>[] = [];
  for (const pair of goal.pairs) {
    const of = (name: string) => results.find((each) => each.case === pair.case && each.contestant === name);
    const ours = of(pair.ours);
    const theirs = pair.theirs.map(of).filter((each) => each !== undefined);
    if (ours === undefined || theirs.length < pair.theirs.length) return undefined;
    const measured = spreadOf(ratios(ours, theirs, pair.figure, smallIsGood ? Math.min : Math.max));
    const durability = [...new Set([ours, ...theirs].map((each) => each.durability))];
    pairs.push({ pair, measured, durability });
  }
  pairs.sort((a, b) => (a.measured.median - b.measured.median) * (smallIsGood ? -1 : 1));
  const [worst] = pairs;
  if (worst === undefined) throw new Error(`${goal.what}: nothing to compare`);
  return { goal, ...worst, met: bound && isWithin(worst.measured.median, bound) };
}

/** Our figure by that of the best of them, round by round; the figure itself where there are none. */
function ratios(
  ours: Result,
  theirs: readonly Result[],
  figure: Figure,
  best: (...values: number[]) => number,
): readonly number[] {
  return ours.rounds.map((_, round) => {
    const value = figureOf(ours, round, figure);
    return theirs.length === 0 ? value : value / best(...theirs.map((each) => figureOf(each, round, figure)));
  });
}

function figureOf(result: Result, round: number, figure: Figure): number {
  const value = result.rounds[round]?.[figure];
  if (value === undefined) throw new Error(`${result.case}, ${result.contestant}: no ${figure} in round ${round + 1}`);
  return value;
}

export function isWithin(value: number, bound: Bound): boolean {
  if ('atLeast' in bound) return value >= bound.atLeast;
  return 'atMost' in bound ? value <= bound.atMost : value < bound.below;
}
