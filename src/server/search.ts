import { Refusal } from './answer.ts';

/** The parameters behind the `?`, each known and there once. */
export function readSearch(search: URLSearchParams, known: readonly string[]): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const [name, value] of search) {
    if (!known.includes(name) || found.has(name)) {
      throw badRequest(
        `the parameter ${JSON.stringify(name)} is not known, or is there twice: known are ${known.join(', ') || 'none'}`,
      );
    }
    found.set(name, value);
  }
  return found;
}

/** A whole number in a parameter; `fallback` where it is not there. */
export function integerOf<Fallback extends number | undefined>(
  search: ReadonlyMap<string, string>,
  name: string,
  { min, max, fallback }: { min: number; max: number; fallback: Fallback },
): number | Fallback {
  const text = search.get(name);
  if (text === undefined) return fallback;
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw badRequest(`${name} must be an integer from ${min} to ${max}`);
}

export function badRequest(message: string): Refusal {
  return new Refusal(400, 'HTTP_BAD_REQUEST', message);
}
