import { readFileSync } from 'node:fs';
import { ERROR_CODES } from 'sluicedb';
import { expect, test } from 'vitest';

const page = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');
const sections = page.split(/^## /m).slice(1);

test('docs/errors.md has one heading per code, in the order of the list', () => {
  expect(sections.map((section) => section.split('\n')[0])).toEqual([...ERROR_CODES]);
});

test('each section says what happened, what Sluice did and what to do', () => {
  for (const section of sections) {
    for (const part of ['**What happened.** ', '**What Sluice did.** ', '**What to do.** ']) {
      expect(section.split(part), section).toHaveLength(2);
    }
  }
});
