import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { open } from 'sluicedb';
import { metricsHandler } from 'sluicedb/metrics';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { serve } from '../support/cli.ts';
import { fillVariables, readDashboard } from '../support/dashboard.ts';
import { eventually } from '../support/eventually.ts';
import { ask, post, sqlUrl } from '../support/http.ts';
import { type Labels, Prometheus, promtool, whyNoPrometheus } from '../support/prometheus.ts';
import { ALERTS, GROUPS, MONITORING, RECORDINGS } from '../support/rules.ts';
import { tempDir } from '../support/temp-dir.ts';
import { exprLapse, timeLapse, withoutFilters } from '../support/time-lapse.ts';
import { diskTroubles, Troubles } from '../support/troubles.ts';

const FOLDER = join(MONITORING, 'prometheus');
const RULES = readdirSync(join(FOLDER, 'rules')).map((name) => join('rules', name));
const TOKEN = 'correct-horse-battery';

/** An hour of the rules is a minute here. What they say at their real pace is tested by `promtool test rules`. */
const FACTOR = 60;
/** What 5 minutes are. */
const WINDOW = '5s';

const missing = whyNoPrometheus();
if (missing !== undefined) console.log(`Prometheus is not tried: ${missing}`);

/** A machine of CI that cannot try it has to say so. */
const here = missing === undefined || process.env['CI'] !== undefined;

test('durations are divided wherever Prometheus reads one, and nowhere else', () => {
  const yaml = `
    global: { scrape_interval: 15s }
    groups:
      - rules:
          - record: a:b:rate5m
            expr: rate(x{for="5m"}[5m] offset 1h) + max_over_time(y[1h:15s]) > 3 * 60
          - alert: A
            expr: up == 0
            for: 1m
            annotations: { description: within 15m, name: 15 }`;
  expect(timeLapse(yaml, 60)).toBe(
    [
      'global:',
      '  scrape_interval: 250ms',
      'groups:',
      '  - rules:',
      '      - record: a:b:rate5m',
      '        expr: rate(x{for="5m"}[5000ms] offset 60000ms) + max_over_time(y[60000ms:250ms]) > 3 * 60',
      '      - alert: A',
      '        expr: up == 0',
      '        for: 1000ms',
      '        annotations:',
      '          description: within 15m',
      '          name: 15',
      '',
    ].join('\n'),
  );
  expect(() => timeLapse('for: 10ms', 60)).toThrow('10ms cannot be divided by 60');
});

test('filters become values', () => {
  expect(withoutFilters('a{x!="1", y=~"<>"} >= 3 and b == 0 or c != 1')).toBe(
    'a{x!="1", y=~"<>"} >= bool 3 and b == bool 0 or c != bool 1',
  );
});

test.runIf(here)('promtool finds nothing wrong with the configuration, and each alert fires and does not', () => {
  expect(missing).toBeUndefined();
  // As it is, but with the token that everybody has to bring.
  const copy = tempDir();
  cpSync(FOLDER, copy, { recursive: true });
  writeFileSync(join(copy, 'token'), TOKEN);
  const config = promtool(['check', 'config', '--lint=all', '--lint-fatal', 'prometheus.yml'], { cwd: copy });
  expect(config.output).toContain('prometheus.yml is valid prometheus config file');
  expect(config.output).not.toMatch(/WARN|FAILED|lint error/i);
  expect(config.status).toBe(0);
  const rules = promtool(['check', 'rules', '--lint=all', '--lint-fatal', ...RULES], { cwd: FOLDER });
  expect(rules.output).not.toMatch(/WARN|FAILED|lint error/i);
  expect(rules.status).toBe(0);
  const tests = readdirSync(join(FOLDER, 'tests')).map((name) => join('tests', name));
  const tested = promtool(['test', 'rules', ...tests], { cwd: FOLDER });
  expect(tested.output).not.toContain('FAILED');
  expect(tested.status).toBe(0);
  // What is not listed there is evaluated in any order.
  const { group_eval_order } = parse(readFileSync(join(FOLDER, 'tests', 'alerts.test.yml'), 'utf8')) as {
    group_eval_order: string[];
  };
  expect(group_eval_order).toEqual(GROUPS);
  // Each of them both ways, or the test of the tests proves little.
  const written = tests.map((name) => readFileSync(join(FOLDER, name), 'utf8')).join('\n');
  for (const { alert } of ALERTS) {
    const [quiet, firing] = [/ {8}exp_alerts: \[\]/, / {8}exp_alerts:\n/].map((how) =>
      new RegExp(`alertname: ${alert}\\n.*\\n${how.source}`).test(written),
    );
    expect({ alert, quiet, firing }).toEqual({ alert, quiet: true, firing: true });
  }
});

