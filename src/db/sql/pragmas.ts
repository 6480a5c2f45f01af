import { SluiceError } from '../../base/errors.ts';
import { show, unknownOption } from '../../base/options.ts';

/** A setting of SQLite that {@link Database.apragma} reads, and can change. */
export type SettablePragma =
  | 'application_id'
  | 'auto_vacuum'
  | 'cache_size'
  | 'foreign_keys'
  | 'recursive_triggers'
  | 'secure_delete'
  | 'temp_store'
  | 'user_version';

/** A setting of SQLite that {@link Database.apragma} reads. */
export type ReadablePragma =
  | SettablePragma
  | 'busy_timeout'
  | 'encoding'
  | 'journal_mode'
  | 'journal_size_limit'
  | 'locking_mode'
  | 'page_size'
  | 'query_only'
  | 'synchronous'
  | 'wal_autocheckpoint'
  | 'data_version'
  | 'freelist_count'
  | 'page_count'
  | 'schema_version';

/** What SQLite tells in rows, about all of the database or about one table or index. */
export type TablePragma =
  | 'compile_options'
  | 'collation_list'
  | 'database_list'
  | 'foreign_key_check'
  | 'foreign_key_list'
  | 'function_list'
  | 'index_info'
  | 'index_list'
  | 'index_xinfo'
  | 'integrity_check'
  | 'quick_check'
  | 'table_info'
  | 'table_list'
  | 'table_xinfo';

const INTEGER = 'an integer of 32 bits';
const SWITCH = ['0', '1', 'false', 'true', 'off', 'on', 'no', 'yes'];

/** Settings that the writer's connection has, or the file, and what they can be: SQLite takes anything else for 0, without a word. */
const VALUES: Readonly<Record<SettablePragma, typeof INTEGER | readonly string[]>> = {
  application_id: INTEGER,
  auto_vacuum: ['0', '1', '2', 'none', 'full', 'incremental'],
  cache_size: INTEGER,
  foreign_keys: SWITCH,
  recursive_triggers: SWITCH,
  secure_delete: [...SWITCH, 'fast'],
  temp_store: ['0', '1', '2', 'default', 'file', 'memory'],
  user_version: INTEGER,
};

const SETTABLE = Object.keys(VALUES) as readonly SettablePragma[];

/** Settings on which it stands that nothing acknowledged is lost, or that nobody waits for ever. */
const OWN: readonly ReadablePragma[] = [
  'busy_timeout',
  'encoding',
  'journal_mode',
  'journal_size_limit',
  'locking_mode',
  'page_size',
  'query_only',
  'synchronous',
  'wal_autocheckpoint',
];

const READABLE: readonly ReadablePragma[] = ['data_version', 'freelist_count', 'page_count', 'schema_version'];

/** What answers with rows; some of them about a table or an index. */
const TABLES: readonly TablePragma[] = [
  'compile_options',
  'collation_list',
  'database_list',
  'foreign_key_check',
  'foreign_key_list',
  'function_list',
  'index_info',
  'index_list',
  'index_xinfo',
  'integrity_check',
  'quick_check',
  'table_info',
  'table_list',
  'table_xinfo',
];

/** How a pragma is to be run. */
export type PragmaPlan =
  | { readonly do: 'rows'; readonly sql: string; readonly parameters: readonly string[] }
  | { readonly do: 'read'; readonly sql: string }
  | { readonly do: 'set'; readonly sql: string; readonly read: string };

const includes = (list: readonly string[], name: string): boolean => list.includes(name);

/** Which pragma is meant; throws where it is none of those that can be asked for or changed. */
export function planPragma(given: unknown, value: unknown): PragmaPlan {
  const name = typeof given === 'string' ? given.toLowerCase() : '';
  if (includes(TABLES, name)) {
    if (value !== undefined && typeof value !== 'string') {
      throw refused(`what ${name} is about must be the name of a table or an index, not ${show(value)}`);
    }
    const argument = value === undefined ? '' : '(?)';
    return {
      do: 'rows',
      sql: `SELECT * FROM pragma_${name}${argument}`,
      parameters: value === undefined ? [] : [value],
    };
  }
  if (!includes([...SETTABLE, ...OWN, ...READABLE], name)) {
    const known = [...SETTABLE, ...OWN, ...READABLE, ...TABLES];
    throw refused(`PRAGMA ${show(given)} is not among those that can be used here (${unknownOption(name, known)})`);
  }
  const read = `PRAGMA ${name}`;
  if (value === undefined) return { do: 'read', sql: read };
  if (includes(OWN, name)) {
    throw refused(`PRAGMA ${name} is Sluice's own to set: what an acknowledgement means stands on it. See durability`);
  }
  if (!includes(SETTABLE, name)) throw refused(`PRAGMA ${name} can only be read`);
  return { do: 'set', sql: `${read} = ${valueText(name as SettablePragma, value)}`, read };
}

function valueText(name: SettablePragma, value: unknown): string {
  const known = VALUES[name];
  // Neither an object, which could say one thing now and another one later, nor null.
  const text = ['number', 'boolean', 'string'].includes(typeof value) ? String(value).toLowerCase() : '';
  const isOne = known === INTEGER ? typeof value === 'number' && (value | 0) === value : known.includes(text);
  if (isOne) return text;
  const wanted = known === INTEGER ? known : `one of ${known.join(', ')}`;
  throw refused(`the value of PRAGMA ${name} must be ${wanted}, not ${show(value)}`);
}

function refused(message: string): SluiceError {
  return new SluiceError('SLUICE_INVALID_SQL', message);
}
