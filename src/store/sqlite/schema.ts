import { randomBytes } from 'node:crypto';
import { SluiceError } from '../../base/errors.ts';
import { type Column, haveKeysAndValues, StoreFailure } from '../store.ts';
import type { Connection } from './connection.ts';

/** Version of the tables below, kept in the state row. */
const STORE_FORMAT = 3;

/**
 * Sluice's own tables. The state row is where the exactly-once promise lives: the watermark moves in the same
 * transaction as the writes below it. `batch_after` and `batch_result` remember what the batch that started there has
 * done so far, `change_id` and `change_result` the same of the last change of the queue, so that the answer survives the
 * death of the thread that worked it out.
 *
 * `_sluice_keys` names the keys that something in the database may be encrypted with: not what they are, but a proof that only they
 * open, and how a passphrase becomes one.
 *
 * `_sluice_dead_letters_overwritten` names the keys of a dead group or `clear` that have been written since: a retry leaves
 * them alone.
 */
const OWN_TABLES = `
  CREATE TABLE IF NOT EXISTS _sluice_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    format INTEGER NOT NULL,
    database_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    owner TEXT NOT NULL,
    applied_seq INTEGER NOT NULL,
    batch_after INTEGER NOT NULL,
    batch_result TEXT NOT NULL,
    change_id TEXT NOT NULL DEFAULT '',
    change_result TEXT NOT NULL DEFAULT ''
  );
  CREATE TABLE IF NOT EXISTS _sluice_dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    seq INTEGER NOT NULL,
    table_name TEXT,
    operation TEXT NOT NULL,
    key TEXT,
    accepted_at INTEGER NOT NULL,
    first_failed_at INTEGER NOT NULL,
    last_failed_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    error_class TEXT NOT NULL,
    error_code TEXT NOT NULL,
    error_message TEXT NOT NULL,
    write BLOB NOT NULL,
    origin TEXT
  );
  CREATE INDEX IF NOT EXISTS _sluice_dead_letters_seq ON _sluice_dead_letters (seq);
  CREATE TABLE IF NOT EXISTS _sluice_dead_letters_overwritten (
    id INTEGER NOT NULL,
    table_name TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (id, table_name, key)
  ) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS _sluice_keys (
    id TEXT PRIMARY KEY,
    algorithm TEXT NOT NULL,
    derivation TEXT,
    active INTEGER NOT NULL,
    proof BLOB NOT NULL
  ) WITHOUT ROWID;
`;

/** On a column that a migration may have to add first. */
const ORIGIN_INDEX = `
  CREATE UNIQUE INDEX IF NOT EXISTS _sluice_dead_letters_origin ON _sluice_dead_letters (origin) WHERE origin IS NOT NULL`;

/** From each format to the next. */
const MIGRATIONS: Readonly<Record<number, string>> = {
  1: `
    ALTER TABLE _sluice_state ADD COLUMN change_id TEXT NOT NULL DEFAULT '';
    ALTER TABLE _sluice_state ADD COLUMN change_result TEXT NOT NULL DEFAULT '';
    ALTER TABLE _sluice_dead_letters ADD COLUMN origin TEXT;
    UPDATE _sluice_state SET format = 2;`,
  2: 'UPDATE _sluice_state SET format = 3;',
};

export interface StateRow {
  readonly databaseId: string;
  readonly epoch: number;
  readonly owner: string;
  readonly appliedSeq: number;
  readonly batchAfter: number;
  readonly batchResult: string;
  readonly changeId: string;
  readonly changeResult: string;
}

/** Creates what is missing and makes sure that `owner` has the database. Runs in the caller's transaction. */
export function claimState(db: Connection, owner: string, takeOver: boolean): void {
  db.exec(OWN_TABLES);
  db.prepare(
    `INSERT INTO _sluice_state (id, format, database_id, epoch, owner, applied_seq, batch_after, batch_result)
     VALUES (1, ?, ?, 1, ?, 0, -1, '') ON CONFLICT (id) DO NOTHING`,
  ).run(BigInt(STORE_FORMAT), randomBytes(16).toString('hex'), owner);
  const readFormat = () => db.prepare('SELECT format FROM _sluice_state').pluck().get() as number;
  let format = readFormat();
  for (let step = MIGRATIONS[format]; step !== undefined; step = MIGRATIONS[format]) {
    db.exec(step);
    format = readFormat();
  }
  if (format === STORE_FORMAT) db.exec(ORIGIN_INDEX);
  else {
    throw new SluiceError(
      'SLUICE_UNSUPPORTED',
      `the database has Sluice's tables in format ${String(format)}, this version reads ${STORE_FORMAT}: open it with the version that wrote it`,
    );
  }
  if (takeOver) {
    // A dead letter above the watermark (a queue brought in from elsewhere) must not share its number with a new write.
    db.prepare(
      `UPDATE _sluice_state SET owner = ?,
         applied_seq = max(applied_seq, (SELECT ifnull(max(seq), 0) FROM _sluice_dead_letters))`,
    ).run(owner);
  } else if (db.prepare('SELECT owner FROM _sluice_state').pluck().get() !== owner) {
    throw takenOver();
  }
}

/** The state row has another owner by now. */
export function takenOver(): StoreFailure {
  return new StoreFailure('fatal', 'the database was taken over by another process, which is now its only writer');
}

export const SELECT_STATE = `
  SELECT database_id AS databaseId, epoch, owner, applied_seq AS appliedSeq, batch_after AS batchAfter,
         batch_result AS batchResult, change_id AS changeId, change_result AS changeResult FROM _sluice_state`;

/** Whether there is a table of this name with keys and values. A key that is only a part of the primary key names several rows. */
export function isKeyTable(db: Connection, table: string): boolean {
  const columns = columnsOf(db, table);
  return columns !== undefined && haveKeysAndValues(columns);
}

/** The tables of users that have the shape of key-value tables. */
export function keyTablesOf(db: Connection): string[] {
  const names = db
    .prepare(`SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
      AND name NOT LIKE '\\_sluice\\_%' ESCAPE '\\' ORDER BY name`)
    .pluck()
    .all() as string[];
  return names.filter((name) => isKeyTable(db, name));
}

/** The columns of a table; `undefined` where there is none. */
export function columnsOf(db: Connection, table: string): Column[] | undefined {
  const rows = db.prepare('SELECT name, type, pk FROM pragma_table_info(?)').all(table) as {
    name: string;
    type: string;
    pk: number;
  }[];
  if (rows.length === 0) return undefined;
  return rows.map(({ name, type, pk }) => ({ name, type: type.toUpperCase(), primaryKey: pk > 0 }));
}

/** Exactly the table that Sluice (or NanaSQLite) makes, but for its name. */
export const PLAIN_KEY_TABLE: RegExp = /\(\s*"?key"?\s+TEXT\s+PRIMARY\s+KEY\s*,\s*"?value"?\s+TEXT\s*\)\s*$/i;

/** See {@link SyncReads.writesSpread}. */
export function writesSpread(db: Connection, table: string): boolean {
  const { spreads, definition } = db
    .prepare(
      `SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger')
           OR EXISTS (SELECT 1 FROM sqlite_schema AS t, pragma_foreign_key_list(t.name) AS f WHERE t.type = 'table'
                AND (f.on_update NOT IN ('NO ACTION', 'RESTRICT') OR f.on_delete NOT IN ('NO ACTION', 'RESTRICT'))) AS spreads,
         (SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ? COLLATE NOCASE) AS definition`,
    )
    .get(table) as { spreads: number; definition: string | null };
  return spreads === 1 || (definition !== null && !PLAIN_KEY_TABLE.test(definition));
}
