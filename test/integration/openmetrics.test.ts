import fc from 'fast-check';
import {
  Counter,
  collectDefaultMetrics,
  Gauge,
  Histogram,
  type OpenMetricsContentType,
  openMetricsContentType,
  prometheusContentType,
  Registry,
  Summary,
} from 'prom-client';
import { createMetrics } from 'sluicedb/metrics';
import { describe, expect, onTestFinished, test } from 'vitest';
import {
  fetched,
  isConserved,
  OPENMETRICS,
  parseOpenMetrics,
  parseText,
  type Scrape,
  sampleId,
  sumOf,
  TEXT,
} from '../support/exposition.ts';
import { openTemp } from '../support/open-temp.ts';

const openMetricsOf = async (registry: Registry) => (await fetched(registry, OPENMETRICS)).text();

/** Samples with the numbers in labels as numbers: `1` and `1.0` are the same bucket. */
const comparable = ({ samples }: Scrape) =>
  new Map(
    [...samples].map(([id, value]) => [
      id.replaceAll(/\["(le|quantile)","([^"]*)"\]/g, (pair, name, edge) =>
        Number.isFinite(Number(edge)) ? `["${name}",${Number(edge)}]` : pair,
      ),
      value,
    ]),
  );

/** A registry of an application: every type, odd characters, default labels. */
function ofTheApplication(): Registry {
  const registry = new Registry();
  const registers = [registry];
  registry.setDefaultLabels({ app: 'a,le="1",', empty: 'filled' });
  new Gauge({ name: 'mine_gauge', help: 'a "quoted" back\\slash\nand line', labelNames: ['le'], registers }).set(
    { le: '1' },
    2,
  );
  const odd = new Gauge({ name: 'mine_odd', help: '\\n is no line', labelNames: ['v', 'empty'], registers });
  odd.set({ v: 'é"\\\n\r\u2028}{ # {x="y"} 1 🚰' }, Number.NaN);
  odd.set({ v: '\\n', empty: '' }, Number.POSITIVE_INFINITY);
  odd.set({ v: 7 }, Number.NEGATIVE_INFINITY);
  odd.set({ v: '# TYPE mine gauge' }, 5e-324);
  odd.set({ v: ' Nan' }, 1.5e300);
  new Counter({ name: 'mine', help: 'no total', labelNames: ['quantile'], registers }).inc({ quantile: '1' }, 2.5);
  new Counter({ name: 'mine_other_total', help: 'total', registers }).inc(3);
  new Gauge({ name: 'mine_handles_total', help: 'a gauge that is called like a counter', registers }).set(4);
  const buckets = [1e-6, 0.000025, 0.00025, 1, 4, 100_000, 1_048_576, 1e7];
  const histogram = new Histogram({ name: 'mine_seconds', help: 'h', labelNames: ['quantile'], buckets, registers });
  histogram.observe({ quantile: '1' }, 3);
  histogram.observe({ quantile: '2' }, 1e9);
  new Histogram({ name: 'mine_empty', help: 'h', labelNames: ['x'], registers });
  const summary = new Summary({
    name: 'mine_summary',
    help: 's',
    labelNames: ['le'],
    percentiles: [0, 0.5, 1],
    registers,
  });
  summary.observe({ le: '1' }, 0.25);
  return registry;
}

