import { join } from 'node:path';
import { type Database, open, type SluiceError, type TableHook, type Transaction, UniqueHook } from 'sluicedb';
import { describe, expect, onTestFinished, test } from 'vitest';
import { codeFrom } from '../support/eventually.ts';
import { openTemp } from '../support/open-temp.ts';
import { tempDir } from '../support/temp-dir.ts';

const code = (name: string) => expect.objectContaining({ code: `SLUICE_${name}` });
const turn = () => new Promise(setImmediate);

async function accounts(): Promise<Database<number>> {
  const db = (await openTemp()) as Database<number>;
  db.setMany({ ada: 100, bob: 0 });
  return db;
}

describe('transaction', () => {
  test('is one write: all of it, over several tables and rows', async () => {
    const db = await accounts();
    db.rows('log', { columns: { who: 'text', amount: 'integer' } });
    const { lastSeq } = db.stats();
    const left = db.transaction((tx) => {
      tx.set('ada', tx.get('ada', 0) - 30);
      tx.increment('bob', 30);
      tx.table('seen').setMany({ ada: true, bob: true });
      tx.rows('log').appendMany([
        { who: 'ada', amount: -30 },
        { who: 'bob', amount: 30 },
      ]);
      return tx.get('ada');
    });
    expect(left).toBe(70);
    expect(db.stats().lastSeq).toBe(lastSeq + 1);
    const everything = async () => [db.toDict(), db.table('seen').toDict(), await db.afetchAll('SELECT * FROM log')];
    const expected = [
      { ada: 70, bob: 30 },
      { ada: true, bob: true },
      [
        { who: 'ada', amount: -30 },
        { who: 'bob', amount: 30 },
      ],
    ];
    expect(await everything()).toEqual(expected);
    await db.aflush();
    expect(await everything()).toEqual(expected);
  });

  test('reads what it has written, and nobody else does before it is over', async () => {
    const db = await accounts();
    db.transaction((tx) => {
      tx.set('ada', 1);
      tx.delete('bob');
      tx.set('new', 3);
      expect([tx.get('ada'), tx.get('bob'), tx.has('bob'), tx.pop('new'), tx.get('new', 'none')]).toEqual([
        1,
        undefined,
        false,
        3,
        'none',
      ]);
      expect(tx.getMany(['ada', 'bob'])).toEqual(new Map([['ada', 1]]));
      expect(tx.setDefault('ada', 9)).toBe(1);
      expect(tx.deleteMany(['ada', 'bob', 'nobody'])).toBe(1);
      tx.set('ada', 2);
      expect(db.toDict()).toEqual({ ada: 100, bob: 0 });
    });
    expect(db.toDict()).toEqual({ ada: 2 });
  });

  test('what the function throws takes everything back, and is thrown', async () => {
    const db = await accounts();
    const { accepted } = db.stats();
    const thrown = new Error('no');
    expect(() =>
      db.transaction((tx) => {
        tx.set('ada', 0);
        tx.table('other').set('a', 1);
        throw thrown;
      }),
    ).toThrow(thrown);
    expect(() => db.transaction((tx) => tx.set('ada', Number.NaN))).toThrow(code('INVALID_VALUE'));
    expect(db.toDict()).toEqual({ ada: 100, bob: 0 });
    expect(db.stats().accepted).toBe(accepted);
  });

  test('an asynchronous function is refused, and what it does later too', async () => {
    const db = await accounts();
    let later: unknown;
    expect(() =>
      db.transaction(async (tx) => {
        tx.set('ada', 0);
        await turn();
        try {
          tx.set('ada', 1);
        } catch (error) {
          later = error;
        }
      }),
    ).toThrow(code('UNSUPPORTED'));
    await turn();
    await turn();
    expect(later).toEqual(code('CLOSED'));
    expect(db.get('ada')).toBe(100);
  });

  test('parts can fail by themselves', async () => {
    const db = await accounts();
    db.transaction((tx) => {
      tx.set('ada', 1);
      expect(() =>
        tx.transaction(() => {
          tx.set('ada', 2);
          tx.delete('bob');
          tx.transaction(() => tx.set('deep', 1));
          throw new Error('no');
        }),
      ).toThrow('no');
      expect([tx.get('ada'), tx.get('bob'), tx.get('deep')]).toEqual([1, 0, undefined]);
      tx.transaction(() => tx.set('deep', 2));
      expect(() => tx.setMany({ ada: 5, bob: Number.NaN })).toThrow(code('INVALID_VALUE'));
      expect(tx.get('ada')).toBe(1);
    });
    expect(db.toDict()).toEqual({ ada: 1, bob: 0, deep: 2 });
  });

  test('hooks and validators hold, and hear of it when it is made', async () => {
    const heard: unknown[] = [];
    const hook: TableHook<{ email?: string; n?: number }> = {
      beforeWrite: (_, value) => ({ ...value, n: 1 }),
      onWriteSuccess: (key, value, old) => heard.push(['write', key, value, old]),
      onDeleteSuccess: (key, old) => heard.push(['delete', key, old]),
      afterRead: (_, value) => ({ ...value, read: true }),
    };
    const db = await openTemp();
    const users = db.table('users', { hooks: [hook, new UniqueHook<{ email?: string }>('email')] });
    users.set('ada', { email: 'ada@x' });
    heard.length = 0;
    db.transaction((tx) => {
      const mine = tx.table<{ email?: string }>('users');
      mine.set('ada', { email: 'new@x' });
      mine.set('ada', { email: 'newer@x' });
      mine.set('bob', { email: 'bob@x' });
      mine.delete('bob');
      expect(mine.get('ada')).toEqual({ email: 'newer@x', n: 1, read: true });
      expect(heard).toEqual([]);
    });
    expect(heard).toEqual([
      ['write', 'ada', { email: 'new@x', n: 1 }, { email: 'ada@x', n: 1 }],
      ['write', 'ada', { email: 'newer@x', n: 1 }, { email: 'new@x', n: 1 }],
      ['write', 'bob', { email: 'bob@x', n: 1 }, undefined],
      ['delete', 'bob', { email: 'bob@x', n: 1 }],
    ]);
    expect(() =>
      db.transaction((tx) => {
        tx.table('users').set('c', { email: 'c@x' });
        tx.table('users').set('d', { email: 'c@x' });
      }),
    ).toThrow(code('VALIDATION'));
    // What was not made stands in nobody's way.
    users.set('d', { email: 'c@x' });
    expect([...users.keys()]).toEqual(['ada', 'd']);
  });

  test('one member that SQLite refuses sends the whole of it to the dead letters, and it can be retried', async () => {
    const db = await openTemp();
    await db.aexecute("CREATE TABLE picky (key TEXT PRIMARY KEY, value TEXT, CHECK (value <> '13'))");
    db.set('a', 'before');
    await db.aflush();
    db.transaction((tx) => {
      tx.set('a', 'after');
      tx.table('picky').set('n', 13);
    });
    await db.aflush();
    expect([db.get('a'), db.table('picky').size, db.dlq.size]).toEqual(['before', 0, 1]);
    await db.aexecute('DROP TABLE picky');
    expect(await db.dlq.retry('all')).toMatchObject({ applied: 1, failed: 0 });
    expect([db.get('a'), db.table('picky').get('n')]).toEqual(['after', 13]);
  });

  test('is replayed whole, or not at all', async () => {
    const file = join(tempDir(), 'replay.db');
    const db = await open(file, { closeTimeoutMs: 0, flush: { mode: 'manual' } });
    db.transaction((tx) => {
      tx.set('a', 1);
      tx.table('other').set('b', 2);
    });
    await db.adurable();
    expect((await db.close()).pending).toBe(1);
    const again = await open(file);
    onTestFinished(async () => void (await again.close()));
    expect([again.get('a'), again.table('other').get('b')]).toEqual([1, 2]);
  });

  test('with encryption, a cache, and rows that expire', async () => {
    const db = await openTemp('all.db', {
      encryption: { key: Buffer.alloc(32, 1) },
      cache: { strategy: 'ttl', ttlMs: 60_000, persist: true },
    });
    db.set('a', 1);
    await db.aflush();
    db.transaction((tx) => {
      tx.increment('a', 1);
      tx.set('b', { deep: true });
    });
    expect(db.isCached('b')).toBe(true);
    await db.aflush();
    expect(await db.acopy()).toEqual(
      new Map<string, unknown>([
        ['a', 2],
        ['b', { deep: true }],
      ]),
    );
    const expiries = await db.afetchOne('SELECT count(*) AS n FROM _sluice_expiry_data');
    expect(expiries).toEqual({ n: 2 });
  });

  test('is refused where writes are', async () => {
    const db = await openTemp('full.db', { staging: { maxBytes: 2_000 }, flush: { mode: 'manual' } });
    expect(() => db.transaction((tx) => tx.set('a', 'x'.repeat(3_000)))).toThrow(code('INVALID_VALUE'));
    db.set('a', 'x'.repeat(1_000));
    const two = () => db.transaction((tx) => tx.setMany({ b: 'x'.repeat(500), c: 'x'.repeat(500) }));
    expect(two).toThrow(code('FULL'));
    expect([...db.keys()]).toEqual(['a']);
    await db.aflush();
    two();
    expect([...db.keys()]).toEqual(['a', 'b', 'c']);
    await db.close();
    expect(() => db.transaction(() => 1)).toThrow(code('CLOSED'));
    await expect(db.atransaction(async () => 1)).rejects.toEqual(code('CLOSED'));
  });
});

