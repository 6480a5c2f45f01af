import { Writable } from 'node:stream';
import { SluiceError } from '../base/errors.ts';
import { type SqlValue, Target } from '../base/frame/index.ts';
import { OptionReader, show } from '../base/options.ts';
import { checkWait, type WaitOptions, waitFor } from '../base/waiting.ts';
import { bytesOfValues } from '../engine/index.ts';
import { listOf, toSqlValue } from './codec.ts';
import type { Core } from './core.ts';
import { readHookList, refusing, telling } from './hooks.ts';
import { checkName } from './names.ts';
import { readSchema, type Schema, type Stored, storable, type Validation } from './schema.ts';
import type { RowStep } from './transaction.ts';

/** Type of a column, as SQLite's type affinities (https://sqlite.org/datatype3.html); `any` declares none. */
export type ColumnType = 'integer' | 'real' | 'text' | 'blob' | 'any';

const COLUMN_TYPES: readonly ColumnType[] = ['integer', 'real', 'text', 'blob', 'any'];

/** Host parameters of one statement: https://sqlite.org/limits.html; columns of a table are 2,000 at most. */
const COLUMNS_MAX = 2_000;

/** Sets of columns whose statements are kept. */
const TARGETS_MAX = 500;

/**
 * Looks at the rows that are appended to a table; changes them, or refuses them. As {@link TableHook}, but that a row has no
 * key, and is read with SQL.
 */
export interface RowHook<T = Record<string, unknown>, In = T> {
  /** Returns the row to append: the one it was given, or another one. */
  beforeWrite?(row: In): In;
  /** The row is staged. What it throws is thrown outside of the call, as by an event listener. */
  onWriteSuccess?(row: T): void;
}

/** Options of {@link Database.rows}. */
export interface RowsOptions<T, In = T, Coerce extends boolean = boolean> {
  /**
   * The columns and their types. A table that does not exist is created with them; in one that exists they must be
   * there, or are added, as `onNewColumn` says. Without `columns`, those of the table are taken.
   */
  readonly columns?: Readonly<Record<string, ColumnType>> | undefined;
  /** Checks each row before it is accepted, after the hooks; the row is refused with `SLUICE_VALIDATION` and all issues. */
  readonly schema?: Schema<T, In> | undefined;
  /**
   * Append what the schema made of a row (its defaults, its conversions) instead of the row as it was given.
   * @defaultValue false
   */
  readonly coerce?: Coerce | undefined;
  /** What looks at each row, in this order. @defaultValue none */
  readonly hooks?: readonly RowHook<NoInfer<Stored<T, In, Coerce>>, NoInfer<In>>[] | undefined;
  /**
   * What a row with an unknown column does: `reject` refuses it, `add` adds the column (and makes the table, if there is
   * none yet), with a type that follows from the value.
   * @defaultValue 'reject'
   */
  readonly onNewColumn?: 'reject' | 'add' | undefined;
}

/**
 * A table that rows are appended to, each an `INSERT` that is written behind. Made by {@link Database.rows}.
 *
 * A `Date` is stored as integer milliseconds, a boolean as 0 or 1, an object or array as JSON text, a bigint as a 64-bit
 * integer; `undefined` leaves the column to its default. NaN, infinities and what does not fit are refused with
 * `SLUICE_INVALID_VALUE`; a row is checked whole before it is accepted. Rows are read with SQL: {@link Database.afetchAll}.
 *
 * A row that SQLite will never take, because of a constraint say, goes to the dead-letter queue; the others are applied.
 */
export class Rows<T extends object = Record<string, unknown>> {
  /** Name of the table. */
  readonly name: string;
  readonly #core: Core;
  readonly #shape: RowShape;
  readonly #validation: Validation | undefined;
  readonly #hooks: readonly RowHook<T>[];
  readonly #addColumns: boolean;
  /** Whether rows are taken as they come. */
  readonly #isPlain: boolean;

  /** @internal */
  constructor(core: Core, shape: RowShape, { validation, hooks, onNewColumn }: ResolvedRowsOptions<T>) {
    this.name = shape.table;
    this.#core = core;
    this.#shape = shape;
    this.#validation = validation;
    this.#hooks = hooks;
    this.#addColumns = onNewColumn === 'add';
    this.#isPlain = hooks.length === 0 && validation === undefined;
  }

