import { type Generated, Kysely, Migrator, sql } from 'kysely';
import type { Database } from 'sluicedb';
import { SluiceDialect } from 'sluicedb/kysely';
import { expect, test } from 'vitest';
import { codeFrom } from '../support/eventually.ts';
import { openTemp } from '../support/open-temp.ts';

interface Tables {
  person: { id: Generated<number>; name: string; age: number | null };
  pet: { owner: number; name: string };
}

async function withKysely(): Promise<{ database: Database; db: Kysely<Tables> }> {
  const database = await openTemp('data.db', { flush: { mode: 'manual' } });
  const db = new Kysely<Tables>({ dialect: new SluiceDialect({ database }) });
  await db.schema
    .createTable('person')
    .addColumn('id', 'integer', (column) => column.primaryKey().autoIncrement())
    .addColumn('name', 'text', (column) => column.notNull())
    .addColumn('age', 'integer')
    .execute();
  await db.schema.createTable('pet').addColumn('owner', 'integer').addColumn('name', 'text').execute();
  return { database, db };
}

test('inserts, updates, deletes and selects, with joins, and says how many', async () => {
  const { db, database } = await withKysely();
  const inserted = await db
    .insertInto('person')
    .values([
      { name: 'A', age: 1 },
      { name: 'B', age: null },
    ])
    .executeTakeFirstOrThrow();
  expect(inserted).toMatchObject({ insertId: 2n, numInsertedOrUpdatedRows: 2n });
  const returned = await db.insertInto('person').values({ name: 'C', age: 3 }).returningAll().execute();
  expect(returned).toEqual([{ id: 3, name: 'C', age: 3 }]);
  expect(
    (await db.updateTable('person').set({ age: 9 }).where('age', 'is', null).executeTakeFirst()).numUpdatedRows,
  ).toBe(1n);
  // Written behind, and seen all the same.
  database.rows('pet').append({ owner: 3, name: 'Rex' });
  const joined = await db
    .selectFrom('person')
    .innerJoin('pet', 'pet.owner', 'person.id')
    .select(['person.name', 'pet.name as pet'])
    .where('person.age', 'in', [3, 4])
    .execute();
  expect(joined).toEqual([{ name: 'C', pet: 'Rex' }]);
  const upserted = await db
    .insertInto('person')
    .values({ id: 1, name: 'Z', age: 0 })
    .onConflict((conflict) => conflict.column('id').doUpdateSet({ name: 'Z' }))
    .executeTakeFirstOrThrow();
  expect(upserted.numInsertedOrUpdatedRows).toBe(1n);
  expect((await db.deleteFrom('person').where('id', '>', 1).executeTakeFirst()).numDeletedRows).toBe(2n);
  const common = await db
    .with('named', (query) => query.selectFrom('person').select('name'))
    .selectFrom('named')
    .selectAll()
    .execute();
  expect(common).toEqual([{ name: 'Z' }]);
  expect((await sql<{ a: number }>`SELECT ${1} + ${2} AS a`.execute(db)).rows).toEqual([{ a: 3 }]);
  await expect(db.insertInto('person').values({ id: 1, name: 'double' }).execute()).rejects.toMatchObject({
    code: 'SLUICE_STORE',
    sqliteCode: 'SQLITE_CONSTRAINT_PRIMARYKEY',
  });
});

test('what reads runs on a reader, and goes on while the writer is busy', async () => {
  const { db, database } = await withKysely();
  const { directStatements } = database.stats();
  await db.selectFrom('person').selectAll().execute();
  await db
    .with('a', (query) => query.selectFrom('person').selectAll())
    .selectFrom('a')
    .selectAll()
    .execute();
  await sql`VALUES (1)`.execute(db);
  expect(database.stats().directStatements).toBe(directStatements);
  await db
    .with('a', (query) => query.selectFrom('person').selectAll())
    .deleteFrom('pet')
    .execute();
  expect(database.stats().directStatements).toBe(directStatements + 1);
});

