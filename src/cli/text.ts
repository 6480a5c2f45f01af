/** Rows as aligned columns: numbers to the right, all else to the left. */
export function aligned(rows: readonly (readonly (string | number)[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, String(cell).length);
  }
  return rows.map((row) =>
    row
      .map((cell, i) =>
        typeof cell === 'number' ? String(cell).padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0),
      )
      .join('  ')
      .trimEnd(),
  );
}

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

export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

export function time(ms: number): string {
  return new Date(ms).toISOString();
}
