import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { open } from 'sluicedb';
import { createMetrics } from 'sluicedb/metrics';
import { expect, test } from 'vitest';
import { ALERTS, metricsIn, RECORDINGS } from '../support/rules.ts';

const root = join(import.meta.dirname, '..', '..');
const read = (name: string): string => readFileSync(join(root, name), 'utf8');

const page = read('docs/operating.md');
const runbook = page.split(/^## Runbook$/m)[1] ?? '';
const sections = new Map(
  runbook
    .split(/^### /m)
    .slice(1)
    .map((section) => [section.split('\n', 1)[0] ?? '', section] as const),
);

/** How a heading is linked to. */
const anchor = (heading: string): string => `docs/operating.md#${heading.toLowerCase()}`;

test('every alert has its heading in the runbook and points to it, and every heading has an alert', () => {
  expect(new Set(ALERTS.map(({ alert }) => alert))).toEqual(new Set(sections.keys()));
  expect(ALERTS.length).toBeGreaterThan(15);
  for (const { alert, annotations } of ALERTS) expect(annotations.runbook).toBe(anchor(alert));
});

test('every heading of the runbook says what it means, what to look at and what to do', () => {
  for (const [name, section] of sections) {
    for (const part of ['**What it means.** ', '**Look first.** ', '**What to do.** ']) {
      expect(section.split(part), `${name}: ${part}`).toHaveLength(2);
    }
  }
});

test('every alert has a severity and texts that name the place', () => {
  for (const { alert, labels, annotations } of ALERTS) {
    expect(['critical', 'warning'], alert).toContain(labels.severity);
    expect(annotations.summary, alert).toContain('{{ $labels.instance }}');
    if (alert !== 'SluiceDown') expect(annotations.summary, alert).toContain('{{ $labels.db }}');
    expect(annotations.description, alert).toMatch(/\.$/);
  }
});

test('every metric that rules and runbook speak of is there from the start', async () => {
  const db = await open(':memory:');
  const metrics = createMetrics(db);
  const scraped = await metrics.registry.metrics();
  metrics.close();
  await db.close();
  const there = new Set([...scraped.matchAll(/^(sluice_\w+)/gm)].map(([, name]) => name));
  const exprs = [...ALERTS, ...RECORDINGS].map(({ expr }) => expr).join('\n');
  for (const text of [exprs, page]) {
    const spoken = metricsIn(text);
    expect(spoken.length).toBeGreaterThan(20);
    expect(spoken.filter((name) => !there.has(name))).toEqual([]);
  }
});

test('every series that alerts and runbook take from a recording rule is recorded, and the other way round', () => {
  const recorded = new Set(RECORDINGS.map(({ record }) => record));
  const used = (text: string) => text.match(/\bjob_instance_db:[\w:]+/g) ?? [];
  const spoken = used([...ALERTS.map(({ expr }) => expr), page].join('\n'));
  expect(spoken.filter((name) => !recorded.has(name))).toEqual([]);
  expect(recorded.size).toBe(RECORDINGS.length);
});

test('README and architecture lead here', () => {
  expect(read('README.md')).toContain('(docs/operating.md)');
  expect(read('docs/architecture.md')).toContain('(operating.md)');
});