describe('atransaction', () => {
  test('concurrent ones do not lose a write', async () => {
    const db = await accounts();
    let runs = 0;
    const one = () =>
      db.atransaction(async (tx) => {
        runs++;
        const before = await tx.aget('ada');
        await turn();
        tx.set('ada', (before ?? 0) + 1);
      });
    await Promise.all(Array.from({ length: 20 }, one));
    expect(db.get('ada')).toBe(120);
    expect(runs).toBeGreaterThan(20);
  });

  test.each<[what: string, write: (db: Database<number>) => unknown]>([
    ['a set', (db) => db.set('ada', 5)],
    ['a set of the same value', (db) => db.set('ada', 100)],
    ['a deletion', (db) => db.delete('ada')],
    ['a group', (db) => db.setMany({ ada: 7, z: 1 })],
    ['a clear', (db) => db.clear()],
    ['another transaction', (db) => db.transaction((tx) => tx.increment('ada'))],
    ['SQL', (db) => db.aexecute("UPDATE data SET value = '9' WHERE key = 'ada'")],
    ['an increment', (db) => db.aincrement('ada')],
  ])('%s of a key that was read is a conflict', async (_, write) => {
    const db = await accounts();
    let runs = 0;
    const seen = await db.atransaction(async (tx) => {
      const before = await tx.aget('ada');
      if (++runs === 1) await write(db);
      await turn();
      tx.set('copy', before ?? -1);
      return before;
    });
    expect(runs).toBe(2);
    expect(seen).toBe(db.get('ada'));
    expect(db.get('copy')).toBe(seen ?? -1);
  });

  test('a write of a key that was not read is none', async () => {
    const db = await accounts();
    let runs = 0;
    await db.atransaction(async (tx) => {
      runs++;
      tx.get('ada');
      tx.set('bob', 1);
      db.set('bob', 2);
      db.table('other').set('ada', 3);
      await turn();
    });
    expect(runs).toBe(1);
    expect(db.toDict()).toEqual({ ada: 100, bob: 1 });
  });

  test('whoever goes on after a conflict sees no mixed state: the next read ends the attempt', async () => {
    const db = await accounts();
    const mixed: unknown[] = [];
    let runs = 0;
    await db.atransaction(async (tx) => {
      runs++;
      const ada = tx.get('ada');
      if (runs === 1) db.setMany({ ada: 1, bob: 99 });
      const bob = tx.get('bob');
      mixed.push([ada, bob]);
    });
    expect(mixed).toEqual([[1, 99]]);
  });

  test('a statement that it runs itself, after it has read, is refused as soon as it is known to be in its way', async () => {
    const db = await accounts();
    await db.acreateTable('x', { a: 'INTEGER' });
    const statements: readonly (() => Promise<unknown>)[] = [
      () => db.adropTable('x'),
      () => db.aexecute('CREATE TABLE IF NOT EXISTS x (a)'),
      () => db.aexecute('INSERT INTO x VALUES (1)', [], { ahead: true }),
      () => db.asqlInsert('x', { a: 1 }),
      () => db.atransaction(async (tx) => tx.aexecute('DELETE FROM x'), { sql: true }),
    ];
    for (const statement of statements) {
      let attempts = 0;
      const mixed = db.atransaction(async (tx) => {
        attempts++;
        tx.increment('ada', 1);
        await statement();
      });
      const error = await mixed.catch((reason: SluiceError) => reason);
      expect([error, attempts]).toEqual([code('CONFLICT'), 2]);
      expect((error as SluiceError).message).toContain('before the first read');
    }
    expect(db.get('ada')).toBe(100);
    // Before it has read anything there is nothing in the way; and what others run makes it begin anew.
    let attempts = 0;
    await db.atransaction(async (tx) => {
      attempts++;
      await db.aexecute('DELETE FROM x');
      tx.increment('ada', 1);
    });
    expect([db.get('ada'), attempts]).toEqual([101, 1]);
    const others = db.aexecute('DELETE FROM x');
    await db.atransaction(async (tx) => {
      attempts++;
      tx.increment('ada', 1);
      await others;
    });
    expect([db.get('ada'), attempts]).toEqual([102, 3]);
  });

  test('gives up after maxRetries, and nothing is made', async () => {
    const db = await accounts();
    let runs = 0;
    const trying = db.atransaction(
      async (tx) => {
        runs++;
        tx.set('bob', (tx.get('ada') ?? 0) + 1);
        db.set('ada', runs);
      },
      { maxRetries: 3 },
    );
    await expect(trying).rejects.toEqual(code('CONFLICT'));
    expect(runs).toBe(4);
    expect(db.get('bob')).toBe(0);
    await expect(db.atransaction(async () => 1, { maxRetries: -1 })).rejects.toEqual(code('INVALID_OPTION'));
  });

  test('an error of the function is its own, and takes everything back', async () => {
    const db = await accounts();
    let runs = 0;
    const trying = db.atransaction(async (tx) => {
      runs++;
      tx.set('ada', 0);
      await turn();
      throw new RangeError('mine');
    });
    await expect(trying).rejects.toThrow(RangeError);
    expect([runs, db.get('ada')]).toEqual([1, 100]);
  });

  test('ends with its limit of time, or its signal', async () => {
    const db = await accounts();
    const late = db.atransaction(() => new Promise(() => {}), { timeoutMs: 20 });
    await expect(late).rejects.toEqual(code('TIMEOUT'));
    const stop = new AbortController();
    let left: (() => void) | undefined;
    const aborted = db.atransaction(
      async (tx) => {
        stop.abort();
        await turn();
        left = () => tx.set('ada', 1);
      },
      { signal: stop.signal },
    );
    await expect(aborted).rejects.toEqual(code('ABORTED'));
    await turn();
    expect(() => left?.()).toThrow(code('CLOSED'));
    expect(db.get('ada')).toBe(100);
  });

  test('the limit of time is one for all attempts, and whoever gives up is not called again', async () => {
    const db = await accounts();
    const attempts = { short: 0, long: 0, aborted: 0 };
    const writing = async (tx: Transaction<number>, ms: number, name: keyof typeof attempts) => {
      attempts[name]++;
      await tx.aget('ada');
      db.set('ada', db.get('ada', 0) + 1);
      await new Promise((resolve) => setTimeout(resolve, ms));
    };
    const short = db.atransaction((tx) => writing(tx, 30, 'short'), { timeoutMs: 100, maxRetries: 1_000 });
    await expect(short).rejects.toEqual(code('TIMEOUT'));
    expect(attempts.short).toBeLessThanOrEqual(4);
    const long = db.atransaction((tx) => writing(tx, 500, 'long'), { timeoutMs: 50 });
    await expect(long).rejects.toEqual(code('TIMEOUT'));
    const stop = new AbortController();
    const aborted = db.atransaction((tx) => writing(tx, 500, 'aborted'), { signal: stop.signal });
    await turn();
    stop.abort();
    await expect(aborted).rejects.toEqual(code('ABORTED'));
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect([attempts.long, attempts.aborted]).toEqual([1, 1]);
  });

  test('those that wait for room in vain, since what they have read is old, hold up nobody behind them', async () => {
    const db = await openTemp('data.db', { staging: { maxEntries: 2 } });
    const add = () =>
      db.atransaction(
        async (tx) => {
          tx.set('n', Number((await tx.aget('n')) ?? 0) + 1);
        },
        { maxRetries: 1_000, timeoutMs: 10_000 },
      );
    await Promise.all(Array.from({ length: 12 }, add));
    expect(db.get('n')).toBe(12);
    expect(db.stats().waits).toBeGreaterThan(0);
  });

  test('while a part is under way that can fail by itself, nobody writes beside it', async () => {
    const db = await openTemp();
    const codes: string[] = [];
    let over: { set(key: string, value: number): void } | undefined;
    await db.atransaction(async (tx) => {
      const other = tx.table('other');
      const part = tx.atransaction(async (inner) => {
        over = inner;
        inner.set('in', 1);
        await inner.atransaction(async (deep) => {
          codes.push(await codeFrom(() => inner.set('in', 2)));
          deep.set('deep', 1);
        });
        inner.table('other').set('in', 1);
        await new Promise((resolve) => setImmediate(resolve));
        throw new RangeError('no');
      });
      part.catch(() => {});
      for (const write of [
        () => tx.set('beside', 1),
        () => other.set('beside', 1),
        () => tx.transaction(() => tx.get('a')),
        () => tx.atransaction(async () => 1),
      ]) {
        codes.push(await codeFrom(write));
      }
      expect(await tx.aget('beside')).toBe(undefined);
      await expect(part).rejects.toThrow(RangeError);
      codes.push(await codeFrom(() => over?.set('late', 1)));
      tx.set('after', 1);
    });
    expect(codes).toEqual([...Array(5).fill('SLUICE_CONFLICT'), 'SLUICE_CLOSED']);
    expect([db.toDict(), db.table('other').toDict()]).toEqual([{ after: 1 }, {}]);
  });

  test('parts that nobody awaits are made whole or not at all', async () => {
    const db = await openTemp();
    const later = () => new Promise((resolve) => setImmediate(resolve));
    const parts: Promise<unknown>[] = [];
    await db.atransaction(async (tx) => {
      const whole = tx.atransaction(async (outer) => {
        outer.set('a', 1);
        const failing = outer.atransaction(async (inner) => {
          inner.set('b', 1);
          await later();
          inner.set('c', 1);
          throw new RangeError('no');
        });
        parts.push(failing.catch(() => 'failed'));
      });
      parts.push(whole);
    });
    expect(await Promise.all(parts)).toEqual(['failed', undefined]);
    expect(db.toDict()).toEqual({ a: 1 });
  });

  test('what must be done at once takes no part that is not', async () => {
    const db = await openTemp();
    const parts: Promise<string>[] = [];
    const lateIn = (tx: Transaction) => {
      const part = tx.atransaction(async (inner) => {
        inner.set('a', 1);
        await turn();
        inner.set('b', 1);
        throw new RangeError('no');
      });
      parts.push(part.catch((error: { code?: string }) => error.code ?? 'none'));
    };
    expect(() => db.transaction(lateIn)).toThrow(code('CONFLICT'));
    await db.atransaction(async (tx) => {
      tx.set('before', 1);
      expect(() => tx.transaction(lateIn)).toThrow(code('CONFLICT'));
      expect(() =>
        tx.transaction(() => {
          tx.set('c', 1);
          lateIn(tx);
          throw new TypeError('no');
        }),
      ).toThrow(TypeError);
      await Promise.all(parts);
      tx.set('after', 1);
    });
    expect(await Promise.all(parts)).toEqual(Array(3).fill('SLUICE_CLOSED'));
    expect(db.toDict()).toEqual({ after: 1, before: 1 });
  });

  test('a row is refused whose table is dropped before the end, and all with it', async () => {
    const db = await openTemp();
    db.rows('r', { columns: { n: 'integer' } });
    const dropping = (make: () => unknown) =>
      db.atransaction(async (tx) => {
        tx.set('a', 1);
        tx.rows('r').append({ n: 1 });
        await db.adropTable('r');
        make();
      });
    expect(await codeFrom(() => dropping(() => undefined))).toBe('SLUICE_NOT_FOUND');
    expect([db.size, db.dlq.size]).toEqual([0, 0]);
    db.rows('r', { columns: { n: 'integer' } });
    await dropping(() => db.rows('r', { columns: { m: 'integer', N: 'integer' } }));
    expect(await db.afetchAll('SELECT * FROM r')).toEqual([{ m: null, N: 1 }]);
    expect(db.dlq.size).toBe(0);
  });

  test('takes a function, and nothing else', async () => {
    const db = await openTemp();
    for (const given of [undefined, 5, {}]) {
      for (const call of [
        () => db.transaction(given as never),
        () => db.atransaction(given as never),
        () => db.atransaction(given as never, { sql: true }),
        () => db.transaction((tx) => tx.transaction(given as never)),
        () => db.atransaction((tx) => tx.atransaction(given as never)),
        () => db.atransaction((tx) => tx.atransaction(given as never), { sql: true }),
      ]) {
        expect(await codeFrom(call)).toBe('SLUICE_INVALID_OPTION');
      }
    }
  });

  test('waits for room, and looks for conflicts when there is some', async () => {
    const db = (await openTemp('room.db', {
      staging: { maxEntries: 4 },
      flush: { mode: 'manual' },
    })) as Database<number>;
    await db.aset('ada', 1);
    await db.aflush();
    for (const key of ['1', '2', '3', '4']) db.set(key, 0);
    let runs = 0;
    const done = db.atransaction(async (tx) => {
      runs++;
      tx.set('ada', (tx.get('ada') ?? 0) + 1);
    });
    await turn();
    expect(db.stats().waiting).toBe(1);
    await db.aexecute("UPDATE data SET value = '41' WHERE key = 'ada'", [], { ahead: true });
    await db.aflush();
    await done;
    expect([runs, db.get('ada')]).toEqual([2, 42]);
  });
});