describe('OpenMetrics', () => {
  test('says what the text says, by its own rules', async () => {
    const registry = ofTheApplication();
    const text = parseText(await registry.metrics());
    const openMetrics = await openMetricsOf(registry);
    const found = parseOpenMetrics(openMetrics);

    expect(Object.fromEntries(found.types)).toEqual({
      mine_gauge: 'gauge',
      mine_odd: 'gauge',
      mine: 'counter',
      mine_other: 'counter',
      mine_handles_total: 'gauge',
      mine_seconds: 'histogram',
      mine_empty: 'histogram',
      mine_summary: 'summary',
    });
    expect(found.helps.get('mine_gauge')).toBe('a "quoted" back\\slash\nand line');
    expect(found.helps.get('mine_odd')).toBe('\\n is no line');
    const expected = [...comparable(text)].map(([id, value]) => [id.replace(/^mine\[/, 'mine_total['), value] as const);
    expect(comparable(found)).toEqual(new Map(expected));
    expect(
      found.samples.get(
        sampleId('mine_odd', [
          ['app', 'a,le="1",'],
          ['empty', 'filled'],
          ['v', 'é"\\\n\r\u2028}{ # {x="y"} 1 🚰'],
        ]),
      ),
    ).toBeNaN();
    // What is no edge of a bucket stays as it is.
    expect(openMetrics).toContain('mine_gauge{le="1",');
    expect(openMetrics).toContain('mine_summary_sum{le="1",');
    expect(openMetrics).toMatch(/^mine_seconds_sum\{.*quantile="1"/m);
    const edges = [...openMetrics.matchAll(/^mine_seconds_bucket\{le="([^"]*)".*quantile="1"/gm)].map(
      ([, edge]) => edge,
    );
    expect(edges).toEqual(['1e-06', '2.5e-05', '0.00025', '1.0', '4.0', '100000.0', '1.048576e+06', '1e+07', '+Inf']);
    expect([...openMetrics.matchAll(/quantile="([^"]*)",le=/g)].map(([, edge]) => edge)).toEqual(['0.0', '0.5', '1.0']);
  });

  test('changes nothing in the registry: the text is byte for byte what it was', async () => {
    const registry = ofTheApplication();
    const before = await registry.metrics();
    const first = await openMetricsOf(registry);
    expect(await openMetricsOf(registry)).toBe(first);
    expect(await (await fetched(registry)).text()).toBe(before);
    expect(await registry.metrics()).toBe(before);
    expect(registry.contentType).toBe(prometheusContentType);
    registry.setDefaultLabels({});
    expect(await registry.metrics()).not.toContain('app=');
  });

  test('a counter whose name would clash with another metric keeps it, without a type', async () => {
    const registry = new Registry();
    const registers = [registry];
    new Gauge({ name: 'a', help: 'h', registers }).set(1);
    new Counter({ name: 'a_total', help: 'h', registers }).inc(2);
    new Counter({ name: 'b', help: 'h', registers }).inc(3);
    new Counter({ name: 'b_total', help: 'h', registers }).inc(4);
    new Gauge({ name: 'c_created', help: 'h', registers }).set(5);
    new Counter({ name: 'c_total', help: 'h', registers }).inc(6);
    const { types, samples } = parseOpenMetrics(await openMetricsOf(registry));
    expect([...types.values()]).toEqual(['gauge', 'unknown', 'unknown', 'unknown', 'gauge', 'unknown']);
    expect([...samples.values()]).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test('of any registry it is valid, and has the same samples', async () => {
    const odd = fc.string({
      unit: fc.oneof(fc.constantFrom(...'"\\\n{},=# Ntle1.0\r\u2028'), fc.string()),
      maxLength: 12,
    });
    const metric = fc.record({
      name: fc.constantFrom('a', 'a_total', 'b_total', 'b_created', 'c'),
      type: fc.constantFrom('counter', 'gauge', 'histogram', 'summary'),
      help: odd.map((text) => `h${text}`),
      labels: fc.uniqueArray(odd, { maxLength: 3 }),
      value: fc.oneof(fc.double({ min: 0, noNaN: true, noDefaultInfinity: true }), fc.nat(5)),
    });
    const registries = fc.record({
      metrics: fc.uniqueArray(metric, { selector: ({ name }) => name }),
      shared: odd,
    });
    let unknown = 0;
    let counters = 0;
    await fc.assert(
      fc.asyncProperty(registries, async ({ metrics, shared }) => {
        const registry = new Registry();
        registry.setDefaultLabels({ shared });
        const registers = [registry];
        for (const { name, type, help, labels, value } of metrics) {
          const config = { name, help, labelNames: ['label'], registers };
          for (const label of labels) {
            const own = { label };
            const known = registry.getSingleMetric(name);
            if (type === 'counter') ((known as Counter) ?? new Counter(config)).inc(own, value);
            else if (type === 'gauge') ((known as Gauge) ?? new Gauge(config)).set(own, value);
            else if (type === 'histogram') ((known as Histogram) ?? new Histogram(config)).observe(own, value);
            else ((known as Summary) ?? new Summary(config)).observe(own, value);
          }
        }
        const text = await registry.metrics();
        const before = parseText(text);
        const after = parseOpenMetrics(await openMetricsOf(registry));
        expect(await registry.metrics()).toBe(text);
        const renamed = [...comparable(before)].map(([id, value]) => {
          const name = id.slice(0, id.indexOf('['));
          const isCounter = before.types.get(name) === 'counter' && after.types.get(name) === 'counter';
          return [isCounter ? `${name}_total${id.slice(name.length)}` : id, value] as const;
        });
        expect(comparable(after)).toEqual(new Map(renamed));
        expect([...after.helps.values()]).toEqual([...before.helps.values()]);
        for (const [i, type] of [...after.types.values()].entries()) {
          if (type === 'unknown') unknown++;
          if (type === 'counter') counters++;
          expect([[...before.types.values()][i], 'unknown']).toContain(type);
        }
      }),
      { numRuns: 150 },
    );
    expect(
      [unknown, counters].every((times) => times > 0),
      'both ways of a counter were taken',
    ).toBe(true);
  });

  test('an empty registry is an empty exposition', async () => {
    expect(await openMetricsOf(new Registry())).toBe('# EOF\n');
  });

  test('a registry that its owner set to OpenMetrics is served as prom-client writes it, exemplars included', async () => {
    const registry = new Registry<OpenMetricsContentType>();
    registry.setContentType(openMetricsContentType);
    const registers = [registry];
    const counter = new Counter<string>({
      name: 'mine_total',
      help: 'h',
      labelNames: ['a'],
      enableExemplars: true,
      registers,
    });
    counter.inc({ labels: { a: 'b' }, value: 2, exemplarLabels: { trace: 't"1' } });
    const histogram = new Histogram<string>({
      name: 'mine_seconds',
      help: 'h',
      buckets: [0.5],
      enableExemplars: true,
      registers,
    });
    histogram.observe({ value: 0.25, exemplarLabels: { trace: 't2' } });
    const before = await registry.metrics();
    for (const accept of [undefined, '*/*', TEXT, OPENMETRICS]) {
      const response = await fetched(registry, accept);
      expect(response.headers.get('content-type')).toBe(OPENMETRICS);
      expect(await response.text()).toBe(before);
    }
    const { exemplars, samples } = parseOpenMetrics(before);
    expect(samples.get(sampleId('mine_total', [['a', 'b']]))).toBe(2);
    expect(exemplars.get(sampleId('mine_total', [['a', 'b']]))?.labels).toEqual(new Map([['trace', 't"1']]));
    expect(exemplars.get(sampleId('mine_seconds_bucket', [['le', '0.5']]))?.value).toBe(0.25);
  });

  test('a registry of OpenMetrics takes the metrics of a database, too', async () => {
    const registry = new Registry<OpenMetricsContentType>();
    registry.setContentType(openMetricsContentType);
    const db = await openTemp();
    const metrics = createMetrics(db, { registry });
    onTestFinished(() => metrics.close());
    await db.aset('x', 1);
    for (let i = 0; i < 2; i++) {
      const found = parseOpenMetrics(await (await fetched(registry)).text(), { canonical: false });
      expect(isConserved(found)).toBe(true);
      expect(sumOf(found, 'sluice_writes_accepted_total')).toBe(1);
    }
  });

  test('of a database beside the metrics of the process and of the application', async () => {
    const db = await openTemp('a "quoted\\" name.db');
    const registry = ofTheApplication();
    const metrics = createMetrics(db, { registry });
    onTestFinished(() => metrics.close());
    collectDefaultMetrics({ register: registry });
    await db.aset('x', 1);
    const { samples, types } = parseOpenMetrics(await openMetricsOf(registry));
    const ours = [...samples.keys()].filter((id) => id.startsWith('sluice_'));
    // All of ours are called the same in both formats.
    const inText = [...comparable(parseText(await registry.metrics())).keys()].filter((id) => id.startsWith('sluice_'));
    expect(inText.sort()).toEqual(
      [...comparable({ samples } as Scrape).keys()].filter((id) => id.startsWith('sluice_')).sort(),
    );
    expect(ours.length).toBeGreaterThan(30);
    expect(ours.every((id) => id.includes('["db","a \\"quoted\\\\\\" name.db"]'))).toBe(true);
    expect([...types].filter(([name, type]) => name.startsWith('sluice_') && type === 'unknown')).toEqual([]);
    expect(types.get('process_cpu_seconds')).toBe('counter');
  });
});
