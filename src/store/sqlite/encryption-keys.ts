import { type Accepts, keyIdOf } from '../../base/encryption/index.ts';
import type { KeysFound, StoredKey } from '../store.ts';
import { type Connection, quote } from './connection.ts';
import { columnsOf, keyTablesOf } from './schema.ts';

interface KeyRow {
  readonly id: string;
  readonly algorithm: string;
  readonly derivation: string | null;
  readonly active: number;
  readonly proof: Uint8Array;
}

/** The keys that the database names, and what it has been without them. Changes nothing. */
export function findKeys(db: Connection): KeysFound {
  const rows =
    columnsOf(db, '_sluice_keys') === undefined ? [] : (db.prepare('SELECT * FROM _sluice_keys').all() as KeyRow[]);
  const keys = rows.map(
    ({ id, algorithm, derivation, active, proof }): StoredKey => ({
      id,
      algorithm: algorithm as StoredKey['algorithm'],
      derivation: derivation === null ? undefined : (JSON.parse(derivation) as StoredKey['derivation']),
      active: active === 1,
      proof,
    }),
  );
  if (keys.length > 0) return { keys, before: 'nothing', sample: undefined };
  const tables = keyTablesOf(db);
  const before: Accepts =
    columnsOf(db, '_sluice_state') !== undefined ? 'plain' : tables.length > 0 ? 'nanasqlite' : 'nothing';
  return { keys, before, sample: before === 'nanasqlite' ? sampleOf(db, tables) : undefined };
}

/** Writes down which key is the active one. Runs in the caller's transaction. */
export function storeKey(db: Connection, { id, algorithm, derivation, proof }: StoredKey): void {
  db.prepare('UPDATE _sluice_keys SET active = 0').run();
  db.prepare(
    `INSERT INTO _sluice_keys (id, algorithm, derivation, active, proof) VALUES (?, ?, ?, 1, ?)
     ON CONFLICT (id) DO UPDATE SET active = 1, proof = excluded.proof`,
  ).run(id, algorithm, derivation === undefined ? null : JSON.stringify(derivation), proof);
}

/** Something that must be encrypted, if anything is: NanaSQLite stores what is not as text. */
function sampleOf(db: Connection, tables: readonly string[]): Uint8Array | undefined {
  for (const table of tables) {
    const value = db
      .prepare(`SELECT value FROM ${quote(table)} WHERE typeof(value) = 'blob' LIMIT 1`)
      .pluck()
      .get();
    if (value instanceof Uint8Array && keyIdOf(value) === undefined) return value;
  }
  return undefined;
}
