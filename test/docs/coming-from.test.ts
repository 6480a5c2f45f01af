import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as sluice from 'sluicedb';
import { describe, expect, test } from 'vitest';
import { ROOT } from '../support/code-blocks.ts';
import { openTemp } from '../support/open-temp.ts';

/** The names that the reference of `AsyncNanaSQLite` 1.5 has: 102 of them. */
const NAMES =
  `close table get keys values items to_dict copy clear_cache aflush flush aget_dlq get_dlq aretry_dlq retry_dlq
  aclear_dlq clear_dlq aget_v2_metrics get_v2_metrics load_all refresh is_cached batch_update batch_update_partial batch_delete
  get_fresh begin_transaction commit rollback in_transaction transaction upsert sql_insert sql_update sql_delete query
  query_with_pagination count execute execute_many fetch_one fetch_all create_table create_index table_exists list_tables
  drop_table drop_index vacuum set_model get_model add_hook aget aset adelete acontains contains alen akeys avalues aitems apop
  aupdate aclear asetdefault aload_all arefresh ais_cached abatch_update abatch_update_partial abatch_delete ato_dict acopy
  aget_fresh abatch_get aset_model aget_model aexecute aexecute_many afetch_one afetch_all acreate_table acreate_index aquery
  aquery_with_pagination atable_exists alist_tables adrop_table asql_insert asql_update asql_delete acount avacuum aclear_cache
  atable abackup arestore apragma aget_table_schema alist_indexes aalter_table_add_column aupsert`.split(/\s+/);

/** Names that its older references promise, and that only its source has. */
const MORE = `exists aexists alter_table_add_column get_table_schema list_indexes get_db_size export_table_to_dict
  import_from_dict_list get_last_insert_rowid pragma sync_db increment aincrement patch apatch get_by_path popitem`.split(
  /\s+/,
);

const OPTIONS = `db_path table bulk_load optimize cache_size_mb strict_sql_validation allowed_sql_functions
  forbidden_sql_functions max_clause_length lock_timeout cache_strategy cache_size cache_ttl cache_persistence_ttl encryption_key
  encryption_mode validator coerce hooks v2_mode v2_config flush_mode flush_interval flush_count chunk_size v2_chunk_size
  max_dlq_size v2_max_dlq_size enable_metrics v2_enable_metrics memory_first memory_flush_interval warn_duplicate_table_instance
  max_workers thread_name_prefix read_pool_size`.split(/\s+/);

const EXCEPTIONS = `NanaSQLiteError NanaSQLiteValidationError NanaSQLiteDatabaseError NanaSQLiteTransactionError
  NanaSQLiteConnectionError NanaSQLiteClosedError NanaSQLiteLockError NanaSQLiteCacheError`.split(/\s+/);

const page = readFileSync(join(ROOT, 'docs', 'coming-from-nanasqlite.md'), 'utf8');

interface Row {
  readonly names: readonly string[];
  readonly here: string;
  readonly differs: string;
}

