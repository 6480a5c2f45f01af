const UNITS = ['KiB', 'MiB', 'GiB', 'TiB'] as const;

/** A number of bytes, and what that is about where it is large. */
export function size(bytes: number): string {
  let amount = bytes;
  let unit = '';
  for (const next of UNITS) {
    if (amount < 1024) break;
    amount /= 1024;
    unit = next;
  }
  return unit === '' ? `${bytes} bytes` : `${bytes} bytes (${amount.toFixed(1)} ${unit})`;
}

/** A count with its noun: `1 segment`, `2 segments`. */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** A point in time, to the millisecond, in the zone that --since and --until understand. */
export function time(ms: number): string {
  return new Date(ms).toISOString();
}
