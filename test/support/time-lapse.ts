import { parse, stringify } from 'yaml';

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const DURATION = String.raw`(\d+)(ms|s|m|h|d)`;
const WHOLE = new RegExp(`^${DURATION}$`);
/** In PromQL: the range and the step of a selector, and an offset. */
const IN_EXPRESSION = new RegExp(String.raw`(\[|:|offset\s+)${DURATION}(?=[\]:\s)])`, 'g');

function shorter(amount: string, unit: string, factor: number): string {
  const ms = (Number(amount) * (UNIT_MS[unit] ?? Number.NaN)) / factor;
  if (!Number.isInteger(ms) || ms < 1) throw new Error(`${amount}${unit} cannot be divided by ${factor}`);
  return `${ms}ms`;
}

/** An expression of PromQL in which all durations are shorter by a factor. */
export function exprLapse(expr: string, factor: number): string {
  return expr.replaceAll(IN_EXPRESSION, (_, before: string, amount: string, unit: string) => {
    return `${before}${shorter(amount, unit, factor)}`;
  });
}

/** A configuration or a file of rules of Prometheus in which they are. */
export function timeLapse(yaml: string, factor: number): string {
  const walk = (value: unknown, key?: string): unknown => {
    if (Array.isArray(value)) return value.map((item) => walk(item));
    if (typeof value === 'object' && value !== null) {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, walk(item, name)]));
    }
    if (typeof value !== 'string') return value;
    if (key === 'expr') return exprLapse(value, factor);
    return value.replace(WHOLE, (_, amount: string, unit: string) => shorter(amount, unit, factor));
  };
  return stringify(walk(parse(yaml)), { lineWidth: 0 });
}

/**
 * An alert's expression, with 0 and 1 in the place of nothing and something: so a quiet alert has a value, too, and one that
 * speaks of a series that does not exist has none.
 */
export function withoutFilters(expr: string): string {
  return expr
    .split(/(\{[^}]*\}|"[^"]*")/)
    .map((part, i) => (i % 2 === 1 ? part : part.replaceAll(/(==|!=|>=|<=|>|<)/g, '$1 bool')))
    .join('');
}