/** Alerts that are seen firing here, with the labels that say where. */
const FIRES: readonly (readonly [alert: string, where: Labels])[] = [
  ['SluiceDown', { instance: 'gone' }],
  ['SluiceFailed', { db: 'failed' }],
  ['SluiceNoSpace', { db: 'full' }],
  ['SluiceDeadLettersEvicted', { db: 'poisoned' }],
  ['SluiceDeadLettersNearlyFull', { db: 'poisoned' }],
  ['SluiceDeadLettersOld', { db: 'imported' }],
  ['SluiceWritesRefused', { db: 'locked', reason: 'full' }],
  ['SluiceWritesRefused', { db: 'locked', reason: 'timeout' }],
  ['SluiceLogNearlyFull', { db: 'locked' }],
  ['SluiceFlushLagging', { db: 'locked' }],
  ['SluiceFlushStalled', { db: 'locked', reason: 'transient' }],
  ['SluiceLogErrors', { db: 'full', op: 'write', class: 'space' }],
  ['SluiceSyncSlow', { db: 'slow' }],
  ['SluiceFlushSaturated', { db: 'busy' }],
  ['SluiceLogDamaged', { db: 'damaged' }],
  ['SluiceLogSetAside', { db: 'foreign' }],
  ['SluiceWriterRestarted', { db: 'mortal', reason: 'death' }],
  ['SluiceWriterRestartingOften', { db: 'mortal' }],
  ['SluiceDiskFullSoon', { db: 'full', severity: 'warning' }],
  ['SluiceDiskFullSoon', { db: 'full', severity: 'critical' }],
  ['SluiceWalGrowing', { db: 'pinned' }],
];

/** Alerts that are not made to fire for real, and why. */
const QUIET: Readonly<Record<string, string>> = {
  SluiceWritesUnaccounted: 'it would take a bug in Sluice',
};

/** What a crowded test machine can make come true of a database that is well. */
const NOISE = /^Sluice(Down|DiskFullSoon|FlushLagging|FlushSaturated|SyncSlow)$/;

test('no alert is forgotten: each is made to fire, or there is a reason', () => {
  const known = new Set([...FIRES.map(([alert]) => alert), ...Object.keys(QUIET)]);
  expect(known).toEqual(new Set(ALERTS.map(({ alert }) => alert)));
});

/** What Grafana asks for: panels, the lists to choose from, and the marks. */
function dashboardQueries(): string[] {
  const { panels, templating, annotations } = readDashboard();
  const asked = panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
  const lists = templating.list.flatMap(({ query }) => /^label_values\((.*), \w+\)$/.exec(query)?.[1] ?? []);
  expect(asked.length).toBeGreaterThan(50);
  expect(lists).toHaveLength(3);
  const marks = annotations.list.map(({ expr }) => withoutFilters(expr));
  expect(marks.length).toBeGreaterThan(0);
  return [...asked, ...lists, ...marks].map((expr) => fillVariables(expr, { rate: WINDOW, range: '60s' }));
}

