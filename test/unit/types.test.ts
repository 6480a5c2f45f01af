import { type as ark } from 'arktype';
import { type Generated, Kysely } from 'kysely';
import {
  CheckHook,
  type Database,
  type ExecuteResult,
  open,
  type Page,
  type RowHook,
  type Rows,
  type Schema,
  type Sql,
  type SqlRow,
  type SqlTransaction,
  sql,
  type Table,
  type TableHook,
  type Transaction,
  type TransactionRows,
  type TransactionTable,
  UniqueHook,
} from 'sluicedb';
import { SluiceDialect } from 'sluicedb/kysely';
import * as v from 'valibot';
import { expect, expectTypeOf, test } from 'vitest';
import { z } from 'zod';

// What is expected of types is checked by the compiler, in `npm run check`. What is run here shows that they say the truth.

interface User {
  age: number;
  email: string;
}

/** What a schema with conversions takes that makes a {@link User} of it. */
interface Form {
  age: string;
  email?: string | undefined;
}

const schemas = {
  zod: z.object({ age: z.string().transform(Number), email: z.string().default('none') }),
  valibot: v.object({ age: v.pipe(v.string(), v.transform(Number)), email: v.optional(v.string(), 'none') }),
};
const arktype = ark({ age: 'string.numeric.parse', email: "string = 'none'" });

test('what converts nothing has one type for what goes in and what comes out', async () => {
  const db = await open(':memory:');
  const hooks: readonly TableHook<User>[] = [
    { beforeWrite: (_key, user) => ({ ...user, email: user.email.toLowerCase() }) },
    new CheckHook((_key, { age }) => age >= 18),
    new UniqueHook('email'),
  ];
  const zod = z.object({ age: z.number(), email: z.string() });
  expectTypeOf(db.table('a', { validator: zod, coerce: true, hooks })).toEqualTypeOf<Table<User>>();
  expectTypeOf(db.table('b', { validator: zod, coerce: false, hooks })).toEqualTypeOf<Table<User>>();
  expectTypeOf(
    db.table('c', { validator: zod, hooks: [{ checkWrite: (_, { age }) => expectTypeOf(age).toBeNumber() }] }),
  ).toEqualTypeOf<Table<User>>();
  const valibot = v.object({ age: v.number(), email: v.string() });
  expectTypeOf(db.table('d', { validator: valibot, hooks: [new UniqueHook('email')] })).toEqualTypeOf<Table<User>>();
  expectTypeOf(db.table('e', { validator: ark({ age: 'number', email: 'string' }) })).toEqualTypeOf<Table<User>>();
  const own: Schema<User> = zod;
  expectTypeOf(db.table('f', { validator: own })).toEqualTypeOf<Table<User>>();
  await db.close();
});

test('with coerce, a table takes the input of its schema and gives back the output', async () => {
  const db = await open(':memory:');
  const tables = [
    db.table('zod', { validator: schemas.zod, coerce: true }),
    db.table('valibot', { validator: schemas.valibot, coerce: true }),
  ];
  expectTypeOf(tables).toEqualTypeOf<Table<User, Form>[]>();
  for (const table of tables) {
    table.set('a', { age: '36' });
    table.setMany({ b: { age: '17', email: 'b@example.org' } });
    await table.aset('c', { age: '1' });
    expect(table.setDefault('d', { age: '2' })).toEqual({ age: 2, email: 'none' });
    expectTypeOf(table.setDefault).returns.toEqualTypeOf<User>();
    expectTypeOf(table.set).parameter(1).toEqualTypeOf<Form>();
    expectTypeOf(table.get('a')).toEqualTypeOf<User | undefined>();
    expectTypeOf(table.getMany(['a'])).toEqualTypeOf<Map<string, User>>();
    expectTypeOf([...table.values()]).toEqualTypeOf<User[]>();
    expect(table.getMany(['a', 'b']).get('b')).toEqual({ age: 17, email: 'b@example.org' });
  }
  const arked = db.table('arktype', { validator: arktype, coerce: true });
  expectTypeOf(arked.get('a')).toEqualTypeOf<User | undefined>();
  expectTypeOf(arked.set).parameter(1).toEqualTypeOf<{ age: string; email?: string }>();
  arked.set('a', { age: '36' });
  expect(arked.get('a')).toEqual({ age: 36, email: 'none' });
  // @ts-expect-error What the schema makes of a value is not what it takes.
  expect(() => arked.set('b', { age: 36 })).toThrow();
  expectTypeOf(db.table('number', { validator: z.coerce.number(), coerce: true })).toEqualTypeOf<
    Table<number, unknown>
  >();
  await db.close();
});

test('without it a table keeps what it was given, and that is the type of what is read', async () => {
  const db = await open(':memory:');
  const asGiven = db.table('a', { validator: schemas.zod, coerce: false });
  expectTypeOf(asGiven).toEqualTypeOf<Table<Form>>();
  asGiven.set('a', { age: '36' });
  expect(asGiven.get('a')).toEqual({ age: '36' });
  // Here it is as of the database, which the type of the table does not know.
  const inherits = db.table('b', { validator: schemas.valibot });
  expectTypeOf(inherits.get('a')).toEqualTypeOf<User | Form | undefined>();
  expectTypeOf(inherits.set).parameter(1).toEqualTypeOf<Form>();
  await db.close();
});

