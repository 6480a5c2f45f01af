/** PromQL as the rows need it. Every query is held to what the template variables choose. */

const PROCESS = 'job=~"$job", instance=~"$instance"';
const DATABASE = `${PROCESS}, db=~"$db"`;
/** A window that holds at least two scrapes, however far one zooms in. */
const WINDOW = '$__rate_interval';

/** Legend of a series that each database has. */
export const EACH_DB = '{{db}} @ {{instance}}';

/** A metric of the database, without its prefix. */
export const of = (name: string, matcher?: string): string =>
  `sluice_${name}{${DATABASE}${matcher === undefined ? '' : `, ${matcher}`}}`;

/** A metric of the process, which has no label `db`. */
export const ofProcess = (name: string): string => `${name}{${PROCESS}}`;

export const rate = (series: string, window: string = WINDOW): string => `rate(${series}[${window}])`;
export const increase = (series: string, window: string = WINDOW): string => `increase(${series}[${window}])`;

/** Sums up all but the labels given. */
export const sum = (expr: string, ...by: readonly string[]): string =>
  by.length === 0 ? `sum(${expr})` : `sum by (${by.join(', ')}) (${expr})`;

export const max = (expr: string, ...by: readonly string[]): string =>
  by.length === 0 ? `max(${expr})` : `max by (${by.join(', ')}) (${expr})`;

/** Of a histogram, for each database. */
export const quantile = (q: number, name: string): string =>
  `histogram_quantile(${q}, sum by (instance, db, le) (${rate(of(`${name}_bucket`))}))`;

/**
 * Which value of a label a set of 0 and 1 has its 1 at, as its position from 1; 0 if at none of them.
 */
export const which = (name: string, label: string, values: readonly string[]): string => {
  const terms = values.map((value, i) => `${i + 1} * ${of(name, `${label}="${value}"`)}`);
  return `sum by (instance, db) (${terms.join(' or ')})`;
};

/**
 * Leaves out what is 0, where a metric has many label values of which hardly one is ever seen. If nothing is left, a 0 with
 * labels that say so: an empty panel looks like one that is broken.
 */
export const happened = (expr: string, nothing: Readonly<Record<string, string>>): string => {
  const zero = Object.entries(nothing).reduce(
    (vector, [label, value]) => `label_replace(${vector}, "${label}", "${value}", "", "")`,
    'vector(0)',
  );
  return `${expr} > 0 or on () ${zero}`;
};
