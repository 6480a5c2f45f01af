import { expect } from 'vitest';

/** What a scrape says, of either format. */
export interface Scrape {
  /** Types by name of the family, HELP texts as they were before they were escaped. */
  readonly types: ReadonlyMap<string, string>;
  readonly helps: ReadonlyMap<string, string>;
  /** Values by {@link sampleId}. */
  readonly samples: ReadonlyMap<string, number>;
  readonly exemplars: ReadonlyMap<string, { readonly labels: ReadonlyMap<string, string>; readonly value: number }>;
}

interface Sample {
  readonly name: string;
  readonly labels: Map<string, string>;
  readonly value: number;
  readonly rest: string;
}

/** What the samples of a type end in; `''` for the name of the family itself. */
const SUFFIXES: Readonly<Record<string, readonly string[]>> = {
  counter: ['_total'],
  gauge: [''],
  histogram: ['_bucket', '_sum', '_count'],
  summary: ['', '_sum', '_count'],
  unknown: [''],
};

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LABEL_NAME = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
const NUMBER = /^(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|[+-]Inf|NaN)$/;

/** A sample as one text, whatever the order of its labels. */
export function sampleId(name: string, labels: Iterable<readonly [string, string]>): string {
  return `${name}${JSON.stringify([...labels].sort(([a], [b]) => (a < b ? -1 : 1)))}`;
}

/** A strict reader of OpenMetrics 1.0.0, after its ABNF and the rules in its prose: whatever it does not expect fails. */
export function parseOpenMetrics(text: string): Scrape {
  expect(text.endsWith('# EOF\n'), 'ends with # EOF').toBe(true);
  const scrape = parse(text.slice(0, -'# EOF\n'.length), { blankLines: false, helpEscapes: '\\"n', counter: '_total' });
  expectNoClash(scrape.types);
  for (const [name, type] of scrape.types) {
    if (type === 'counter') expect(name, 'a counter without _total').not.toMatch(/._total$/);
  }
  return scrape;
}

/** A strict reader of the text format 0.0.4 as prom-client writes it. */
export function parseText(text: string): Scrape {
  return parse(text === '\n' ? '' : text, { blankLines: true, helpEscapes: '\\n', counter: '' });
}

interface Dialect {
  readonly blankLines: boolean;
  readonly helpEscapes: string;
  readonly counter: '' | '_total';
}

function parse(text: string, { blankLines, helpEscapes, counter }: Dialect): Scrape {
  expect(text === '' || text.endsWith('\n'), 'the last line ends').toBe(true);
  const types = new Map<string, string>();
  const helps = new Map<string, string>();
  const samples = new Map<string, number>();
  const exemplars = new Map<string, { labels: Map<string, string>; value: number }>();
  const bodies = new Map<string, Sample[]>();
  let family = '';
  for (const line of text.split('\n').slice(0, -1)) {
    if (line === '' && blankLines) continue;
    if (line.startsWith('#')) {
      const [, word, name = '', rest = ''] = /^# (HELP|TYPE) (\S+) (.+)$/s.exec(line) ?? [];
      expect(name, line).toMatch(NAME);
      if (name !== family) {
        expect(bodies.has(name), `two families ${name}`).toBe(false);
        bodies.set(name, []);
        family = name;
      }
      expect(bodies.get(name), `${line} stands behind samples`).toEqual([]);
      if (word === 'HELP') {
        expect(helps.has(name), `two HELP lines of ${name}`).toBe(false);
        helps.set(name, unescaped(rest, helpEscapes));
      } else {
        expect(types.has(name), `two TYPE lines of ${name}`).toBe(false);
        expect(Object.keys(SUFFIXES)).toContain(rest);
        types.set(name, rest);
      }
      continue;
    }
    const sample = parseSample(line);
    const type = types.get(family) ?? '';
    const suffixes = type === 'counter' ? [counter] : (SUFFIXES[type] ?? []);
    const suffix = suffixes.find((ending) => sample.name === family + ending);
    if (suffix === undefined) throw new Error(`${line} stands under ${family}, a ${type}`);
    const id = sampleId(sample.name, sample.labels);
    expect(samples.has(id), `two samples ${id}`).toBe(false);
    samples.set(id, sample.value);
    bodies.get(family)?.push(sample);
    if (sample.rest === '') continue;
    expect(counter, 'exemplars are of OpenMetrics').toBe('_total');
    expect(['_bucket', '_total'], line).toContain(suffix);
    exemplars.set(id, parseExemplar(sample.rest));
  }
  for (const [name, body] of bodies) {
    expect(types.has(name) && helps.has(name), `${name} has TYPE and HELP`).toBe(true);
    if (types.get(name) === 'histogram') expectHistogram(name, body, counter === '_total');
    if (types.get(name) === 'summary') expectSummary(name, body, counter === '_total');
  }
  return { types, helps, samples, exemplars };
}

