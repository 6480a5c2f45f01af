import { readFileSync } from 'node:fs';
import { open } from 'sluicedb';
import { createMetrics } from 'sluicedb/metrics';
import { expect, test } from 'vitest';

const PAGE = readFileSync(new URL('../../docs/metrics.md', import.meta.url), 'utf8');
const ROW = /^\| `(sluice_\w+)` \| (\w+) \| (.*) \| (.+) \|$/gm;

test('docs/metrics.md has each metric with its type, its labels and their values, and what the scrape says of it', async () => {
  const db = await open(':memory:');
  const { registry, close } = createMetrics(db, { db: 'x' });
  const found = await registry.getMetricsAsJSON();
  close();
  await db.close();
  const told = [...PAGE.matchAll(ROW)].map(([, name, type, labels, help]) => ({ name, type, labels, help }));
  const real = found.map(({ name, type, help, values }) => {
    const labels = new Map<string, Set<string>>();
    for (const { labels: pairs } of values) {
      for (const [label, value] of Object.entries(pairs)) {
        if (label !== 'db' && label !== 'le') labels.set(label, (labels.get(label) ?? new Set()).add(String(value)));
      }
    }
    const columns = [...labels].map(([label, all]) =>
      name === 'sluice_build_info' || label === 'code' ? `\`${label}\`` : `\`${label}\`: ${[...all].join(', ')}`,
    );
    return { name, type: String(type), labels: columns.join('; '), help };
  });
  expect(told).toHaveLength(real.length);
  const byName = (a: { name?: string | undefined }, b: { name?: string | undefined }) =>
    (a.name ?? '') < (b.name ?? '') ? -1 : 1;
  expect(told.sort(byName)).toEqual(real.sort(byName));
});