/** A healthy collector under load, with a few rows that SQLite refuses. */
async function collector(): Promise<{ url: string }> {
  const file = join(tempDir(), 'collector.db');
  const db = await open(file);
  await db.aexecute('CREATE TABLE guarded (n INTEGER CHECK (n > 0))');
  await db.close();
  const { url } = await serve([file], { SLUICE_TOKEN: TOKEN });
  const headers = { authorization: `Bearer ${TOKEN}` };
  const json = { ...headers, 'content-type': 'application/json' };
  let ended = false;
  const load = async () => {
    for (let i = 0; !ended; i++) {
      const rows = Array.from({ length: 20 }, (_, n) => JSON.stringify({ round: i, n, text: 'x'.repeat(100) }));
      await post(`${url}/write/readings`, rows.join('\n'), headers);
      await post(`${url}/write/settings`, `{"key":"k${i % 10}","value":${i}}`, headers);
      await ask(`${url}/kv/settings/k${i % 20}`, { headers });
      if (i % 10 === 0) await post(`${url}/write/guarded`, `{"n":${-i}}`, headers);
      if (i % 25 === 0) await ask(sqlUrl(url, 'SELECT count(*) FROM readings'), { headers });
      if (i % 30 === 0) await ask(`${url}/dlq/retry`, { method: 'POST', headers: json, body: '{"all":true}' });
      if (i % 40 === 0) await ask(`${url}/dlq/clear`, { method: 'POST', headers: json, body: '{"all":true}' });
    }
  };
  const loading = load();
  onTestFinished(async () => {
    ended = true;
    await loading.catch(() => undefined);
  });
  return { url };
}

/** Serves the metrics of a registry until it is told to stop. */
async function expose(registry: Registry): Promise<{ address: string; stop: () => void }> {
  const server: Server = createServer(metricsHandler(registry));
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const stop = () => {
    server.close();
    server.closeAllConnections();
  };
  onTestFinished(stop);
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, stop };
}

/** The configuration as it is, at the pace of the test, with other targets. */
function configuration(plain: readonly string[], withToken: readonly string[]): { config: string; storage: string } {
  const folder = tempDir();
  mkdirSync(join(folder, 'rules'));
  for (const name of ['prometheus.yml', ...RULES]) {
    writeFileSync(join(folder, name), timeLapse(readFileSync(join(FOLDER, name), 'utf8'), FACTOR));
  }
  writeFileSync(join(folder, 'token'), TOKEN);
  const list = (name: string, targets: readonly string[]) =>
    writeFileSync(join(folder, name), stringify([{ targets }]));
  list('targets.yml', plain);
  list('targets-with-token.yml', withToken);
  return { config: join(folder, 'prometheus.yml'), storage: join(folder, 'data') };
}