describe('increment and patch', () => {
  test('change what is there, and return it', async () => {
    const db = await openTemp();
    expect(db.increment('n', 2, { default: 10 })).toBe(12);
    expect(db.increment('n')).toBe(13);
    expect(await db.aincrement('n', -0.5)).toBe(12.5);
    expect(db.increment('o', 1, { field: 'hits', default: 0 })).toEqual({ hits: 1 });
    expect(await db.aincrement('o', 4, { field: 'hits' })).toEqual({ hits: 5 });
    expect(db.patch('o', { name: 'ada', list: [1] })).toEqual({ hits: 5, name: 'ada', list: [1] });
    expect(await db.apatch('o', { list: [2] })).toEqual({ hits: 5, name: 'ada', list: [2] });
    expect(db.patch('new', { a: 1 }, { create: true })).toEqual({ a: 1 });
    await db.aflush();
    expect(db.toDict()).toEqual({ n: 12.5, new: { a: 1 }, o: { hits: 5, name: 'ada', list: [2] } });
  });

  test('refuse what is no number or object, and change nothing', async () => {
    const db = await openTemp();
    const values = {
      text: '1',
      null: null,
      list: [1],
      object: { n: 'x', null: null },
      max: Number.MAX_VALUE,
      bool: true,
    };
    db.setMany(values);
    for (const key of ['text', 'null', 'list', 'object', 'bool']) {
      expect(() => db.increment(key), key).toThrow(code('INVALID_VALUE'));
      await expect(db.aincrement(key), key).rejects.toEqual(code('INVALID_VALUE'));
    }
    for (const amount of [Number.NaN, Number.POSITIVE_INFINITY, '1' as never, null as never]) {
      expect(() => db.increment('max', amount)).toThrow(code('INVALID_VALUE'));
    }
    expect(() => db.increment('max', Number.MAX_VALUE)).toThrow(code('INVALID_VALUE'));
    expect(() => db.increment('none')).toThrow(code('NOT_FOUND'));
    expect(() => db.increment('object', 1, { field: 'none' })).toThrow(code('NOT_FOUND'));
    expect(() => db.increment('object', 1, { field: 'n' })).toThrow(code('INVALID_VALUE'));
    expect(() => db.increment('object', 1, { field: 'null', default: 0 })).toThrow(code('INVALID_VALUE'));
    expect(() => db.increment('object', 1, { field: 'toString' })).toThrow(code('NOT_FOUND'));
    expect(() => db.increment('text', 1, { field: 'length' })).toThrow(code('INVALID_VALUE'));
    expect(() => db.patch('none', {})).toThrow(code('NOT_FOUND'));
    for (const key of ['text', 'null', 'list']) expect(() => db.patch(key, {}), key).toThrow(code('INVALID_VALUE'));
    expect(() => db.patch('object', [] as never)).toThrow(code('INVALID_VALUE'));
    expect(db.toDict()).toEqual(values);
  });

  test('no increment is lost, whoever else writes', async () => {
    const db = (await openTemp('many.db', { flush: { intervalMs: 1 } })) as Database<number>;
    db.set('n', 0);
    await Promise.all(
      Array.from({ length: 300 }, async (_, i) => {
        if (i % 3 === 0) db.increment('n');
        else if (i % 3 === 1) await db.aincrement('n');
        else await db.atransaction(async (tx) => tx.set('n', ((await tx.aget('n')) ?? 0) + 1), { maxRetries: 1_000 });
      }),
    );
    expect(db.get('n')).toBe(300);
  });
});
