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

test('migrates once where two begin at the same time, and goes on after one that fails', async () => {
  const { database } = await withKysely();
  const migrator = (fails: boolean) => {
    const db = new Kysely<Tables>({ dialect: new SluiceDialect({ database }) });
    const up = async (on: Kysely<unknown>) => {
      await on.schema.createTable('made').addColumn('a', 'text').ifNotExists().execute();
      if (fails) throw new RangeError('no');
      await sql`INSERT INTO made VALUES ('once')`.execute(on);
    };
    return new Migrator({ db, provider: { getMigrations: async () => ({ one: { up } }) } });
  };
  expect((await migrator(true).migrateToLatest()).error).toBeInstanceOf(RangeError);
  const both = await Promise.all([migrator(false).migrateToLatest(), migrator(false).migrateToLatest()]);
  expect(both.map(({ results }) => results?.length).sort()).toEqual([0, 1]);
  expect(await database.afetchAll('SELECT * FROM made')).toEqual([{ a: 'once' }]);
});

test('of two that begin at the same time one waits for the other, which goes step by step', async () => {
  const { database } = await withKysely();
  let inside = 0;
  let most = 0;
  let migrated = 0;
  const up = async () => {
    migrated++;
    inside++;
    // Whoever is not held up is here as well before so many calls have been answered.
    for (let i = 0; i < 100 && inside === 1; i++) await database.afetchAll('SELECT 1');
    most = Math.max(most, inside);
    inside--;
  };
  const provider = { getMigrations: async () => ({ one: { up }, two: { up } }) };
  const migrate = () => {
    const db = new Kysely<Tables>({ dialect: new SluiceDialect({ database }) });
    return new Migrator({ db, provider }).migrateToLatest();
  };
  const both = await Promise.all([migrate(), migrate()]);
  expect(both.map(({ error }) => error)).toEqual([undefined, undefined]);
  expect(both.map(({ results }) => results?.length).sort()).toEqual([0, 2]);
  expect([most, migrated]).toEqual([1, 2]);
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
  const reading = () =>
    db
      .transaction()
      .setAccessMode('read only')
      .execute(async () => 1);
  expect(await codeFrom(reading)).toBe('SLUICE_UNSUPPORTED');
  const streaming = () =>
    db.transaction().execute(async (on) => on.selectFrom('person').selectAll().stream()[Symbol.asyncIterator]().next());
  expect(await codeFrom(streaming)).toBe('SLUICE_UNSUPPORTED');
});

test('what refuses to commit is what a transaction throws, and nothing of it stays', async () => {
  const { db, database } = await withKysely();
  await database.apragma('foreign_keys', true);
  await sql`CREATE TABLE parent (id INTEGER PRIMARY KEY)`.execute(db);
  await sql`CREATE TABLE child (id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)`.execute(db);
  const orphan = () => db.transaction().execute((on) => sql`INSERT INTO child VALUES (9)`.execute(on));
  await expect(orphan()).rejects.toMatchObject({ sqliteCode: 'SQLITE_CONSTRAINT_FOREIGNKEY' });
  const late = db.transaction().execute(async (on) => {
    await on.insertInto('person').values({ name: 'A' }).execute();
    await database.close();
    await on.selectFrom('person').selectAll().execute();
  });
  await expect(late).rejects.toMatchObject({ code: 'SLUICE_CLOSED' });
});

test('a query of the database in the function of a transaction is refused, instead of waiting for its end', async () => {
  const { db, database } = await withKysely();
  const codes: string[] = [];
  await db.transaction().execute(async (on) => {
    await on.insertInto('person').values({ name: 'A' }).execute();
    const calls = [
      () => db.selectFrom('person').selectAll().execute(),
      () => db.insertInto('person').values({ name: 'B' }).execute(),
      () => db.transaction().execute(async () => 1),
      () => database.aflush(),
    ];
    for (const call of calls) codes.push(await codeFrom(call));
  });
  expect(codes).toEqual(Array(4).fill('SLUICE_CONFLICT'));
  expect(await db.selectFrom('person').select('name').execute()).toEqual([{ name: 'A' }]);
});

test('a transaction that is ended by hand has savepoints', async () => {
  const { db } = await withKysely();
  const add = (on: typeof db, name: string) => on.insertInto('person').values({ name }).execute();
  const first = await db.startTransaction().execute();
  await add(first, 'A');
  const second = await first.savepoint('one').execute();
  await add(second, 'B');
  const third = await second.rollbackToSavepoint('one').execute();
  const fourth = await third.savepoint('two').execute();
  await add(fourth, 'C');
  await fourth.releaseSavepoint('two').execute();
  await first.commit().execute();
  const undone = await db.startTransaction().execute();
  await add(undone, 'D');
  await undone.rollback().execute();
  expect(await db.selectFrom('person').select('name').execute()).toEqual([{ name: 'A' }, { name: 'C' }]);
});

test('refuses what the database refuses, and leaves it open when it is destroyed', async () => {
  const { db, database } = await withKysely();
  expect(await codeFrom(() => sql`PRAGMA user_version`.execute(db))).toBe('SLUICE_INVALID_SQL');
  expect(await codeFrom(() => sql`SELECT 1; SELECT 2`.execute(db))).toBe('SLUICE_INVALID_SQL');
  await db.destroy();
  expect(await database.acount('person')).toBe(0);
});