const spans = (text: string): string[] => [...text.matchAll(/`([^`]+)`/g)].map(([, span = '']) => span);

/** The rows of the table under a heading. */
function rowsOf(heading: string): Row[] {
  const section = page.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0] ?? '';
  return [...section.matchAll(/^\| (?!---)(.+?) \| (.*?) \| (.*?) ?\|$/gm)]
    .slice(1)
    .map(([, names = '', here = '', differs = '']) => ({ names: spans(names), here, differs }));
}

const isNone = ({ here }: Row): boolean => here === '*none*';
const isLater = ({ here }: Row): boolean => here.startsWith('*not yet*');

describe('Coming from NanaSQLite: names', () => {
  const rows = rowsOf('Names');
  const there = rows.flatMap(({ names }) => names);

  test('every name has one row', () => {
    expect(NAMES).toHaveLength(102);
    expect([...NAMES, ...MORE].filter((name) => there.filter((other) => other === name).length !== 1)).toEqual([]);
  });

  test('the list of names is that of the reference, where it is at hand', () => {
    const folder = join(ROOT, '..', 'shared', 'seeds');
    const file = existsSync(folder) ? readdirSync(folder).find((name) => /nanasqlite-v1\.5/.test(name)) : undefined;
    if (file === undefined) return;
    const text = readFileSync(join(folder, file), 'utf8');
    const names = new Set([...text.matchAll(/^def (\w+)/gm)].map(([, name]) => name));
    expect(new Set(NAMES)).toEqual(names);
  });

  test('what is said to be here is here', async () => {
    const db = await openTemp();
    const things: Record<string, object> = {
      db,
      rows: db.rows('rows', { columns: { n: 'integer' } }),
      'db.dlq': db.dlq,
    };
    const found: string[] = [];
    const missing: string[] = [];
    for (const span of rows.flatMap(({ here, differs }) => [...spans(here), ...spans(differs)])) {
      const [, thing = '', name = ''] = /^(db\.dlq|db|rows)\.(\w+)/.exec(span) ?? [];
      const [, maker = ''] = /^(?:new )?(open|\w+Hook)\(/.exec(span) ?? [];
      const object = name === 'dlq' ? undefined : things[thing];
      if (object !== undefined) (name in object ? found : missing).push(`${thing}.${name}`);
      else if (maker !== '') (maker in sluice ? found : missing).push(maker);
    }
    expect(missing).toEqual([]);
    expect(new Set(found).size).toBeGreaterThan(50);
  });

  test('a row names something that is here, or says that it is none or not yet', () => {
    const empty = rows.filter((row) => !isNone(row) && !isLater(row) && !/`(db|rows|open|new )/.test(row.here));
    expect(empty.map(({ names }) => names)).toEqual([]);
    expect(rows.filter((row) => isNone(row) && row.differs === '').map(({ names }) => names)).toEqual([]);
    const later = rows.filter(isLater).flatMap(({ names }) => names);
    expect(later.filter((name) => /cache|dlq|batch|hook|model|flush|fresh|load/.test(name))).toEqual([]);
  });
});

describe('Coming from NanaSQLite: options', () => {
  const rows = rowsOf('Options');

  test('every option has one row', () => {
    const there = rows.flatMap(({ names }) => names);
    expect(OPTIONS.filter((name) => there.filter((other) => other === name).length !== 1)).toEqual([]);
  });

  test.each(rows.flatMap(({ here }) => spans(here).filter((name) => name !== 'open')))(
    '%s is an option of open',
    async (path) => {
      // No option takes a symbol; one that does not exist is called unknown.
      const options = path.split('.').reduceRight<unknown>((inner, name) => ({ [name]: inner }), Symbol('no value'));
      const error: unknown = await sluice.open(':memory:', options as sluice.OpenOptions).catch((e: unknown) => e);
      expect(error).toMatchObject({ code: 'SLUICE_INVALID_OPTION' });
      expect(String(error)).not.toContain('unknown option');
    },
  );

  test('what is none has a reason', () => {
    expect(rows.filter((row) => isNone(row) && row.differs.length < 20).map(({ names }) => names)).toEqual([]);
  });
});

describe('Coming from NanaSQLite: errors', () => {
  const rows = rowsOf('Errors');

  test('every exception has a row, and every code exists', () => {
    const there = rows.flatMap(({ names }) => names);
    expect(EXCEPTIONS.filter((name) => !there.includes(name))).toEqual([]);
    const codes = rows
      .flatMap(({ here, differs }) => [...spans(here), ...spans(differs)])
      .filter((s) => /^SLUICE_/.test(s));
    expect(codes.length).toBeGreaterThan(12);
    expect(codes.filter((code) => !(sluice.ERROR_CODES as readonly string[]).includes(code))).toEqual([]);
  });
});

test('README and guide lead here', () => {
  expect(readFileSync(join(ROOT, 'README.md'), 'utf8')).toContain('(docs/coming-from-nanasqlite.md)');
  expect(readFileSync(join(ROOT, 'docs', 'guide.md'), 'utf8')).toContain('(coming-from-nanasqlite.md)');
});
