import type { Registry, RegistryContentType } from 'prom-client';
import { metricsFetchHandler } from 'sluicedb/metrics';

export const TEXT = 'text/plain; version=0.0.4; charset=utf-8';
export const OPENMETRICS = 'application/openmetrics-text; version=1.0.0; charset=utf-8';

/** What the fetch-style handler of a registry answers to an `Accept` header. */
export async function fetched(registry: Registry<RegistryContentType>, accept?: string): Promise<Response> {
  return metricsFetchHandler(registry)(new Request('http://any/', { headers: accept === undefined ? {} : { accept } }));
}

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

/** Not `expect`, which would take longer than all the rest: there are many samples, and several checks to each. */
function check(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(`not as it must be: ${what}`);
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LABEL_NAME = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
const NUMBER = /^(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|[+-]Inf|NaN)$/;

/** A sample as one text, whatever the order of its labels. */
export function sampleId(name: string, labels: Iterable<readonly [string, string]>): string {
  return `${name}${JSON.stringify([...labels].sort(([a], [b]) => (a < b ? -1 : 1)))}`;
}

/** The sum of the samples of a name that have these labels, among others. */
export function sumOf({ samples }: Scrape, name: string, labels: Readonly<Record<string, string>> = {}): number {
  const pairs = Object.entries(labels).map((pair) => JSON.stringify(pair));
  const found = [...samples].filter(([id]) => id.startsWith(`${name}[`) && pairs.every((pair) => id.includes(pair)));
  if (found.length === 0) throw new Error(`no sample ${name} with ${pairs.join()}`);
  return found.reduce((total, [, value]) => total + value, 0);
}

/** Whether all writes are accounted for, in what has these labels. */
export function isConserved(scrape: Scrape, labels: Readonly<Record<string, string>> = {}): boolean {
  const of = (name: string) => sumOf(scrape, `sluice_${name}`, labels);
  const dead = of('writes_dead_lettered_total');
  const left = ['retried', 'superseded', 'cleared', 'evicted'].map((how) => of(`dlq_${how}_total`));
  return (
    of('writes_accepted_total') + of('writes_recovered_total') ===
      of('writes_applied_total') + of('writes_coalesced_total') + dead + of('pending_writes') &&
    of('dlq_entries_at_open') + dead + of('dlq_imported_total') ===
      left.reduce((total, count) => total + count, of('dlq_entries'))
  );
}

/**
 * A strict reader of OpenMetrics 1.0.0, after its ABNF and the rules in its prose: whatever breaks them throws. That numbers
 * in labels are canonical is a SHOULD, and prom-client does not do it.
 */
export function parseOpenMetrics(text: string, { canonical = true } = {}): Scrape {
  check(text.endsWith('# EOF\n'), 'the end');
  const body = text.slice(0, -'# EOF\n'.length);
  const scrape = parse(body, { blankLines: false, helpEscapes: '\\"n', counter: '_total', canonical });
  checkNoClash(scrape.types);
  for (const [name, type] of scrape.types) {
    check(type !== 'counter' || !/._total$/.test(name), `the counter ${name} is called without _total`);
  }
  return scrape;
}

/** A strict reader of the text format 0.0.4 as prom-client writes it. */
export function parseText(text: string): Scrape {
  return parse(text === '\n' ? '' : text, { blankLines: true, helpEscapes: '\\n', counter: '', canonical: false });
}

interface Dialect {
  readonly blankLines: boolean;
  readonly helpEscapes: string;
  readonly counter: '' | '_total';
  readonly canonical: boolean;
}

function parse(text: string, { blankLines, helpEscapes, counter, canonical }: Dialect): Scrape {
  check(text === '' || text.endsWith('\n'), 'the last line');
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
      check(NAME.test(name), line);
      if (name !== family) {
        check(!bodies.has(name), `two families ${name}`);
        bodies.set(name, []);
        family = name;
      }
      check(bodies.get(name)?.length === 0, `${line} stands behind samples`);
      if (word === 'HELP') {
        check(!helps.has(name), `two HELP lines of ${name}`);
        helps.set(name, unescaped(rest, helpEscapes));
      } else {
        check(!types.has(name), `two TYPE lines of ${name}`);
        check(Object.hasOwn(SUFFIXES, rest), line);
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
    check(!samples.has(id), `two samples ${id}`);
    samples.set(id, sample.value);
    bodies.get(family)?.push(sample);
    if (sample.rest === '') continue;
    check(counter === '_total' && ['_bucket', '_total'].includes(suffix), line);
    exemplars.set(id, parseExemplar(sample.rest));
  }
  for (const [name, body] of bodies) {
    check(types.has(name) && helps.has(name), `${name} has TYPE and HELP`);
    if (types.get(name) === 'histogram') checkHistogram(name, body, canonical);
    if (types.get(name) === 'summary') checkSummary(name, body, canonical);
  }
  return { types, helps, samples, exemplars };
}

/** Reads `name{labels} value`; what follows the value is left as it is. */
function parseSample(line: string): Sample {
  const [head = '', name = ''] = /^([^{ ]+)/.exec(line) ?? [];
  check(NAME.test(name), line);
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
    check(LABEL_NAME.test(name), line);
    check(!labels.has(name), `two labels ${name}: ${line}`);
    labels.set(name, unescaped(value, '\\"n'));
    if (next === '}') return { labels, end: pair.lastIndex };
  }
}

function parseExemplar(text: string): { labels: Map<string, string>; value: number } {
  check(text.startsWith(' # {'), text);
  const { labels, end } = parseLabels(text, 3);
  const [, value = '', timestamp] = /^ (\S+)(?: (\S+))?$/.exec(text.slice(end)) ?? [];
  check([...labels].flat().join('').length <= 128, text);
  if (timestamp !== undefined) parseNumber(timestamp, text);
  return { labels, value: parseNumber(value, text) };
}

function parseNumber(text: string, where: string): number {
  // prom-client writes NaN so, and the text format takes a number in any case.
  check(text === 'Nan' || NUMBER.test(text), where);
  return Number(text.replace('Inf', 'Infinity'));
}

function unescaped(text: string, allowed: string): string {
  check(!allowed.includes('"') || !/^(?:[^"\\]|\\.)*"/s.test(text), `a quote that is not escaped in ${text}`);
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
    check(id === last || !groups.has(id), `${id} is in two places`);
    last = id;
    groups.set(id, [...(groups.get(id) ?? []), sample]);
  }
  return groups;
}

const isAscending = (numbers: readonly number[]) => numbers.every((n, i) => i === 0 || n >= (numbers[i - 1] ?? n));

function checkHistogram(name: string, body: readonly Sample[], canonical: boolean): void {
  for (const [id, group] of groupsOf(body, 'le')) {
    const buckets = group.filter((sample) => sample.name === `${name}_bucket`);
    const edges = buckets.map(({ labels }) => edgeOf(labels.get('le'), canonical));
    check(isAscending(edges) && edges.at(-1) === Number.POSITIVE_INFINITY, `the buckets of ${name} ${id}`);
    const values = buckets.map(({ value }) => value);
    check(isAscending(values), `the counts of ${name} ${id}`);
    check(
      group.find((sample) => sample.name === `${name}_count`)?.value === values.at(-1),
      `the count of ${name} ${id}`,
    );
    check(group.filter((sample) => sample.name === `${name}_sum`).length === 1, `the sum of ${name} ${id}`);
  }
}

function checkSummary(name: string, body: readonly Sample[], canonical: boolean): void {
  for (const [id, group] of groupsOf(body, 'quantile')) {
    for (const sample of group) if (sample.name === name) edgeOf(sample.labels.get('quantile'), canonical);
    check(group.filter((sample) => sample.name !== name).length === 2, `sum and count of ${name} ${id}`);
  }
}

function edgeOf(text: string | undefined, canonical: boolean): number {
  if (text === undefined) throw new Error('a bucket or quantile without its label');
  check(!canonical || text === '+Inf' || /^-?(?:\d+\.\d+|\d(?:\.\d+)?e[+-]\d\d+)$/.test(text), text);
  return parseNumber(text, text);
}

/** No family may be called like a sample that another family could have. */
function checkNoClash(types: ReadonlyMap<string, string>): void {
  const owners = new Map<string, string>();
  for (const [name, type] of types) {
    const created = ['counter', 'histogram', 'summary'].includes(type) ? ['_created'] : [];
    for (const suffix of new Set(['', ...(SUFFIXES[type] ?? []), ...created])) {
      const owner = owners.get(name + suffix);
      check(owner === undefined, `${name} and ${owner} both have ${name}${suffix}`);
      owners.set(name + suffix, name);
    }
  }
}
