import { show } from '../../base/options.ts';
import { quoteName } from './identifiers.ts';
import { invalidSql, tokenize } from './tokens.ts';

/**
 * SQL with its values kept apart from its text: made with {@link sql}, and taken by everything that takes a statement or a
 * clause.
 */
export class Sql {
  /** The text, with `?` for each value. */
  readonly text: string;
  /** The values, in the order of the text. */
  readonly values: readonly unknown[];
  #checked = false;

  /** @internal */
  constructor(text: string, values: readonly unknown[]) {
    this.text = text;
    this.values = values;
  }

  /** @internal The values, if each is where a value can be. */
  checkedValues(): readonly unknown[] {
    if (!this.#checked && countParameters(this.text) !== this.values.length) {
      throw invalidSql(
        'a value stands within quotes or in a comment, or there are parameters that sql has not made: write no quotes around it',
      );
    }
    this.#checked = true;
    return this.values;
  }
}

function countParameters(text: string): number {
  const parameters = tokenize(text).tokens.filter(({ kind }) => kind === 'parameter');
  return parameters.some(({ text: parameter }) => parameter !== '?') ? -1 : parameters.length;
}

function template(strings: TemplateStringsArray, ...values: readonly unknown[]): Sql {
  if (!Array.isArray(strings) || !Array.isArray(strings.raw)) {
    throw invalidSql(`sql is a template tag: write sql\`…\`, not sql(${show(strings)})`);
  }
  let text = '';
  const collected: unknown[] = [];
  for (const [i, part] of strings.entries()) {
    if (typeof part !== 'string')
      throw invalidSql('the text of a template has an escape that JavaScript does not know');
    text += part;
    if (i < values.length) text += add(values[i], collected);
  }
  return new Sql(text, collected);
}

/** The text for a value, whose parts go where they belong. */
function add(value: unknown, collected: unknown[]): string {
  if (value instanceof Sql) {
    for (const each of value.values) collected.push(each);
    return value.text;
  }
  if (Array.isArray(value)) return value.map((each: unknown) => add(each, collected)).join(', ');
  collected.push(value);
  return '?';
}

function id(...names: readonly [string, ...string[]]): Sql {
  return new Sql(names.map(quoteName).join('.'), []);
}

function join(parts: Iterable<unknown>, separator: Sql = COMMA): Sql {
  if (!(separator instanceof Sql)) throw invalidSql('sql.join: the separator must be made with sql');
  const collected: unknown[] = [];
  const texts = [...parts].map((part, i) => {
    if (i > 0) collected.push(...separator.values);
    return add(part, collected);
  });
  return new Sql(texts.join(separator.text), collected);
}

const COMMA: Sql = new Sql(', ', []);

/** The type of {@link sql}. */
export interface SqlTag {
  (strings: TemplateStringsArray, ...values: readonly unknown[]): Sql;
  /** A name, in quotes: `sql.id('order')`, or, of a column of a table, `sql.id('orders', 'at')`. */
  id(...names: readonly [string, ...string[]]): Sql;
  /** Values and parts one after another, with commas between them, or what is given as the separator. */
  join(parts: Iterable<unknown>, separator?: Sql): Sql;
}

/**
 * A statement, or a part of one, whose values never become text: each `${value}` is a parameter. A list becomes as many of them
 * (for JSON, make it text first), and what was made with `sql` is put in as it is.
 *
 * Errors, where it is used: `SLUICE_INVALID_SQL` where a value stands within quotes or in a comment, `SLUICE_INVALID_VALUE`.
 *
 * @example
 * ```ts
 * import { open, sql } from 'sluicedb';
 *
 * const db = await open(':memory:');
 * await db.acreateTable('rooms', { name: 'TEXT', floor: 'INTEGER' });
 * await db.aexecute(sql`INSERT INTO rooms VALUES (${"O'Neill"}, ${3}), (${'kitchen'}, ${0})`);
 * const floors = [1, 2, 3];
 * console.log(await db.afetchAll(sql`SELECT ${sql.id('name')} FROM rooms WHERE floor IN (${floors})`)); // [ { name: "O'Neill" } ]
 * await db.close();
 * ```
 */
export const sql: SqlTag = Object.assign(template, { id, join });
