import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { open } from 'sluicedb';
import { createMetrics } from 'sluicedb/metrics';
import { beforeAll, describe, expect, test } from 'vitest';
import { DASHBOARD_FILE, type Panel, readDashboard, type Target } from '../support/dashboard.ts';
import { eventually } from '../support/eventually.ts';
import { tempDir } from '../support/temp-dir.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const dashboard = readDashboard();
const panels = dashboard.panels.filter(({ type }) => type !== 'row');
const queries = panels.flatMap((panel) => (panel.targets ?? []).map((target) => ({ panel, target })));

/** Without what all queries have in common, and with a rate for an increase, which differ by a factor only. */
const plain = (expr: string): string =>
  expr
    .replace(/job=~"\$job", instance=~"\$instance"(, db=~"\$db")?(, )?/g, '')
    .replaceAll('{}', '')
    .replaceAll('increase(', 'rate(')
    .replaceAll('[$__rate_interval]', '')
    .replace(/\s+/g, ' ');

const metricsOf = (expr: string): string[] =>
  expr.replace(/\{[^}]*\}/g, '').match(/\b(?:sluice|process|nodejs)_\w+/g) ?? [];

/** The unit that the values of a query are shown in. */
function unitOf({ fieldConfig, transformations }: Panel, { refId }: Target): unknown {
  const renamed = transformations?.find(({ id }) => id === 'organize')?.options['renameByName'];
  const column = (renamed as Record<string, string> | undefined)?.[`Value #${refId}`];
  const override = fieldConfig?.overrides
    .filter(
      ({ matcher }) =>
        (matcher.id === 'byFrameRefID' && matcher.options === refId) ||
        (matcher.id === 'byName' && matcher.options === column),
    )
    .flatMap(({ properties }) => properties)
    .find(({ id }) => id === 'unit');
  return override?.value ?? fieldConfig?.defaults.unit;
}

/** The units that fit an expression, by the names of its metrics and what is done with them. */
function unitsThatFit(expr: string): string[] {
  const text = plain(expr);
  const metric = metricsOf(expr)[0] ?? '';
  const base = metric.replace(/_(bucket|sum|total)$/, '');
  const inSeconds = base.endsWith('_seconds');
  const inBytes = /(^|_)bytes(_|$)/.test(base);
  if (metric.endsWith('_bucket')) return [inSeconds ? 's' : inBytes ? 'bytes' : 'short'];
  // Seconds per second are a share, seconds by how often are seconds.
  if (text.includes(' / ')) return [inSeconds ? 's' : 'percentunit'];
  if (text.includes('rate(') && !expr.includes('increase(')) {
    return inSeconds ? ['percentunit'] : inBytes ? ['binBps'] : ['wps', 'ops'];
  }
  if (inSeconds) return ['s'];
  if (inBytes) return ['bytes'];
  // A number that a word stands for has none.
  return /sum by \(instance, db\) \(1 \*|backpressure_active|recovery_damaged|build_info/.test(text)
    ? ['none']
    : ['short'];
}

describe('the file', () => {
  test('is what the script makes', () => {
    execFileSync('npm', ['run', '-s', 'dashboard', '--', '--check'], { cwd: ROOT, stdio: 'pipe' });
    const changed = join(tempDir(), 'changed.json');
    writeFileSync(changed, readFileSync(DASHBOARD_FILE, 'utf8').replace('"Pending writes"', '"Pending"'));
    const script = join(ROOT, 'build', 'dashboard', 'dashboard.js');
    const checked = spawnSync(process.execPath, [script, '--check', changed], { encoding: 'utf8' });
    expect(checked.status).toBe(1);
    expect(checked.stderr).toContain('npm run dashboard');
  });

  test('is a dashboard of Grafana 11 with an address of its own', () => {
    expect(dashboard.uid).toBe('sluice');
    expect(dashboard.schemaVersion).toBeGreaterThanOrEqual(39);
    const ids = dashboard.panels.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  test('has the rows that an operator goes through', () => {
    expect(dashboard.panels.filter(({ type }) => type === 'row').map(({ title }) => title)).toEqual([
      'Overview',
      'Write path',
      'Log',
      'Flush',
      'SQLite and WAL',
      'Dead letters',
      'Recovery',
      'Process',
    ]);
  });

  test('panels fit in 24 columns and none lies on another', () => {
    const taken = new Map<string, string>();
    for (const { title, gridPos } of dashboard.panels) {
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken.get(`${x},${y}`), title).toBeUndefined();
          taken.set(`${x},${y}`, title);
        }
      }
    }
    // Nor is there a hole between them.
    const bottom = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
    expect(taken.size).toBe(24 * bottom);
  });
});

