import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { testNames, testsNamedIn } from '../support/test-names.ts';

const page = readFileSync(new URL('../../docs/seed-bugs.md', import.meta.url), 'utf8');
const rows = new Map(
  [...page.matchAll(/^\| ([\d.]+-\d+) \| (.*) \|$/gm)].map(([, number = '', cells = '']) => [number, cells]),
);

/** What is still being built. */
const TO_COME: readonly string[] = [
  '1.5-1',
  '1.5-2',
  '1.5-3',
  '1.6-3',
  '1.10-1',
  '1.12-1',
  '1.12-2',
  '1.12-3',
  '1.16-14',
  '1.16-15',
  '1.16-16',
  '1.16-18',
  '1.16-19',
  '1.16-20',
  '1.16-21',
  '1.16-22',
  '1.16-23',
];

const upTo = (section: string, last: number, first = 1) =>
  Array.from({ length: last - first + 1 }, (_, i) => `${section}-${first + i}`);

test('every weakness of keys, tables, hooks, caches and encryption has a row, and one row', () => {
  const numbers = [
    ...upTo('1.2', 4),
    ...upTo('1.3', 6),
    ...upTo('1.5', 3),
    ...upTo('1.6', 6),
    ...upTo('1.7', 1),
    ...upTo('1.10', 2),
    ...upTo('1.11', 7),
    ...upTo('1.12', 3),
    ...upTo('1.16', 23),
    ...upTo('1.16', 34, 33),
  ];
  expect([...rows.keys()]).toEqual(numbers);
  expect(page.match(/^\| \d/gm)).toHaveLength(numbers.length);
});

test('every row names tests, and each is there under that very name', () => {
  let named = 0;
  for (const [number, cells] of rows) {
    const tests = testsNamedIn(cells);
    for (const { file, name } of tests)
      expect([...testNames(file)], `${number} names a test of ${file}`).toContain(name);
    named += tests.length;
    expect(tests.length === 0 || /\bto come\b/.test(cells), `${number} is yet to come`).toBe(TO_COME.includes(number));
  }
  expect(named).toBeGreaterThan(rows.size);
});

test('every number in the name of a test has its row', () => {
  for (const file of ['test/integration/seed-bugs.test.ts', 'test/crash/large-group.test.ts']) {
    for (const name of testNames(file)) {
      for (const number of name.match(/\b1\.\d+-\d+/g) ?? []) {
        const named = testsNamedIn(rows.get(number) ?? '').map((one) => one.name);
        // A row may point to others for its parts.
        expect(rows.has(number), `${name}: ${number}`).toBe(true);
        if (!/see .*1\.\d+-\d+/.test(rows.get(number) ?? '')) expect(named, number).toContain(name);
      }
    }
  }
});
