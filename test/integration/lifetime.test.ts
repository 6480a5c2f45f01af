import { join } from 'node:path';
import { open } from 'sluicedb';
import { expect, test } from 'vitest';
import { Child, lockFromOutside } from '../support/child.ts';
import { codeFrom } from '../support/eventually.ts';
import { tempDir } from '../support/temp-dir.ts';

test.each(['memory', 'os', 'interval', 'sync', 'applied'])(
  'at %s a program that only writes ends by itself, and what it wrote is there',
  async (durability) => {
    const file = join(tempDir(), 'a.db');
    const child = new Child(
      `const db = await open(process.argv[2], { durability: process.argv[3] });
       for (let i = 0; i < 1000; i++) db.set('k' + i, i);
       db.rows('r', { columns: { n: 'integer' } }).append({ n: 1 });
       await db.adurable();`,
      [file, durability],
    );
    expect(await child.end()).toMatchObject({ code: 0, signal: null, errors: '' });
    const db = await open(file);
    expect(db.size).toBe(1_000);
    expect(await db.afetchAll('SELECT n FROM r')).toEqual([{ n: 1 }]);
    await db.close();
  },
);

test("in mode 'manual' a program that never flushes ends too, and the log has everything", async () => {
  const file = join(tempDir(), 'a.db');
  const child = new Child(
    `const db = await open(process.argv[2], { flush: { mode: 'manual' } });
     db.set('a', 1);`,
    [file],
  );
  expect(await child.end()).toMatchObject({ code: 0, signal: null });
  const db = await open(file);
  expect(db.stats().recovered).toBe(1);
  expect(db.get('a')).toBe(1);
  await db.close();
});

test('an open database that has nothing to do does not keep the process alive', async () => {
  const child = new Child(
    `const db = await open(process.argv[2]);
     await db.aset('a', 1);
     await db.aflush();
     await db.aget('a');
     for await (const _ of db.ascan()) break;
     db.get('a');
     db.scan().next();
     console.log('idle');`,
    [join(tempDir(), 'a.db')],
  );
  expect(await child.end()).toMatchObject({ code: 0, output: 'idle\n', errors: '' });
});

test.each(['SIGTERM', 'SIGINT'] as const)(
  '[fault 64] closeOnSignals drains on %s, then lets the signal end the process',
  async (signal) => {
    const file = join(tempDir(), 'a.db');
    const child = new Child(
      `const db = await open(process.argv[2], { flush: { mode: 'manual' }, durability: 'memory' });
     closeOnSignals(db);
     for (let i = 0; i < 1000; i++) db.set('k' + i, i);
     console.log('ready');
     setInterval(() => {}, 1000);`,
      [file],
    );
    await child.says('ready');
    child.process.kill(signal);
    expect(await child.end()).toMatchObject({ code: null, signal, errors: '' });
    const db = await open(file);
    expect(db.stats().recovered).toBe(0);
    expect(db.size).toBe(1_000);
    await db.close();
  },
);

test('closeOnSignals can be taken back', async () => {
  const db = await open(':memory:');
  const { closeOnSignals } = await import('sluicedb');
  const before = process.listenerCount('SIGTERM');
  const forget = closeOnSignals(db);
  expect(process.listenerCount('SIGTERM')).toBe(before + 1);
  forget();
  expect(process.listenerCount('SIGTERM')).toBe(before);
  await db.close();
});

