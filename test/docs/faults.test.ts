import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '..', '..');

function numbersIn(text: string, pattern: RegExp): Set<number> {
  return new Set([...text.matchAll(pattern)].flatMap(([, numbers = '']) => numbers.split(/\D+/).map(Number)));
}

test('every fault that docs/faults.md lists has a test with its number in the name, and the other way round', () => {
  const listed = numbersIn(readFileSync(join(root, 'docs', 'faults.md'), 'utf8'), /^\| (\d+)\. /gm);
  expect([...listed].sort((a, b) => a - b)).toEqual(Array.from({ length: 72 }, (_, i) => i + 1));
  const tests = readdirSync(join(root, 'test'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.test.ts') && !name.startsWith('docs'))
    .map((name) => readFileSync(join(root, 'test', name), 'utf8'))
    .join('\n');
  const named = numbersIn(tests, /\[faults? ([\d, and]+)\]/g);
  expect([...listed].filter((number) => !named.has(number))).toEqual([]);
  expect([...named].filter((number) => !listed.has(number))).toEqual([]);
});
