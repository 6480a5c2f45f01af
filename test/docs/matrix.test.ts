import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ROOT } from '../support/code-blocks.ts';
import { testNames } from '../support/test-names.ts';

interface Row {
  readonly number: number;
  readonly here: string;
  readonly shown: string;
}

const page = readFileSync(join(ROOT, 'docs', 'matrix.md'), 'utf8');
const rows = [...page.matchAll(/^\| (\d+) \| (.*?) \| (.*) \| (.*?) \|$/gm)].map(
  ([, number, , here = '', shown = '']): Row => ({ number: Number(number), here, shown }),
);

const namesIn = ({ shown }: Row): string[] => [...shown.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name);
const isLater = ({ shown }: Row): boolean => shown.startsWith('later: ');
const differs = ({ shown }: Row): boolean => shown.startsWith('differs on purpose: ');

/** What a row that is not there yet waits for. */
const LATER = ['manager', 'ORM', 'history'];

/** What NanaSQLite has, whole or in part, but for what it has of models. */
const NANA: readonly (number | readonly [number, number])[] = [
  [1, 3],
  [9, 11],
  [13, 19],
  [22, 88],
  [98, 120],
  [126, 127],
  [129, 146],
  [148, 162],
  180,
  [208, 214],
];
const nana = NANA.flatMap((part) =>
  typeof part === 'number' ? [part] : Array.from({ length: part[1] - part[0] + 1 }, (_, i) => part[0] + i),
);

test('every number from 1 to 214 has one row', () => {
  expect(rows.map(({ number }) => number)).toEqual(Array.from({ length: 214 }, (_, i) => i + 1));
});

test('every test that is named exists', () => {
  const known = testNames();
  expect(known.size).toBeGreaterThan(500);
  const named = rows.flatMap((row) => (isLater(row) || differs(row) ? [] : namesIn(row)));
  expect(named.length).toBeGreaterThan(100);
  expect(named.filter((name) => !known.has(name))).toEqual([]);
});

test('every row has a test, or says what it waits for, or why it is otherwise here', () => {
  for (const row of rows) {
    const { number, here, shown } = row;
    if (isLater(row)) expect(LATER, `${number}`).toContain(shown.slice('later: '.length));
    else if (differs(row)) expect(shown, `${number}`).toMatch(/^differs on purpose: [A-Z].{30,}\.$/);
    else expect([number, here === '–', namesIn(row).length > 0]).toEqual([number, false, true]);
  }
});

test('what NanaSQLite has is here, or has a reason not to be', () => {
  const missing = rows.filter((row) => nana.includes(row.number) && isLater(row)).map(({ number }) => number);
  expect(missing).toEqual([]);
});

test('README leads here', () => {
  expect(readFileSync(join(ROOT, 'README.md'), 'utf8')).toContain('(docs/matrix.md)');
});

test('of transactions, SQL and backups nothing is left for later', () => {
  // The log of queries comes with the history, tables from models with the models.
  const left = rows.filter((row) => isLater(row) && row.number >= 117 && row.number <= 169);
  expect(left.map(({ number }) => number)).toEqual([123, 128]);
});
