/** Writes the newest results into the pages that show them. Usage: npm run bench:table */
import { readFileSync, writeFileSync } from 'node:fs';
import { filled, PAGES } from './pages.ts';
import { newest } from './results.ts';

const results = newest('bench/results');
for (const [page, content] of Object.entries(PAGES)) {
  writeFileSync(page, filled(page, readFileSync(page, 'utf8'), content(results)));
}
