const META = /^# (HELP|TYPE) (\S+) (.*)$/s;

/** The label that is a number, in the samples of the types that have one. prom-client writes it first. */
const EDGE: Readonly<Record<string, RegExp>> = {
  histogram: /^([^ {]+\{le=")([^"]*)/,
  summary: /^([^ {]+\{quantile=")([^"]*)/,
};

/**
 * Writes the text of a registry as OpenMetrics 1.0.0.
 *
 * From the text and not from the metrics, because that only reads. To let prom-client write OpenMetrics renames the counters
 * of the registry for good, and its JSON writes the default labels into them; either would show in the next scrape as text.
 * The text also has all that this needs: exemplars, which it lacks, prom-client allows in registries of OpenMetrics only.
 */
export function toOpenMetrics(text: string): string {
  const lines = text.split('\n').filter((line) => line !== '');
  const types = new Map<string, string>();
  for (const line of lines) {
    const [, word, name = '', rest = ''] = META.exec(line) ?? [];
    if (word === 'TYPE') types.set(name, rest);
  }

  const written: string[] = [];
  let name = '';
  let sampleName = '';
  let edge: RegExp | undefined;
  for (const line of lines) {
    const [, word, family = '', rest = ''] = META.exec(line) ?? [];
    if (word === undefined) {
      written.push(withEdge(sampleName + line.slice(name.length), edge).replace(/ Nan$/, ' NaN'));
      continue;
    }
    const type = types.get(family) ?? 'unknown';
    const counter = type === 'counter' ? counterName(family, types) : undefined;
    if (word === 'HELP') {
      written.push(`# HELP ${counter ?? family} ${rest.replaceAll('"', '\\"')}`);
    } else {
      written.push(`# TYPE ${counter ?? family} ${type === 'counter' && counter === undefined ? 'unknown' : type}`);
      name = family;
      sampleName = counter === undefined ? family : `${counter}_total`;
      edge = EDGE[type];
    }
  }
  return [...written, '# EOF\n'].join('\n');
}

/**
 * A counter is called without `_total`, and its samples with it. Where that would clash with another metric there is no
 * counter to be had, and the caller writes one of unknown type under the name it has.
 */
function counterName(name: string, types: ReadonlyMap<string, string>): string | undefined {
  const base = name.replace(/(?<=.)_total$/, '');
  const clashes = ['', '_total', '_created'].some((suffix) => base + suffix !== name && types.has(base + suffix));
  return clashes ? undefined : base;
}

function withEdge(sample: string, edge: RegExp | undefined): string {
  if (edge === undefined) return sample;
  return sample.replace(edge, (_, head: string, value: string) => head + canonical(value));
}

/**
 * Numbers in labels are compared as text, so OpenMetrics wants them as Go writes a float: `1.0`, `0.005`, `1e+06`. Prometheus
 * 3 makes them so in any case, which keeps the series the same in both formats.
 */
function canonical(value: string): string {
  const number = Number(value);
  if (!Number.isFinite(number)) return value;
  const [digits = '', exponent = ''] = number.toExponential().split('e');
  const power = Number(exponent);
  if (power < -4 || power > 5) {
    return `${digits}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`;
  }
  return Number.isInteger(number) ? `${number}.0` : `${number}`;
}
