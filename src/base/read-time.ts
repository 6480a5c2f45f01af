/**
 * A point in time that somebody has typed, in milliseconds since 1970: a number of them, or ISO 8601 with its zone, since
 * that of this machine may mean nothing to them; a date is one of UTC. `undefined` for all else.
 */
export function readTime(text: string): number | undefined {
  if (/^\d{1,16}$/.test(text)) return Number(text);
  const isIso = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2}))?$/.test(text);
  const ms = isIso ? Date.parse(text) : Number.NaN;
  return Number.isNaN(ms) ? undefined : ms;
}
