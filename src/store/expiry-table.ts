const PREFIX = '_sluice_expiry_';

/**
 * Where it is written when the rows of a key-value table expire: a key-value table itself, with the same keys, whose values are
 * moments, milliseconds since 1970 in digits. A key that is not in it does not expire. Whoever writes or deletes a row takes its
 * expiry away; who wants another one says so in the same atomic group.
 */
export function expiryTableOf(table: string): string {
  return PREFIX + table;
}

/** The table that such a table is for; `undefined` for any other table. */
export function ownerOfExpiries(table: string): string | undefined {
  return table.startsWith(PREFIX) ? table.slice(PREFIX.length) : undefined;
}

/** SQL for all such tables. */
export const SELECT_EXPIRY_TABLES: string = `SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB '${PREFIX}*' ORDER BY name`;

/** The moment of a row of such a table in SQL: a number, whatever stands there. It has an index. */
export const EXPIRES_AT = 'CAST(value AS INTEGER)';
