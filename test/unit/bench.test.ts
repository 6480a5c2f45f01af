import { describe, expect, test } from 'vitest';
import { ALL_CASES, CASES } from '../../bench/cases/index.ts';
import type { Figures } from '../../bench/contest.ts';
import { GOALS, type Goal } from '../../bench/goals.ts';
import { filled } from '../../bench/pages.ts';
import { goalsTable } from '../../bench/report.ts';
import { assess, median, type Result, spreadOf } from '../../bench/summary.ts';
import { hotKeys, strings, uniqueObjects } from '../../bench/workload.ts';

test('a median is the middle, or lies between the two in the middle', () => {
  expect(median([9, 1, 5])).toBe(5);
  expect(median([10, 1, 9, 2])).toBe(5.5);
  expect(median([7])).toBe(7);
  expect(() => median([])).toThrow('nothing was measured');
  expect(spreadOf([3, 1, 2])).toEqual({ median: 2, least: 1, most: 3 });
});

function result(contestant: string, rounds: readonly Figures[], name = 'race'): Result {
  return { case: name, title: 'a race', contestant, durability: 'on disk', rounds };
}

const perSecond = (...figures: number[]): Figures[] => figures.map((each) => ({ acknowledgedPerSecond: each }));
const us = (...figures: number[]): Figures[] => figures.map((each) => ({ p50Us: each }));

describe('a goal', () => {
  const faster: Goal = {
    what: 'speed',
    against: 'the better of two',
    pairs: [{ case: 'race', figure: 'acknowledgedPerSecond', ours: 'we', theirs: ['a', 'b'] }],
    bound: { atLeast: 1.5 },
  };

  test('is a ratio to the best of the same round, not to the best of all', () => {
    const results = [
      result('we', perSecond(100, 200, 300)),
      result('a', perSecond(50, 50, 50)),
      result('b', perSecond(10, 100, 75)),
    ];
    // 100/50, 200/100, 300/75
    expect(assess(faster, results)).toMatchObject({ measured: { median: 2, least: 2, most: 4 }, met: true });
  });

  test('takes the least time for the best where little is good', () => {
    const goal: Goal = {
      what: 'time',
      against: 'the better of two',
      pairs: [{ case: 'race', figure: 'p50Us', ours: 'we', theirs: ['a', 'b'] }],
      bound: { atMost: 1.5 },
    };
    const results = [result('we', us(160, 160)), result('a', us(100, 200)), result('b', us(200, 100))];
    expect(assess(goal, results)).toMatchObject({ measured: { median: 1.6 }, met: false });
  });

  test('tells the pair that is farthest from it', () => {
    const pair = (name: string) => ({ ...faster.pairs[0], case: name, theirs: ['a'] }) as Goal['pairs'][number];
    const results = ['one', 'two', 'three'].flatMap((name, i) => [
      result('we', perSecond([30, 10, 20][i] as number), name),
      result('a', perSecond(10), name),
    ]);
    const assessed = assess({ ...faster, pairs: ['one', 'two', 'three'].map(pair) }, results);
    expect(assessed).toMatchObject({ pair: { case: 'two' }, measured: { median: 1 }, met: false });
  });

  test('without anybody beside us is the figure itself', () => {
    const goal: Goal = { ...faster, pairs: [{ ...faster.pairs[0], theirs: [] } as never], bound: { below: 10 } };
    expect(assess(goal, [result('we', perSecond(10))])).toMatchObject({ measured: { median: 10 }, met: false });
    expect(assess(goal, [result('we', perSecond(9.9))])).toMatchObject({ met: true });
  });

  test('is left open where something was not measured, and a missing figure is an error', () => {
    expect(assess(faster, [result('we', perSecond(1)), result('a', perSecond(1))])).toBeUndefined();
    const results = [result('we', perSecond(1, 2)), result('a', perSecond(1)), result('b', perSecond(1))];
    expect(() => assess(faster, results)).toThrow('race, a: no acknowledgedPerSecond in round 2');
  });

  test('names only cases and contestants that there are', () => {
    const there = CASES.flatMap(({ name, contestants }) => contestants.map((each) => `${name}: ${each.name}`));
    const named = GOALS.flatMap(({ pairs }) =>
      pairs.flatMap((pair) => [pair.ours, ...pair.theirs].map((who) => `${pair.case}: ${who}`)),
    );
    expect(named.length).toBeGreaterThan(20);
    expect(named.filter((each) => !there.includes(each))).toEqual([]);
  });
});

test('what nobody has measured makes no table', () => {
  expect(goalsTable([])).toBe('');
});

test('a contestant is named once in a case', () => {
  for (const { contestants } of ALL_CASES) {
    const names = contestants.map(({ name }) => name);
    expect(names).toEqual([...new Set(names)]);
  }
});

test('a workload writes as many different keys as it says, and the first writes all have different ones', () => {
  for (const workload of [uniqueObjects(5_000), strings(5_000, 100), hotKeys(5_000, 100)]) {
    const keys = Array.from({ length: workload.writes }, (_, i) => workload.entryOf(i)[0]);
    expect(new Set(keys).size).toBe(workload.distinct);
    expect(new Set(keys.slice(0, workload.distinct)).size).toBe(workload.distinct);
  }
  expect(strings(5_000, 4_096).entryOf(3)[1]).toHaveLength(4_096);
});

test('results go between the markers of a page, and nowhere else', () => {
  const page = 'before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n';
  const made = filled('x.md', page, 'new');
  expect(made).toBe('before\n<!-- bench:begin -->\nnew\n<!-- bench:end -->\nafter\n');
  expect(filled('x.md', made, 'new')).toBe(made);
  expect(() => filled('x.md', 'nothing', 'new')).toThrow('x.md has no place for results');
});