describe.runIf(here)('with a real Prometheus', () => {
  beforeAll(() => expect(missing).toBeUndefined());

  test('every alert that can fires, every query has an answer, and the books balance in every sample', {
    timeout: 240_000,
  }, async () => {
    const registry = new Registry();
    const troubles = new Troubles(registry);
    const [served, disk, begins] = await Promise.all([collector(), diskTroubles(), troubles.all()]);
    const own = await expose(registry);
    const gone = await expose(new Registry());
    const names = ['collector.db', ...disk.names, ...troubles.names];

    const text = await ask(`${served.url}/metrics`, { headers: { authorization: `Bearer ${TOKEN}` } });
    expectCleanMetrics(text.text);

    const hostOf = (url: string) => new URL(url).host;
    const { config, storage } = configuration([hostOf(disk.url), own.address, gone.address], [hostOf(served.url)]);
    const prometheus = await Prometheus.start(config, storage);
    onTestFinished(() => prometheus.stop());
    const start = Date.now() / 1_000;
    await eventually(
      async () => {
        const found = await prometheus.query('sluice_build_info{job="sluice"}');
        const up = (await prometheus.targets()).filter(({ health }) => health === 'up');
        return found.length === names.length && up.length === 4;
      },
      'all are scraped',
      30_000,
    );

    // Alerts on what has just happened need a scrape from before.
    await Promise.all([gone.stop(), disk.begin(), ...begins.map(({ begin }) => begin())]);

    const where = (labels: Labels): Labels =>
      labels['instance'] === gone.address ? { ...labels, instance: 'gone' } : labels;
    const seen: Labels[] = [];
    const waiting = new Set(FIRES);
    const look = async () => {
      for (const { state, labels } of await prometheus.alerts()) {
        if (state !== 'firing') continue;
        seen.push(labels);
        for (const expected of waiting) {
          const [alert, at] = expected;
          const found = { ...where(labels) };
          if (found['alertname'] !== alert) continue;
          if (Object.entries(at).every(([name, value]) => found[name] === value)) waiting.delete(expected);
        }
      }
      return waiting.size === 0;
    };
    await eventually(look, 'all alerts fire', 90_000).catch((error) => {
      throw new Error(`these did not fire: ${JSON.stringify([...waiting])}`, { cause: error });
    });
    const strange = seen.filter(({ alertname = '', db }) => db === 'collector.db' && !NOISE.test(alertname));
    expect(strange).toEqual([]);
    expect(seen.filter(({ alertname = '' }) => alertname in QUIET)).toEqual([]);

    // The load goes on.
    for (const { expr } of RECORDINGS) await expectData(prometheus, exprLapse(expr, FACTOR));
    for (const { expr } of ALERTS) await expectData(prometheus, withoutFilters(exprLapse(expr, FACTOR)));
    for (const expr of dashboardQueries()) await expectData(prometheus, expr);
    expect(await prometheus.failedRules()).toEqual([]);

    await expectBalance(prometheus, names, { start, end: Date.now() / 1_000, step: 0.1 });
    expect(prometheus.output).not.toContain('level=error');
  });
});

function expectCleanMetrics(text: string): void {
  expect(text.match(/^sluice_/gm)?.length).toBeGreaterThan(100);
  expect(text).toMatch(/^process_/m);
  expect(promtool(['check', 'metrics'], { input: text })).toEqual({ status: 0, output: '' });
}

async function expectData(prometheus: Prometheus, query: string): Promise<void> {
  const isThere = async () => (await prometheus.query(query)).some(({ value: [, value] }) => value !== 'NaN');
  await eventually(isThere, `${query} has data`, 10_000);
}

/** Parts of the books, all of which must have moved somewhere, or that they balance says little. */
const PARTS = [
  'writes_accepted_total',
  'writes_recovered_total',
  'writes_applied_total',
  'writes_coalesced_total',
  'writes_dead_lettered_total',
  'pending_writes',
  'dlq_entries',
  'dlq_imported_total',
  'dlq_retried_total',
  'dlq_superseded_total',
  'dlq_cleared_total',
  'dlq_evicted_total',
];

async function expectBalance(
  prometheus: Prometheus,
  names: readonly string[],
  range: { start: number; end: number; step: number },
): Promise<void> {
  const laws = RECORDINGS.filter(({ record }) => record.includes('_unaccounted:'));
  expect(laws).toHaveLength(2);
  for (const { record, expr } of laws) {
    const series = await prometheus.queryRange(expr, range);
    expect(new Set(series.map(({ metric }) => metric['db']))).toEqual(new Set(names));
    for (const { metric, values } of series) {
      expect(values.length, record).toBeGreaterThan(50);
      const wrong = values.filter(([, value]) => value !== '0');
      expect({ record, metric, wrong }).toEqual({ record, metric, wrong: [] });
    }
  }
  for (const part of PARTS) {
    const [most] = await prometheus.query(`max(max_over_time(sluice_${part}[5m]))`);
    expect(Number(most?.value[1]), part).toBeGreaterThan(0);
  }
}