  /**
   * Appends a row. Returns `false` when staging is filling up, as {@link Table.set} does.
   *
   * @example
   * ```ts
   * import { open } from 'sluicedb';
   *
   * const db = await open(':memory:');
   * const readings = db.rows('readings', { columns: { at: 'integer', room: 'text', celsius: 'real' } });
   * readings.append({ at: new Date(), room: 'kitchen', celsius: 21.5 });
   * console.log(await db.afetchAll('SELECT room, celsius FROM readings')); // [ { room: 'kitchen', celsius: 21.5 } ]
   * await db.close();
   * ```
   */
  append(row: T): boolean {
    return this.#append(this.#prepare(row));
  }

  /** Appends a row; resolves when it is as safe as the durability level says. */
  aappend(row: T, wait?: WaitOptions): Promise<void> {
    try {
      checkWait(wait);
      const { engine } = this.#core;
      engine.assertMayAwait();
      const prepared = this.#prepare(row);
      const append = () => {
        this.#append(prepared);
        return engine.acknowledgement();
      };
      const bytes = bytesOfValues(prepared.values);
      const done = engine.admission.hasRoom(bytes) ? append() : engine.whenRoom(bytes, append, wait ?? {});
      return wait === undefined ? done : waitFor(done, 'the append', wait, this.#core.clock);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Appends several rows, each a write of its own. All are accepted, or none: `SLUICE_FULL` where not all have room. */
  appendMany(rows: Iterable<T>): boolean {
    const prepared = this.#prepareAll(rows);
    const bytes = prepared.reduce((total, { values }) => total + bytesOfValues(values), 0);
    this.#core.engine.assertRoom(bytes, prepared.length);
    let plenty = !this.#core.engine.admission.needsDrain;
    for (const row of prepared) plenty = this.#append(row);
    return plenty;
  }

  /** Appends several rows, each a write of its own, waiting for room where needed; resolves when all are safe. */
  async aappendMany(rows: Iterable<T>, wait?: WaitOptions): Promise<void> {
    checkWait(wait);
    const { engine, clock } = this.#core;
    engine.assertMayAwait();
    for (const row of this.#prepareAll(rows)) {
      const bytes = bytesOfValues(row.values);
      if (engine.admission.hasRoom(bytes)) this.#append(row);
      else await engine.whenRoom(bytes, () => this.#append(row), wait ?? {});
    }
    const done = engine.acknowledgement(false);
    return wait === undefined ? done : waitFor(done, 'the append', wait, clock);
  }

  /**
   * A stream that appends the rows that are written to it, for `pipeline()`. It takes as much as staging has room for,
   * and finishes when all rows are as safe as the durability level says. A row that is refused ends it.
   */
  writable(): Writable {
    return new Writable({
      objectMode: true,
      highWaterMark: 256,
      writev: (chunks, done) => {
        this.aappendMany(chunks.map(({ chunk }) => chunk as T)).then(() => done(), done);
      },
    });
  }

  /** @internal A row for a transaction. */
  toStep(given: object): RowStep {
    const prepared = this.#prepare(given as T);
    const { row, target, values } = prepared;
    const { version } = this.#shape;
    const member = { target, values };
    return {
      member,
      // Not after the hooks: they have looked at it.
      current: () =>
        this.#shape.version === version
          ? member
          : this.#shape.prepare(row as Record<string, unknown>, this.#addColumns),
      told: () => this.#told(prepared),
    };
  }

  #prepare(row: T): PreparedRow<T> {
    try {
      return this.#check(row);
    } catch (error) {
      throw this.#core.engine.countInvalid(error);
    }
  }

  #prepareAll(rows: Iterable<T>): PreparedRow<T>[] {
    try {
      return listOf(rows, 'rows').map((row) => this.#check(row));
    } catch (error) {
      throw this.#core.engine.countInvalid(error);
    }
  }

  #check(given: T): PreparedRow<T> {
    assertRow(given);
    const row = this.#isPlain ? given : this.#checked(given);
    const { target, values } = this.#shape.prepare(row as Record<string, unknown>, this.#addColumns);
    return { row, target, values };
  }

  /** What hooks and schema make of a row. */
  #checked(given: T): T {
    let row = given;
    for (const hook of this.#hooks) {
      if (hook.beforeWrite !== undefined) row = refusing('a hook refused the row', () => hook.beforeWrite?.(row) as T);
    }
    if (this.#validation !== undefined) row = storable(this.#validation, row, 'the row');
    if (row !== given) assertRow(row);
    return row;
  }

  /** Stages a row, and tells the hooks. */
  #append(prepared: PreparedRow<T>): boolean {
    const plenty = this.#core.engine.append(prepared.target, prepared.values);
    this.#told(prepared);
    return plenty;
  }

  #told({ row }: PreparedRow<T>): void {
    const { engine, indirect } = this.#core;
    if (this.#shape.holdsKeys) indirect.lastSeq = engine.lastSeq;
    for (const hook of this.#hooks) telling('onWriteSuccess', () => hook.onWriteSuccess?.(row));
  }
}

/** The values of a row, and the statement that they are for. */
interface Values {
  readonly target: Target;
  readonly values: SqlValue[];
}

/** A row that was checked. */
interface PreparedRow<T> extends Values {
  readonly row: T;
}

/** How many names `Object.keys` would list. No list is made: this is done for each row. */
function namesIn(row: object): number {
  let names = 0;
  for (const name in row) if (Object.hasOwn(row, name)) names++;
  return names;
}

function assertRow(row: unknown): void {
  if (typeof row === 'object' && row !== null && !Array.isArray(row)) return;
  throw new SluiceError('SLUICE_INVALID_VALUE', `a row must be an object, not ${show(row)}`);
}

/** The columns of a table, shared by all that append to it, and the statements for the sets of columns that rows have. */
export class RowShape {
  readonly table: string;
  readonly #core: Core;
  readonly #columns: string[] = [];
  readonly #known = new Set<string>();
  readonly #targets = new Map<string, Target>();
  #full: Target | undefined;
  #version = 0;
  #holdsKeys = false;

  constructor(core: Core, table: string) {
    this.table = table;
    this.#core = core;
    this.learn();
  }

  /** Takes in what columns the table has by now. */
  learn(): void {
    const columns = this.#core.store.sync.columns(this.table) ?? [];
    for (const { name } of columns) if (!this.#known.has(name.toLowerCase())) this.#learn(name);
    this.#holdsKeys = columns.some(({ name, primaryKey }) => primaryKey && name.toLowerCase() === 'key');
  }

  /** The table is going: rows that were accepted for it would die. */
  forget(): void {
    this.#columns.length = 0;
    this.#known.clear();
    this.#targets.clear();
    this.#full = undefined;
    this.#version++;
  }

  /** Another one, where what it knew of the table may not hold any more. */
  get version(): number {
    return this.#version;
  }

  /** It may be a key-value table too. */
  get holdsKeys(): boolean {
    return this.#holdsKeys;
  }

  /** Looks again which columns there are. */
  reload(): void {
    this.forget();
    this.learn();
  }

  get exists(): boolean {
    return this.#columns.length > 0;
  }

  /** Makes sure that there are these columns. */
  declare(columns: Readonly<Record<string, ColumnType>>, addColumns: boolean): void {
    const missing = Object.entries(columns).filter(([name]) => !this.#known.has(name.toLowerCase()));
    if (missing.length === 0) return;
    if (this.exists && !addColumns) {
      throw new SluiceError(
        'SLUICE_INVALID_OPTION',
        `table ${show(this.table)} exists and has no column ${missing.map(([name]) => show(name)).join(', ')}: add it, or pass onNewColumn: 'add'`,
      );
    }
    this.#add(missing);
  }

  prepare(row: Record<string, unknown>, addColumns: boolean): Values {
    const columns = this.#columns;
    const values = new Array<SqlValue>(columns.length);
    for (let i = 0; i < columns.length; i++) {
      const name = columns[i] as string;
      const value = row[name];
      // Every object inherits a `constructor` and the like, which are no values of the row.
      if (value === undefined || !Object.hasOwn(row, name)) return this.#prepareOther(row, addColumns);
      values[i] = toSqlValue(value, name);
    }
    if (this.#full === undefined || namesIn(row) !== columns.length) return this.#prepareOther(row, addColumns);
    return { target: this.#full, values };
  }

  /** A row that has not just all of the columns. */
  #prepareOther(row: Record<string, unknown>, addColumns: boolean): Values {
    const names = Object.keys(row).filter((name) => row[name] !== undefined);
    if (names.length === 0) throw new SluiceError('SLUICE_INVALID_VALUE', 'a row must have at least one column');
    const values = names.map((name) => toSqlValue(row[name], name));
    const unknown = names.filter((name) => !this.#known.has(name.toLowerCase()));
    if (unknown.length > 0) {
      if (!addColumns && !this.exists) {
        throw new SluiceError(
          'SLUICE_NOT_FOUND',
          `table ${show(this.table)} is not there any more: make it anew, with acreateTable or with the columns of rows()`,
        );
      }
      if (!addColumns) {
        throw new SluiceError(
          'SLUICE_INVALID_VALUE',
          `table ${show(this.table)} has no column ${unknown.map(show).join(', ')}: its columns are ${this.#columns.join(', ')}. Pass onNewColumn: 'add' to add it`,
        );
      }
      for (const name of unknown) checkName(name, `column ${show(name)}`);
      this.#add(unknown.map((name) => [name, typeFor(row[name])]));
    }
    return { target: this.#targetFor(names), values };
  }

  #targetFor(names: readonly string[]): Target {
    const signature = JSON.stringify(names);
    let target = this.#targets.get(signature);
    if (target === undefined) {
      const columns = names.map(quote).join(', ');
      const marks = names.map(() => '?').join(', ');
      target = new Target(this.table, `INSERT INTO ${quote(this.table)} (${columns}) VALUES (${marks})`);
      if (this.#targets.size >= TARGETS_MAX) this.#targets.clear();
      this.#targets.set(signature, target);
    }
    return target;
  }

  /** Adds columns at this place in the order of writes. */
  #add(columns: readonly (readonly [string, ColumnType])[]): void {
    if (this.#columns.length + columns.length > COLUMNS_MAX) {
      throw new SluiceError('SLUICE_INVALID_VALUE', `a table cannot have more than ${COLUMNS_MAX} columns`);
    }
    const types = Object.fromEntries(columns.map(([name, type]) => [name, type === 'any' ? '' : type.toUpperCase()]));
    this.#core.engine.ensure(new Target(this.table, JSON.stringify(types)));
    for (const [name] of columns) this.#learn(name);
  }

  #learn(name: string): void {
    this.#columns.push(name);
    this.#known.add(name.toLowerCase());
    this.#full = this.#targetFor(this.#columns);
  }
}

/** The options with everything filled in. */
export interface ResolvedRowsOptions<T> {
  readonly columns: RowsOptions<T>['columns'];
  readonly onNewColumn: 'reject' | 'add';
  readonly validation: Validation | undefined;
  readonly hooks: readonly RowHook<T>[];
}

/** Checks the options of `db.rows`. */
export function readRowsOptions<T, In, C extends boolean>(given: RowsOptions<T, In, C>): ResolvedRowsOptions<In> {
  const reader = new OptionReader(given);
  const onNewColumn = reader.oneOf('onNewColumn', ['reject', 'add'], 'reject');
  const schema = readSchema(reader, 'schema');
  const coerce = reader.boolean('coerce', false);
  const hooks = readHookList(reader, ['beforeWrite', 'onWriteSuccess']) ?? [];
  const columns = reader.any('columns');
  if (columns !== undefined) checkColumns(reader, columns);
  reader.finish('rows');
  return {
    columns: columns as ResolvedRowsOptions<In>['columns'],
    onNewColumn,
    validation: schema == null ? undefined : { schema, coerce },
    hooks: hooks as readonly RowHook<In>[],
  };
}

function checkColumns(reader: OptionReader, columns: unknown): void {
  if (typeof columns !== 'object' || columns === null || Array.isArray(columns) || Object.keys(columns).length === 0) {
    return reader.refuse('columns', `must be an object with at least one column, not ${show(columns)}`);
  }
  const seen = new Set<string>();
  for (const [name, type] of Object.entries(columns)) {
    if (!COLUMN_TYPES.includes(type as ColumnType)) {
      reader.refuse(`columns.${name}`, `must be one of ${COLUMN_TYPES.map(show).join(', ')}, not ${show(type)}`);
    }
    if (seen.has(name.toLowerCase()))
      reader.refuse(`columns.${name}`, 'is there twice: SQLite does not tell upper from lower case');
    seen.add(name.toLowerCase());
    checkName(name, `column ${show(name)}`);
  }
}

function typeFor(value: unknown): ColumnType {
  switch (typeof value) {
    case 'number':
      return Number.isInteger(value) ? 'integer' : 'real';
    case 'boolean':
    case 'bigint':
      return 'integer';
    case 'object':
      return value instanceof Uint8Array ? 'blob' : value instanceof Date ? 'integer' : value === null ? 'any' : 'text';
    default:
      return 'text';
  }
}

function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