describe('a panel', () => {
  test('has a title of its own, a description of one to three sentences, a unit and queries', () => {
    expect(new Set(panels.map(({ title }) => title)).size).toBe(panels.length);
    for (const { title, description, fieldConfig, targets } of panels) {
      expect(description, title).toMatch(/^[A-Z"].*\.$/);
      expect(description?.match(/\.(\s|$)/g)?.length, title).toBeLessThanOrEqual(3);
      expect(fieldConfig?.defaults.unit, title).toBeTypeOf('string');
      expect(targets?.length, title).toBeGreaterThan(0);
    }
  });

  test('takes its data from the data source that was chosen', () => {
    const sources = [...panels, ...queries.map(({ target }) => target), ...dashboard.annotations.list];
    for (const { datasource } of sources) {
      expect(datasource).toEqual({ type: 'prometheus', uid: `\${datasource}` });
    }
  });

  test('shows nothing that another one shows', () => {
    const seen = new Map<string, string>();
    for (const { panel, target } of queries) {
      const expr = plain(target.expr);
      expect(seen.get(expr), `${panel.title}: ${expr}`).toBeUndefined();
      seen.set(expr, panel.title);
    }
  });

  test('shows each query in the unit of what it asks for', () => {
    for (const { panel, target } of queries) {
      expect(unitsThatFit(target.expr), `${panel.title}: ${target.expr}`).toContain(unitOf(panel, target));
    }
  });

  test('names its curves by what tells them apart', () => {
    for (const { panel, target } of queries.filter(({ panel: { type } }) => type === 'timeseries')) {
      const { expr, legendFormat = '' } = target;
      const summed = /^(?:sum|max)(?: by \(([^)]*)\))? ?\(/.exec(expr);
      const labels = expr.includes('histogram_quantile')
        ? ['instance', 'db']
        : summed
          ? (summed[1]?.split(', ') ?? [])
          : expr.includes('sluice_')
            ? ['instance', 'db']
            : ['instance'];
      expect([...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map((match) => match[1]).sort(), panel.title).toEqual(
        [...labels].sort(),
      );
      expect(legendFormat, panel.title).not.toBe('');
    }
  });

  test('is held to what the template variables choose', () => {
    for (const { panel, target } of queries) {
      for (const [, metric = '', matchers] of target.expr.matchAll(/\b((?:sluice|process|nodejs)_\w+)(\{[^}]*\})?/g)) {
        const all = metric.startsWith('sluice_') ? ', db=~"$db"' : '';
        expect(matchers, panel.title).toContain(`{job=~"$job", instance=~"$instance"${all}`);
      }
    }
  });
});

test('all variables that are used exist, and all that exist are used', () => {
  const names = dashboard.templating.list.map(({ name }) => name);
  expect(names).toEqual(['datasource', 'job', 'instance', 'db']);
  const used = [...JSON.stringify(dashboard).matchAll(/\$\{?([a-z]\w*)/g)].map((match) => match[1]);
  expect([...new Set(used)].sort()).toEqual([...names].sort());
});

/** What is not on the dashboard, and why. */
const LEFT_OUT: Readonly<Record<string, string>> = {
  sluice_last_applied_seq: 'how far it is behind is the number of pending writes',
  sluice_log_segments_deleted_total: 'the size of the log and its number of files show that it shrinks',
  nodejs_active_handles: 'what the application has open; for its developer',
  nodejs_active_requests: 'what the application has under way; for its developer',
  nodejs_active_resources: 'what the application has open; for its developer',
  nodejs_eventloop_lag_seconds: 'one timer of the moment; the mean says more',
  nodejs_eventloop_lag_max_seconds: 'p99 says enough',
  nodejs_eventloop_lag_min_seconds: 'p99 says enough',
  nodejs_eventloop_lag_p50_seconds: 'the mean says enough',
  nodejs_eventloop_lag_p90_seconds: 'p99 says enough',
  nodejs_eventloop_lag_stddev_seconds: 'p99 says enough',
  nodejs_external_memory_bytes: 'a part of the resident memory',
  nodejs_heap_size_total_bytes: 'a part of the resident memory',
  nodejs_heap_space_size_available_bytes: 'for its developer',
  nodejs_heap_space_size_total_bytes: 'for its developer',
  nodejs_heap_space_size_used_bytes: 'for its developer',
  nodejs_version_info: 'does not change while one looks',
  process_cpu_system_seconds_total: 'a part of process_cpu_seconds_total',
  process_cpu_user_seconds_total: 'a part of process_cpu_seconds_total',
  process_heap_bytes: 'a part of the resident memory',
  process_virtual_memory_bytes: 'says nothing about memory that is used',
};

describe('against a live database', () => {
  /** Type by name. */
  const families = new Map<string, string>();
  /** Without values. */
  let series: string[] = [];

  beforeAll(async () => {
    const db = await open(':memory:');
    const metrics = createMetrics(db, { processMetrics: true });
    await db.aset('key', 1);
    await db.adrain();
    // The garbage collector has series only for what it has done.
    setFlagsFromString('--expose-gc');
    (runInNewContext('gc') as () => void)();
    let text = '';
    await eventually(async () => {
      text = await metrics.registry.metrics();
      return text.includes('nodejs_gc_duration_seconds_sum{');
    }, 'the garbage collection is seen');
    metrics.close();
    await db.close();
    for (const [, name = '', type = ''] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm)) families.set(name, type);
    series = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    expect(families.size).toBeGreaterThan(60);
  });

  const familyOf = (name: string): string => (families.has(name) ? name : name.replace(/_(bucket|sum|count)$/, ''));

  test('each metric of each query exists, and is used as what it is', () => {
    for (const { expr, where } of [
      ...queries.map(({ panel, target }) => ({ expr: target.expr, where: panel.title })),
      ...dashboard.annotations.list.map(({ expr, name }) => ({ expr, where: name })),
    ]) {
      for (const [before, name = ''] of expr.matchAll(/(?:(?:rate|increase)\()?\b((?:sluice|process|nodejs)_\w+)\{/g)) {
        const type = families.get(familyOf(name));
        expect(type, `${where}: ${name}`).toBeDefined();
        // A counter says something by how fast it goes up. What was recovered was counted once, at the open.
        const counts = type !== 'gauge' && name !== 'sluice_writes_recovered_total';
        expect(/^(rate|increase)\(/.test(before), `${where}: ${name}`).toBe(counts);
        if (type === 'histogram') expect(name, where).toMatch(/_(bucket|sum|count)$/);
      }
    }
  });

  test('each label that a query names exists', () => {
    const values = queries.flatMap(({ target: { expr } }) =>
      [...expr.matchAll(/(\w+)\{[^}]*, (\w+)="([^"]*)"\}/g)].map(([, name, label, value]) => ({ name, label, value })),
    );
    expect(values.length).toBeGreaterThan(0);
    for (const { name, label, value } of values) {
      const found = series.some((line) => line.startsWith(`${name}{`) && line.includes(`${label}="${value}"`));
      expect(found, `${name} ${label} ${value}`).toBe(true);
    }
    // And the other way round: no value of these labels has no word.
    for (const name of new Set(values.map((value) => value.name))) {
      expect(values.filter((value) => value.name === name)).toHaveLength(
        series.filter((line) => line.startsWith(`${name}{`)).length,
      );
    }
    for (const { panel, target } of queries) {
      const labels = [...target.expr.matchAll(/by \(([^)]*)\)/g)].flatMap((match) => match[1]?.split(', ') ?? []);
      for (const label of labels.filter((one) => one !== 'instance')) {
        const names = metricsOf(target.expr);
        const found = series.some(
          (line) => names.some((name) => line.startsWith(`${name}{`)) && line.includes(`${label}="`),
        );
        expect(found, `${panel.title}: ${label}`).toBe(true);
      }
    }
  });

  test('each metric is on the dashboard, or left out for a reason', () => {
    const shown = new Set(
      [...queries.map(({ target }) => target.expr), ...dashboard.annotations.list.map(({ expr }) => expr)].flatMap(
        (expr) => metricsOf(expr).map(familyOf),
      ),
    );
    const missing = [...families.keys()].filter((name) => !shown.has(name));
    expect(missing.sort()).toEqual(Object.keys(LEFT_OUT).sort());
  });
});
