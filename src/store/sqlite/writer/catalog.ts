import { foldName } from '../../../base/fold-name.ts';
import { EXPIRES_AT, expiryTableOf, ownerOfExpiries } from '../../expiry-table.ts';
import { type Connection, quote, type Statement } from '../connection.ts';
import { columnsOf, PLAIN_KEY_TABLE } from '../schema.ts';

/** What the writer knows of a key-value table, with the statements for it. */
export interface KeyTable {
  /** Its name, see {@link foldName}. */
  readonly folded: string;
  /**
   * Exactly the table that Sluice (or NanaSQLite) makes: no trigger, no constraint, no index and no foreign key of the
   * user's, and no expiries. Only here can nobody tell a coalesced write from one that was overwritten.
   */
  readonly plain: boolean;
  readonly put: Statement;
  /** Puts {@link ROWS_AT_ONCE} rows with one statement. */
  readonly putRows: Statement;
  readonly delete: Statement;
  readonly clear: Statement;
  /** Where its rows can expire: what takes the expiry of a key away, or of all. */
  readonly expiries: { readonly delete: Statement; readonly clear: Statement } | undefined;
}

/** How a row is appended. */
export interface Appending {
  /** How many values it has. */
  readonly columns: number;
  /** Appends {@link ROWS_AT_ONCE} rows with one statement. */
  readonly rows: Statement;
}

/** Most of what a small row costs is the call of the statement: in this way twice as many go down in a second. */
export const ROWS_AT_ONCE = 16;

const VALUES_MAX = 1_000;
const STATEMENTS_MAX = 500;

/** Table facts and prepared statements of the writer's connection, forgotten when the schema changes. */
export class Catalog {
  readonly #db: Connection;
  readonly #schemaVersion: Statement;
  readonly #triggersOn: Statement;
  readonly #referencesTo: Statement;
  readonly #definition: Statement;
  readonly #constraints: Statement;
  readonly #keyTables = new Map<string, KeyTable>();
  readonly #triggers = new Map<string, boolean>();
  readonly #appending = new Map<string, Appending | undefined>();
  readonly #statements = new Map<string, Statement>();
  #version: unknown;

  constructor(db: Connection) {
    this.#db = db;
    this.#schemaVersion = db.prepare('PRAGMA schema_version').pluck();
    this.#triggersOn = db
      .prepare(`SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE`)
      .pluck();
    this.#referencesTo = db
      .prepare(
        `SELECT count(*) FROM sqlite_master AS t, pragma_foreign_key_list(t.name) AS f
         WHERE t.type = 'table' AND f."table" = ? COLLATE NOCASE`,
      )
      .pluck();
    this.#definition = db.prepare(
      `SELECT sql, (SELECT count(*) FROM sqlite_master WHERE type = 'index' AND tbl_name = ? COLLATE NOCASE AND sql IS NOT NULL) AS indexes
         FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE`,
    );
    this.#constraints = db.prepare(
      `SELECT sql, (SELECT count(*) FROM pragma_foreign_key_list(?)) AS "references"
         FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE`,
    );
  }

  /** To be called at the start of each transaction. */
  refresh(): void {
    const version = this.#schemaVersion.get();
    if (version !== this.#version) this.forget();
    this.#version = version;
  }

  /** To be called after a change of the schema that is part of the transaction. */
  forget(): void {
    this.#keyTables.clear();
    this.#triggers.clear();
    this.#appending.clear();
    this.#version = undefined;
  }

  /** A key-value table, made if there is none. */
  keyTable(name: string): KeyTable {
    const known = this.#keyTables.get(name);
    if (known !== undefined) return known;
    const table = quote(name);
    if (columnsOf(this.#db, name) === undefined) {
      this.#db.exec(`CREATE TABLE ${table} (key TEXT PRIMARY KEY, value TEXT)`);
      const owner = ownerOfExpiries(name);
      if (owner !== undefined) {
        this.#db.exec(`CREATE INDEX ${quote(`_sluice_expires_${owner}`)} ON ${table} (${EXPIRES_AT})`);
      }
      this.forget();
    }
    const expiries = expiryTableOf(name);
    const canExpire = columnsOf(this.#db, expiries) !== undefined;
    const put = (rows: number) =>
      this.#db.prepare(
        `INSERT INTO ${table} (key, value) VALUES ${tuples('(?, ?)', rows)} ON CONFLICT (key) DO UPDATE SET value = excluded.value`,
      );
    const made: KeyTable = {
      folded: foldName(name),
      plain: !canExpire && !this.mayTrigger(name) && this.#isPlain(name),
      put: put(1),
      putRows: put(ROWS_AT_ONCE),
      delete: this.#db.prepare(`DELETE FROM ${table} WHERE key = ?`),
      clear: this.#db.prepare(`DELETE FROM ${table}`),
      expiries: canExpire
        ? {
            delete: this.#db.prepare(`DELETE FROM ${quote(expiries)} WHERE key = ?`),
            clear: this.#db.prepare(`DELETE FROM ${quote(expiries)}`),
          }
        : undefined,
    };
    this.#keyTables.set(name, made);
    return made;
  }

  /** Whether a write to the table may run a trigger: one of its own, or one that a foreign key's action leads to. */
  mayTrigger(name: string): boolean {
    let found = this.#triggers.get(name);
    if (found === undefined) {
      found = (this.#triggersOn.get(name) as number) > 0 || (this.#referencesTo.get(name) as number) > 0;
      this.#triggers.set(name, found);
    }
    return found;
  }

  /**
   * How rows are appended several at a time, where nobody can tell that from one by one: what SQLite refuses is then undone as
   * a whole, and no row can be accepted on account of one that comes after it.
   */
  appending(table: string, sql: string): Appending | undefined {
    if (this.#appending.has(sql)) return this.#appending.get(sql);
    if (this.#appending.size >= STATEMENTS_MAX) this.#appending.clear();
    const made = this.#makeAppending(table, sql);
    this.#appending.set(sql, made);
    return made;
  }

  #makeAppending(table: string, sql: string): Appending | undefined {
    const [tuple] = LAST_TUPLE.exec(sql) ?? [];
    if (tuple === undefined || this.mayTrigger(table) || !this.#isUndoneWhole(table)) return undefined;
    const columns = tuple.split(',').length;
    if (columns * ROWS_AT_ONCE > VALUES_MAX) return undefined;
    const others = tuples(tuple, ROWS_AT_ONCE - 1);
    return { columns, rows: this.#db.prepare(`${sql}, ${others}`) };
  }

  statement(sql: string): Statement {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      if (this.#statements.size >= STATEMENTS_MAX) this.#statements.clear();
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #isPlain(name: string): boolean {
    const { sql, indexes } = (this.#definition.get(name, name) ?? { sql: '', indexes: 1 }) as {
      sql: string;
      indexes: number;
    };
    return indexes === 0 && PLAIN_KEY_TABLE.test(sql);
  }

  #isUndoneWhole(table: string): boolean {
    const { sql, references } = (this.#constraints.get(table, table) ?? { sql: '', references: 0 }) as {
      sql: string;
      references: number;
    };
    return references === 0 && ORDINARY_TABLE.test(sql);
  }
}

/** The row that a statement of Sluice's own inserts. */
const LAST_TUPLE = /\(\?(?:, \?)*\)$/;

/** Neither virtual, nor with a constraint that has a way of its own to say no (`ON CONFLICT FAIL`). */
const ORDINARY_TABLE = /^CREATE TABLE (?!.*\bCONFLICT\b)/is;

function tuples(tuple: string, count: number): string {
  return Array.from({ length: count }, () => tuple).join(', ');
}