test('a hook changes what goes in, checks what is stored, and changes what comes out', async () => {
  const db = await open(':memory:');
  const table = db.table('a', {
    validator: schemas.zod,
    coerce: true,
    hooks: [
      {
        beforeWrite: (_key, form) => {
          expectTypeOf(form).toEqualTypeOf<Form>();
          return { ...form, email: form.email?.toLowerCase() };
        },
        checkWrite: (_key, user, { get }) => {
          expectTypeOf(user).toEqualTypeOf<User>();
          expectTypeOf(get).returns.toEqualTypeOf<User | undefined>();
        },
        onWriteSuccess: (_key, user, old) => {
          expectTypeOf(user).toEqualTypeOf<User>();
          expectTypeOf(old).toEqualTypeOf<User | undefined>();
        },
        afterRead: (_key, user) => ({ ...user, age: user.age + 1 }),
      },
      new CheckHook<User>((_key, { age }) => age > 17),
      new UniqueHook('email'),
    ],
  });
  table.addHook({ beforeWrite: (_key, form) => ({ ...form, age: form.age.trim() }) });
  table.set('ada', { age: ' 36', email: 'Ada@example.org' });
  expect(table.get('ada')).toEqual({ age: 37, email: 'ada@example.org' });
  // @ts-expect-error There is no such field.
  new UniqueHook<User>('name');
  await db.close();
});

test('the database is typed as its default table is; without a validator the type is written, or unknown', async () => {
  const db = await open(':memory:', { validator: z.number(), hooks: [new CheckHook<number>((_, n) => n > 0)] });
  expectTypeOf(db).toEqualTypeOf<Database<number>>();
  expectTypeOf(db.get('a')).toEqualTypeOf<number | undefined>();
  expectTypeOf(db.get('a', null)).toEqualTypeOf<number | null>();
  expectTypeOf(db.aget('a')).toEqualTypeOf<Promise<number | undefined>>();
  expectTypeOf(db.aget('a', null, { timeoutMs: 1_000 })).toEqualTypeOf<Promise<number | null>>();
  expectTypeOf(db.agetFresh('a', 'none')).toEqualTypeOf<Promise<number | string>>();
  expectTypeOf(db.table('other', { validator: null, cache: 'unbounded' })).toEqualTypeOf<Table<unknown>>();
  expectTypeOf(db.table('other')).toEqualTypeOf<Table<unknown>>();
  expectTypeOf(db.table<User>('users', { validator: null })).toEqualTypeOf<Table<User>>();
  await db.close();
  const coercing = await open(':memory:', { validator: schemas.zod, coerce: true });
  expectTypeOf(coercing).toEqualTypeOf<Database<User, Form>>();
  await coercing.close();
  const plain = await open(':memory:');
  expectTypeOf(plain).toEqualTypeOf<Database<unknown>>();
  await plain.close();
});

test('a model is written as its schema takes it, and read as its schema makes it', async () => {
  const db = await open(':memory:');
  const number = z.string().transform(Number).or(z.number());
  db.setModel('a', '36', number);
  expectTypeOf(db.getModel('a', number)).toEqualTypeOf<number | undefined>();
  expectTypeOf(db.agetModel<User>).returns.toEqualTypeOf<Promise<User | undefined>>();
  expectTypeOf(await db.agetModel('b', schemas.valibot)).toEqualTypeOf<User | undefined>();
  expect(db.getModel('a', number)).toBe(36);
  // @ts-expect-error The schema takes no such value.
  expect(() => db.setModel('a', true, number)).toThrow();
  await db.close();
});

test('rows are typed as their schema takes them, and their hooks as it makes them', async () => {
  const db = await open(':memory:');
  const columns = { age: 'any', email: 'text' } as const;
  expectTypeOf(db.rows('a', { columns })).toEqualTypeOf<Rows<Record<string, unknown>>>();
  expectTypeOf(db.rows<User>('a')).toEqualTypeOf<Rows<User>>();
  const seen: unknown[] = [];
  const hook: RowHook<User, Form> = { onWriteSuccess: ({ age }) => seen.push(age) };
  const zod = db.rows('b', { columns, schema: schemas.zod, coerce: true, hooks: [hook] });
  expectTypeOf(zod).toEqualTypeOf<Rows<Form>>();
  expectTypeOf(db.rows('c', { columns, schema: schemas.valibot, coerce: true })).toEqualTypeOf<Rows<Form>>();
  expectTypeOf(db.rows('d', { columns, schema: arktype }).append)
    .parameter(0)
    .toEqualTypeOf<{ age: string; email?: string }>();
  const asGiven = db.rows('e', {
    columns,
    schema: schemas.zod,
    coerce: false,
    hooks: [
      {
        beforeWrite: (form) => ({ ...form, email: form.email ?? 'nobody' }),
        onWriteSuccess: (form) => {
          expectTypeOf(form).toEqualTypeOf<Form>();
          seen.push(form.age);
        },
      },
    ],
  });
  zod.append({ age: '36' });
  asGiven.appendMany([{ age: '36' }]);
  await zod.aappend({ age: '37', email: 'a@example.org' });
  expect(seen).toEqual([36, '36', 37]);
  // @ts-expect-error There is no such column.
  expect(() => zod.append({ age: '36', name: 'Ada' })).not.toThrow();
  await db.close();
});