test('[fault 63] close twice is close once, and everything after it is SLUICE_CLOSED', async () => {
  const db = await open(join(tempDir(), 'a.db'));
  const rows = db.rows('r', { columns: { n: 'integer' } });
  const table = db.table('other');
  await db.aset('a', 1);
  const closing = db.close();
  expect(db.close()).toBe(closing);
  expect(await closing).toEqual({ pending: 0 });
  expect(db.state).toBe('closed');
  const calls: Record<string, () => unknown> = {
    set: () => db.set('a', 1),
    aset: () => db.aset('a', 1),
    get: () => db.get('a'),
    aget: () => db.aget('a'),
    has: () => db.has('a'),
    ahas: () => db.ahas('a'),
    delete: () => db.delete('a'),
    adelete: () => db.adelete('a'),
    pop: () => db.pop('a'),
    apop: () => db.apop('a'),
    setDefault: () => db.setDefault('a', 1),
    asetDefault: () => db.asetDefault('a', 1),
    update: () => db.update({ a: 1 }),
    aupdate: () => db.aupdate({ a: 1 }),
    setMany: () => db.setMany({ a: 1 }),
    asetMany: () => db.asetMany({ a: 1 }),
    getMany: () => db.getMany(['a']),
    agetMany: () => db.agetMany(['a']),
    deleteMany: () => db.deleteMany(['a']),
    adeleteMany: () => db.adeleteMany(['a']),
    clear: () => db.clear(),
    aclear: () => db.aclear(),
    size: () => db.size,
    asize: () => db.asize(),
    keys: () => [...db.keys()],
    akeys: () => db.akeys().next(),
    values: () => [...db.values()],
    entries: () => [...db.entries()],
    scan: () => db.scan().next(),
    ascan: () => db.ascan().next(),
    table: () => db.table('t'),
    rows: () => db.rows('t', { columns: { n: 'integer' } }),
    stage: () => db.stage('DELETE FROM data'),
    astage: () => db.astage('DELETE FROM data'),
    aexecute: () => db.aexecute('SELECT 1'),
    afetchOne: () => db.afetchOne('SELECT 1'),
    afetchAll: () => db.afetchAll('SELECT 1'),
    adurable: () => db.adurable(),
    aflush: () => db.aflush(),
    adrain: () => db.adrain(),
    agetDlq: () => db.agetDlq(),
    aretryDlq: () => db.aretryDlq(),
    aclearDlq: () => db.aclearDlq(),
    'table.set': () => table.set('a', 1),
    'table.get': () => table.get('a'),
    append: () => rows.append({ n: 1 }),
    aappend: () => rows.aappend({ n: 1 }),
    appendMany: () => rows.appendMany([{ n: 1 }]),
    aappendMany: () => rows.aappendMany([{ n: 1 }]),
  };
  const codes: Record<string, string> = {};
  for (const [name, call] of Object.entries(calls)) {
    codes[name] = await codeFrom(call).catch((error: unknown) => String(error));
  }
  expect(Object.entries(codes).filter(([, code]) => code !== 'SLUICE_CLOSED')).toEqual([]);
  expect(db.stats()).toMatchObject({ state: 'closed', pending: 0 });
});

test('while it closes, a database takes no more writes', async () => {
  const file = join(tempDir(), 'a.db');
  const db = await open(file);
  for (let i = 0; i < 1_000; i++) db.set(`k${i}`, i);
  const closing = db.close();
  expect(await codeFrom(() => db.set('late', 1))).toBe('SLUICE_CLOSED');
  expect(await codeFrom(() => db.aset('late', 1))).toBe('SLUICE_CLOSED');
  expect(await codeFrom(() => db.aexecute("INSERT INTO data VALUES ('late', '1')"))).toBe('SLUICE_CLOSED');
  expect(await codeFrom(() => db.aretryDlq())).toBe('SLUICE_CLOSED');
  expect(await closing).toEqual({ pending: 0 });
  const again = await open(file);
  expect(again.size).toBe(1_000);
  await again.close();
});

test('await using closes', async () => {
  const db = await open(join(tempDir(), 'a.db'));
  await db[Symbol.asyncDispose]();
  expect(db.state).toBe('closed');
});

test(':memory: is a folder of its own that goes away, and at memory level by itself', async () => {
  const { existsSync } = await import('node:fs');
  const { dirname } = await import('node:path');
  const [one, two] = await Promise.all([open(':memory:'), open(':memory:')]);
  one.set('a', 1);
  expect(two.has('a')).toBe(false);
  const folder = dirname(one.path);
  expect(existsSync(folder)).toBe(true);
  await one.close();
  expect(existsSync(folder)).toBe(false);
  expect(existsSync(dirname(two.path))).toBe(true);
  await two.close();
});

test('[fault 63] acknowledgements that nobody awaits never become unhandled rejections', async () => {
  const file = join(tempDir(), 'a.db');
  await (await open(file)).close();
  const unlock = await lockFromOutside(file);
  await unlock();
  const child = new Child(
    `const db = await open(process.argv[2], { flush: { mode: 'manual' }, staging: { maxEntries: 4 }, closeTimeoutMs: 100 });
     db.on('dead-letter', () => {});
     db.aset('a', 1); db.adelete('b'); db.asetMany({ c: 1 }); db.adurable();
     db.rows('r', { columns: { n: 'integer' } });
     const full = [db.aset('x', 1), db.aset('y', 1), db.adrain(), db.aflush()];
     for (const one of full) one.catch((error) => { if (error.code !== 'SLUICE_CLOSED') throw error; });
     await db.close();
     console.log('closed');`,
    [file],
  );
  expect(await child.end()).toMatchObject({ code: 0, output: 'closed\n', errors: '' });
});