test('streams page by page', async () => {
  const { db, database } = await withKysely();
  await database.aexecuteMany(
    'INSERT INTO person (name, age) VALUES (?, ?)',
    Array.from({ length: 1_000 }, (_, i) => [`p${i}`, i]),
  );
  for (const chunk of [undefined, 1, 7, 1_000]) {
    let sum = 0;
    for await (const { age } of db.selectFrom('person').select('age').stream(chunk)) sum += age ?? 0;
    expect(sum).toBe(499_500);
  }
  for await (const _ of db.selectFrom('person').select('age').stream(1)) break;
  const written = db.deleteFrom('person').returningAll().stream();
  expect(await codeFrom(() => written.next())).toBe('SLUICE_UNSUPPORTED');
  expect(await database.acount('person')).toBe(1_000);
});

test('knows the tables, and Sluice’s own are none of its business', async () => {
  const { db, database } = await withKysely();
  await database.aset('k', 1);
  const tables = await db.introspection.getTables();
  expect(tables.map(({ name }) => name)).toEqual(['data', 'person', 'pet']);
  expect(tables[1]?.columns).toMatchObject([
    { name: 'id', dataType: 'INTEGER', isAutoIncrementing: true },
    { name: 'name', isNullable: false },
    { name: 'age', isNullable: true },
  ]);
  expect((await db.introspection.getMetadata()).tables).toEqual(tables);
});

test('migrates', async () => {
  const { db, database } = await withKysely();
  const provider = {
    getMigrations: async () => ({
      one: { up: (on: Kysely<unknown>) => on.schema.alterTable('pet').addColumn('kind', 'text').execute() },
      two: { up: (on: Kysely<unknown>) => on.schema.createIndex('by_kind').on('pet').column('kind').execute() },
    }),
  };
  const { error, results } = await new Migrator({ db, provider }).migrateToLatest();
  expect([error, results?.map(({ status }) => status)]).toEqual([undefined, ['Success', 'Success']]);
  expect((await database.alistIndexes('pet')).map(({ columns }) => columns)).toEqual([['kind']]);
  expect((await new Migrator({ db, provider }).migrateToLatest()).results).toEqual([]);
});

test('transactions are made whole or not at all, one after the other, with reads of their own writes', async () => {
  const { db, database } = await withKysely();
  const add = (name: string, fails: boolean) =>
    db.transaction().execute(async (on) => {
      await on.insertInto('person').values({ name }).execute();
      const seen = await on.selectFrom('person').select('name').where('name', '=', name).execute();
      expect(seen).toEqual([{ name }]);
      if (fails) throw new RangeError(name);
    });
  await expect(add('no', true)).rejects.toThrow(RangeError);
  expect(await database.acount('person')).toBe(0);
  await add('A', false);
  const two = await Promise.allSettled([
    db.transaction().execute((on) => on.insertInto('person').values({ name: 'B' }).execute()),
    db.transaction().execute((on) => on.insertInto('person').values({ name: 'C' }).execute()),
  ]);
  expect(two.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
  expect(await db.selectFrom('person').select('name').orderBy('name').execute()).toEqual([
    { name: 'A' },
    { name: 'B' },
    { name: 'C' },
  ]);
  const isolated = () =>
    db
      .transaction()
      .setIsolationLevel('serializable')
      .execute(async () => 1);
  expect(await codeFrom(isolated)).toBe('SLUICE_UNSUPPORTED');
});

test('refuses what the database refuses, and leaves it open when it is destroyed', async () => {
  const { db, database } = await withKysely();
  expect(await codeFrom(() => sql`PRAGMA user_version`.execute(db))).toBe('SLUICE_INVALID_SQL');
  expect(await codeFrom(() => sql`SELECT 1; SELECT 2`.execute(db))).toBe('SLUICE_INVALID_SQL');
  await db.destroy();
  expect(await database.acount('person')).toBe(0);
});
