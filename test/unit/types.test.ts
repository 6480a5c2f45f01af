import { type as ark } from 'arktype';
import { CheckHook, type Database, open, type Table, type TableHook, UniqueHook } from 'sluicedb';
import * as v from 'valibot';
import { expectTypeOf, test } from 'vitest';
import { z } from 'zod';

// What is expected of types is checked by the compiler, in `npm run check`.

interface User {
  age: number;
  email: string;
}

test('the values of a table have the type of what its validator makes of them', async () => {
  const db = await open(':memory:');
  const zod = z.object({ age: z.coerce.number(), email: z.string().default('') });
  const hooks: readonly TableHook<User>[] = [
    { beforeWrite: (_key, user) => ({ ...user, email: user.email.toLowerCase() }) },
    new CheckHook((_key, { age }) => age >= 18),
    new UniqueHook('email'),
  ];
  expectTypeOf(db.table('a', { validator: zod, coerce: true, hooks })).toEqualTypeOf<Table<User>>();
  expectTypeOf(
    db.table('b', { validator: zod, hooks: [{ checkWrite: (_, { age }) => expectTypeOf(age).toBeNumber() }] }),
  ).toEqualTypeOf<Table<User>>();
  const valibot = v.object({ age: v.number(), email: v.string() });
  expectTypeOf(db.table('c', { validator: valibot, hooks: [new UniqueHook('email')] })).toEqualTypeOf<Table<User>>();
  expectTypeOf(db.table('d', { validator: ark({ age: 'number', email: 'string' }) })).toEqualTypeOf<Table<User>>();
  expectTypeOf(db.getModel('a', zod)).toEqualTypeOf<User | undefined>();
  await db.close();
});

test('so have those of the database; without a validator the type is written, or unknown', async () => {
  const db = await open(':memory:', { validator: z.number(), hooks: [new CheckHook<number>((_, n) => n > 0)] });
  expectTypeOf(db).toEqualTypeOf<Database<number>>();
  expectTypeOf(db.get('a')).toEqualTypeOf<number | undefined>();
  expectTypeOf(db.get('a', null)).toEqualTypeOf<number | null>();
  expectTypeOf(db.aget('a')).toEqualTypeOf<Promise<number | undefined>>();
  expectTypeOf(db.aget('a', null, { timeoutMs: 1_000 })).toEqualTypeOf<Promise<number | null>>();
  expectTypeOf(db.agetFresh('a', 'none')).toEqualTypeOf<Promise<number | string>>();
  expectTypeOf(db.table('other', { validator: null, cache: 'unbounded' })).toEqualTypeOf<Table<unknown>>();
  expectTypeOf(db.table<User>('users', { validator: null })).toEqualTypeOf<Table<User>>();
  await db.close();
});
