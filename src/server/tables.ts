import { SluiceError } from '../base/errors.ts';
import { foldName } from '../base/fold-name.ts';
import { show } from '../base/options.ts';
import { toSqlValue } from '../db/codec.ts';
import type { Database } from '../db/database.ts';
import { checkKey } from '../db/keys.ts';
import { checkName } from '../db/names.ts';
import type { Rows } from '../db/rows.ts';
import type { Table } from '../db/table.ts';

/** What a table is for: `{"key":…, "value":…}` pairs, rows, or nothing that can be written here, as a view. */
export type TableKind = 'pairs' | 'rows' | 'other';

/** A table of the database, with its name as it was made: SQLite does not tell upper from lower case. */
export interface KnownTable {
  readonly name: string;
  readonly kind: TableKind;
}

/** The place that pairs go to. */
export class PairTable implements KnownTable {
  readonly kind = 'pairs';
  readonly name: string;
  readonly #db: Database;

  constructor(db: Database, name: string) {
    this.#db = db;
    this.name = name;
  }

  /** Returns `false` when staging is filling up. */
  write({ key, value }: Record<string, unknown>): boolean {
    // First, since a name that was asked for as a table of pairs is no table of rows any more.
    checkKey(key);
    return this.#table.set(key, value);
  }

  get(key: string, timeoutMs: number): Promise<unknown> {
    return this.#table.aget(key, undefined, { timeoutMs });
  }

  get #table(): Table {
    return this.#db.table(this.name);
  }
}

/**
 * The place that rows go to. Columns are added as they come, without a declared type: what was sent is what is stored, and
 * a column whose first value is 7 leaves a later "007" as it is.
 */
export class RowTable implements KnownTable {
  readonly kind = 'rows';
  readonly name: string;
  readonly #db: Database;
  /** The columns as they are spelt, and in lower case. */
  readonly #spelt: Set<string>;
  readonly #known: Set<string>;
  #rows: Rows;

  constructor(db: Database, name: string, columns: readonly string[]) {
    this.#db = db;
    this.name = name;
    this.#spelt = new Set(columns);
    this.#known = new Set(columns.map(foldName));
    this.#rows = db.rows(name, { onNewColumn: 'add' });
  }

  /** Returns `false` when staging is filling up. */
  write(row: Record<string, unknown>): boolean {
    for (const name in row) {
      if (this.#spelt.has(name)) continue;
      this.#learn(row);
      break;
    }
    return this.#rows.append(row);
  }

  #learn(row: Record<string, unknown>): void {
    const names = Object.keys(row);
    if (new Set(names.map(foldName)).size < names.length) {
      throw new SluiceError(
        'SLUICE_INVALID_VALUE',
        'a column is there twice: SQLite does not tell upper from lower case',
      );
    }
    // A row that is refused must not leave columns behind.
    for (const name of names) toSqlValue(row[name], name);
    const fresh = names.filter((name) => !this.#known.has(foldName(name)));
    if (fresh.length === 0) return;
    const columns = Object.fromEntries(fresh.map((name) => [name, 'any' as const]));
    this.#rows = this.#db.rows(this.name, { columns, onNewColumn: 'add' });
    for (const name of fresh) {
      this.#spelt.add(name);
      this.#known.add(foldName(name));
    }
  }
}

interface ColumnRow {
  readonly tableName: string;
  readonly type: string;
  readonly column: string;
  readonly primaryKey: number;
}

const SELECT_COLUMNS = `
  SELECT t.name AS tableName, t.type, c.name AS "column", c.pk AS primaryKey
  FROM sqlite_schema AS t JOIN pragma_table_info(t.name) AS c
  WHERE t.type IN ('table', 'view') AND t.name = ? COLLATE NOCASE`;

/**
 * The tables that the collector has met, and what each is for. SQLite alone does not know that: a table may still be on
 * its way to it.
 */
export class Tables {
  readonly #db: Database;
  readonly #known = new Map<string, PairTable | RowTable>();

  constructor(db: Database) {
    this.#db = db;
  }

  /** The table of a name, `undefined` if there is none. A refused name is `SLUICE_INVALID_OPTION`. */
  async find(name: string, timeoutMs: number): Promise<PairTable | RowTable | KnownTable | undefined> {
    checkName(name, 'table name');
    const known = this.#known.get(foldName(name));
    if (known !== undefined) return known;
    let columns = await this.#db.afetchAll<ColumnRow>(SELECT_COLUMNS, [name], { stale: true, timeoutMs });
    // What was written past the collector, or recovered from the log, may still be staged.
    if (columns.length === 0 && this.#db.stats().pending > 0) {
      columns = await this.#db.afetchAll<ColumnRow>(SELECT_COLUMNS, [name], { timeoutMs });
    }
    return this.#known.get(foldName(name)) ?? this.#adopt(columns);
  }

  /**
   * The table of a name, or one that is there once it is written to: {@link Tables.keep} it then. Errors:
   * `SLUICE_CONFLICT` where it is there for something else.
   */
  claim(name: string, kind: 'pairs' | 'rows'): PairTable | RowTable {
    const table = this.#known.get(foldName(name)) ?? this.#make(name, kind, []);
    if (table.kind !== kind) throw conflict(table);
    return table;
  }

  keep(table: PairTable | RowTable): void {
    this.#known.set(foldName(table.name), table);
  }

  #adopt(columns: readonly ColumnRow[]): PairTable | RowTable | KnownTable | undefined {
    const [first] = columns;
    if (first === undefined) return undefined;
    const name = first.tableName;
    if (first.type !== 'table') return { name, kind: 'other' };
    const names = columns.map(({ column }) => column);
    const table = this.#make(name, isPairs(columns) ? 'pairs' : 'rows', names);
    this.keep(table);
    return table;
  }

  #make(name: string, kind: 'pairs' | 'rows', columns: readonly string[]): PairTable | RowTable {
    return kind === 'pairs' ? new PairTable(this.#db, name) : new RowTable(this.#db, name, columns);
  }
}

/** The refusal of a write to a table that is there for something else. */
export function conflict({ name, kind }: KnownTable): SluiceError {
  const takes = {
    pairs: 'has {"key":…, "value":…} pairs, and takes no rows',
    rows: 'has rows, and takes no {"key":…, "value":…} pairs',
    other: 'is a view, which cannot be written to',
  };
  return new SluiceError('SLUICE_CONFLICT', `table ${show(name)} ${takes[kind]}: choose another name`);
}

function isPairs(columns: readonly ColumnRow[]): boolean {
  const keys = columns.filter(({ primaryKey }) => primaryKey > 0).map(({ column }) => foldName(column));
  return keys.length === 1 && keys[0] === 'key' && columns.some(({ column }) => foldName(column) === 'value');
}
