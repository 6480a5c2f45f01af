import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { CASES } from '../../bench/cases/index.ts';
import { filled, PAGES } from '../../bench/pages.ts';
import { newest } from '../../bench/results.ts';
import { ROOT } from '../support/code-blocks.ts';

test.each(Object.entries(PAGES))(
  'the figures of %s are what npm run bench:table makes of the results',
  (page, content) => {
    const results = newest(join(ROOT, 'bench', 'results'));
    const text = readFileSync(join(ROOT, page), 'utf8');
    expect(text).toBe(filled(page, text, content(results)));
  },
);

test('bench/README.md tells of every case', () => {
  const page = readFileSync(join(ROOT, 'bench', 'README.md'), 'utf8');
  expect(CASES.map(({ name }) => name).filter((name) => !page.includes(`| \`${name}\` |`))).toEqual([]);
});