/** Reads `name{labels} value`; what follows the value is left as it is. */
function parseSample(line: string): Sample {
  const [head = '', name = ''] = /^([^{ ]+)/.exec(line) ?? [];
  expect(name, line).toMatch(NAME);
  const { labels, end } =
    line[head.length] === '{' ? parseLabels(line, head.length) : { labels: new Map(), end: head.length };
  const [, value = '', rest = ''] = /^ (\S+)(.*)$/s.exec(line.slice(end)) ?? [];
  return { name, labels, value: parseNumber(value, line), rest };
}

function parseLabels(line: string, start: number): { labels: Map<string, string>; end: number } {
  const labels = new Map<string, string>();
  const pair = /([^=]+)="((?:[^"\\\n]|\\.)*)"([,}])/sy;
  pair.lastIndex = start + 1;
  if (line[pair.lastIndex] === '}') return { labels, end: start + 2 };
  for (;;) {
    const [, name = '', value = '', next] = pair.exec(line) ?? [];
    expect(name, line).toMatch(LABEL_NAME);
    expect(labels.has(name), `two labels ${name}: ${line}`).toBe(false);
    labels.set(name, unescaped(value, '\\"n'));
    if (next === '}') return { labels, end: pair.lastIndex };
  }
}

function parseExemplar(text: string): { labels: Map<string, string>; value: number } {
  expect(text.startsWith(' # {'), text).toBe(true);
  const { labels, end } = parseLabels(text, 3);
  const [, value = '', timestamp] = /^ (\S+)(?: (\S+))?$/.exec(text.slice(end)) ?? [];
  expect([...labels].flat().join('').length).toBeLessThanOrEqual(128);
  if (timestamp !== undefined) parseNumber(timestamp, text);
  return { labels, value: parseNumber(value, text) };
}

function parseNumber(text: string, where: string): number {
  // prom-client writes NaN so, and the text format takes a number in any case.
  expect(text === 'Nan' ? 'NaN' : text, where).toMatch(NUMBER);
  return Number(text.replace('Inf', 'Infinity'));
}

function unescaped(text: string, allowed: string): string {
  if (allowed.includes('"')) expect(text, 'a quote that is not escaped').not.toMatch(/^(?:[^"\\]|\\.)*"/s);
  return text.replaceAll(/\\(.?)/gs, (pair, char: string) => {
    if (char === '' || !allowed.includes(char)) throw new Error(`bad escape ${pair} in ${text}`);
    return char === 'n' ? '\n' : char;
  });
}

/** Samples of one set of labels stand together; OpenMetrics demands that, and prom-client writes it so. */
function groupsOf(body: readonly Sample[], without: string): Map<string, Sample[]> {
  const groups = new Map<string, Sample[]>();
  let last = '';
  for (const sample of body) {
    const id = sampleId(
      '',
      [...sample.labels].filter(([name]) => name !== without),
    );
    if (id !== last) expect(groups.has(id), `${id} is in two places`).toBe(false);
    last = id;
    groups.set(id, [...(groups.get(id) ?? []), sample]);
  }
  return groups;
}

function expectHistogram(name: string, body: readonly Sample[], canonical: boolean): void {
  for (const [id, group] of groupsOf(body, 'le')) {
    const buckets = group.filter((sample) => sample.name === `${name}_bucket`);
    const edges = buckets.map(({ labels }) => edgeOf(labels.get('le'), canonical));
    expect(edges, `${name} ${id}`).toEqual([...edges].sort((a, b) => a - b));
    expect(edges.at(-1)).toBe(Number.POSITIVE_INFINITY);
    const values = buckets.map(({ value }) => value);
    expect(values, `${name} ${id}`).toEqual([...values].sort((a, b) => a - b));
    expect(group.find((sample) => sample.name === `${name}_count`)?.value).toBe(values.at(-1));
    expect(group.filter((sample) => sample.name === `${name}_sum`)).toHaveLength(1);
  }
}

function expectSummary(name: string, body: readonly Sample[], canonical: boolean): void {
  for (const [, group] of groupsOf(body, 'quantile')) {
    for (const sample of group) if (sample.name === name) edgeOf(sample.labels.get('quantile'), canonical);
    expect(group.filter((sample) => sample.name !== name)).toHaveLength(2);
  }
}

function edgeOf(text: string | undefined, canonical: boolean): number {
  if (text === undefined) throw new Error('a bucket or quantile without its label');
  if (canonical && text !== '+Inf') expect(text).toMatch(/^-?(?:\d+\.\d+|\d(?:\.\d+)?e[+-]\d\d+)$/);
  return parseNumber(text, text);
}

/** No family may be called like a sample that another family could have. */
function expectNoClash(types: ReadonlyMap<string, string>): void {
  const owners = new Map<string, string>();
  for (const [name, type] of types) {
    const created = ['counter', 'histogram', 'summary'].includes(type) ? ['_created'] : [];
    for (const suffix of new Set(['', ...(SUFFIXES[type] ?? []), ...created])) {
      const owner = owners.get(name + suffix);
      expect(owner, `${name} and ${owner} both have ${name}${suffix}`).toBeUndefined();
      owners.set(name + suffix, name);
    }
  }
}
