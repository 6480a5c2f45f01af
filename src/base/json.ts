/** What SQLite's values are in JSON: an integer beyond 2^53 is its digits, a BLOB is `{"$blob": base64}`. */
export function toJsonValue(value: unknown): unknown {
  if (typeof value === 'bigint') return String(value);
  return value instanceof Uint8Array ? { $blob: Buffer.from(value).toString('base64') } : value;
}

/** JSON with such values anywhere in it. Not for a Buffer: JSON.stringify asks that for its own form first. */
export function toJson(value: unknown, space?: number): string {
  return JSON.stringify(value, (_, part: unknown) => toJsonValue(part), space);
}