test('what SQL answers has the type that is written, or is a row of values', async () => {
  const db = await open(':memory:');
  await db.aexecute('CREATE TABLE user (age INTEGER, email TEXT)');
  const age = 36;
  expectTypeOf(sql`INSERT INTO user VALUES (${age}, ${'ada'})`).toEqualTypeOf<Sql>();
  expectTypeOf(await db.aexecute(sql`INSERT INTO user VALUES (${age}, ${'ada'})`)).toEqualTypeOf<ExecuteResult>();
  expectTypeOf(await db.afetchAll('SELECT * FROM user')).toEqualTypeOf<SqlRow[]>();
  expectTypeOf(await db.afetchAll<User>(sql`SELECT * FROM user WHERE age = ${age}`)).toEqualTypeOf<User[]>();
  expectTypeOf(await db.afetchOne<User>('SELECT * FROM user')).toEqualTypeOf<User | undefined>();
  expectTypeOf(await db.aquery<User>('user', { where: sql`age > ${18}`, limit: 1 })).toEqualTypeOf<User[]>();
  expectTypeOf(await db.aquery('user')).toEqualTypeOf<SqlRow[]>();
  expectTypeOf(await db.aqueryWithPagination<User>('user', { limit: 1 })).toEqualTypeOf<User[]>();
  const page = await db.aqueryWithPagination<User>('user', { limit: 1, withTotal: true });
  expectTypeOf(page).toEqualTypeOf<Page<User>>();
  expect(page).toEqual({ rows: [{ age: 36, email: 'ada' }], total: 1 });
  expectTypeOf(await db.acount('user')).toBeNumber();
  expectTypeOf(await db.aexists('user', { where: 'age = ?', parameters: [age] })).toBeBoolean();
  expectTypeOf(await db.aexportTable<User>('user')).toEqualTypeOf<User[]>();
  for await (const row of db.aiterate<User>('SELECT * FROM user')) expectTypeOf(row).toEqualTypeOf<User>();
  // @ts-expect-error A name is no value, and a number is no name.
  expect(() => sql.id(1)).toThrow();
  await db.close();
});

test('a transaction is typed as its database is, and says what its function returns', async () => {
  const db = await open(':memory:', { validator: schemas.zod, coerce: true });
  db.rows('readings', { columns: { celsius: 'real' } });
  const result = db.transaction((tx) => {
    expectTypeOf(tx).toEqualTypeOf<Transaction<User, Form>>();
    tx.set('ada', { age: '36' });
    expectTypeOf(tx.get('ada')).toEqualTypeOf<User | undefined>();
    expectTypeOf(tx.table('other')).toEqualTypeOf<TransactionTable<unknown>>();
    expectTypeOf(tx.table<User, Form>('other')).toEqualTypeOf<TransactionTable<User, Form>>();
    expectTypeOf(tx.rows<{ celsius: number }>('readings')).toEqualTypeOf<TransactionRows<{ celsius: number }>>();
    return tx.transaction((inner) => inner.get('ada')?.age);
  });
  expectTypeOf(result).toEqualTypeOf<number | undefined>();
  expect(result).toBe(36);
  const later = db.atransaction(async (tx) => {
    expectTypeOf(tx).toEqualTypeOf<Transaction<User, Form>>();
    return tx.aget('ada');
  });
  expectTypeOf(later).toEqualTypeOf<Promise<User | undefined>>();
  expect(await later).toEqual({ age: 36, email: 'none' });
  const held = db.atransaction(
    async (tx) => {
      expectTypeOf(tx).toEqualTypeOf<SqlTransaction>();
      return (await tx.afetchOne<{ n: number }>('SELECT count(*) AS n FROM readings'))?.n;
    },
    { sql: true },
  );
  expectTypeOf(held).toEqualTypeOf<Promise<number | undefined>>();
  expect(await held).toBe(0);
  await db.close();
});

test("Kysely's queries on it are typed by the tables that are written for it", async () => {
  const db = await open(':memory:');
  const kysely = new Kysely<{ user: { id: Generated<number>; name: string } }>({
    dialect: new SluiceDialect({ database: db }),
  });
  await kysely.schema.createTable('user').addColumn('id', 'integer').addColumn('name', 'text').execute();
  await kysely.insertInto('user').values({ name: 'Ada' }).execute();
  const rows = await kysely.selectFrom('user').select(['id', 'name']).execute();
  expectTypeOf(rows).toEqualTypeOf<{ id: number; name: string }[]>();
  // @ts-expect-error There is no such column.
  await expect(kysely.selectFrom('user').select('email').execute()).rejects.toThrow();
  await kysely.destroy();
  await db.close();
});
