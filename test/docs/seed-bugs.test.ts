import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { testNames } from '../support/test-names.ts';

const page = readFileSync(new URL('../../docs/seed-bugs.md', import.meta.url), 'utf8');
const rows = new Map(
  [...page.matchAll(/^\| ([\d.]+-\d+) \| (.*) \|$/gm)].map(([, number = '', cells = '']) => [number, cells]),
);

/** What is still being built. */
const TO_COME: readonly string[] = [];

const upTo = (section: string, last: number, first = 1) =>
  Array.from({ length: last - first + 1 }, (_, i) => `${section}-${first + i}`);

test('every weakness of keys, tables, hooks, caches, encryption, SQL, transactions and backups has a row, and one row', () => {
  const numbers = [
    ...upTo('1.2', 4),
    ...upTo('1.3', 6),
    ...upTo('1.5', 3),
    ...upTo('1.6', 8),
    ...upTo('1.7', 1),
    ...upTo('1.10', 2),
    ...upTo('1.11', 7),
    ...upTo('1.12', 3),
    ...upTo('1.13', 3),
    ...upTo('1.14', 1),
    ...upTo('1.15', 2),
    ...upTo('1.16', 34),
  ];
  expect([...rows.keys()]).toEqual(numbers);
  expect(page.match(/^\| \d/gm)).toHaveLength(numbers.length);
});

const all = testNames();

/** `` `integration/table.test.ts › describe › test` ``, as often as a row likes. */
const testsIn = (cells: string) => [...cells.matchAll(/`([^`]*\.test\.ts › [^`]*)`/g)].map(([, name = '']) => name);

test('every row names tests, and each is there under that very name', () => {
  let named = 0;
  for (const [number, cells] of rows) {
    const tests = testsIn(cells);
    for (const name of tests) expect(all, number).toContain(name);
    named += tests.length;
    expect(tests.length === 0 || /\bto come\b/.test(cells), `${number} is yet to come`).toBe(TO_COME.includes(number));
  }
  expect(named).toBeGreaterThan(rows.size);
});

test('every number in the name of a test has its row', () => {
  let found = 0;
  for (const name of all) {
    for (const number of name.match(/\b1\.\d+-\d+/g) ?? []) {
      found++;
      const cells = rows.get(number) ?? '';
      // A row may point to others for its parts.
      if (!/see .*1\.\d+-\d+/.test(cells)) expect(testsIn(cells), number).toContain(name);
    }
  }
  expect(found).toBeGreaterThan(20);
});
