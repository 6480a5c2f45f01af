import { randomBytes } from 'node:crypto';
import { existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { type Database, type OpenOptions, open, type SqlTransaction, UniqueHook } from 'sluicedb';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type Clock, systemClock } from '../../dist/base/clock.js';
import { openOn } from '../../dist/db/open.js';
import { lockFromOutside } from '../support/child.ts';
import { codeFrom, eventually, isPending, refusal } from '../support/eventually.ts';
import { machine } from '../support/machine.ts';
import { MortalWriter } from '../support/mortal-writer.ts';
import { tempDir } from '../support/temp-dir.ts';
import { wrappedWriter } from '../support/wrapped-writer.ts';

const SQL = { sql: true } as const;
const MANUAL = { flush: { mode: 'manual' } } as const;

interface Opened {
  readonly db: Database;
  readonly file: string;
}

async function opened(options: OpenOptions = MANUAL, spawn?: Parameters<typeof machine>[0]): Promise<Opened> {
  const file = join(tempDir(), 'a.db');
  const db = await openOn(machine(spawn), file, options);
  db.on('dead-letter', () => {});
  db.on('failure', () => {});
  onTestFinished(async () => void (await db.close()));
  await db.aexecute('CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)');
  return { db, file };
}

const insert = (tx: SqlTransaction, ...numbers: number[]) =>
  Promise.all(numbers.map((n) => tx.aexecute('INSERT INTO t (n) VALUES (?)', [n])));

const NUMBERS = 'SELECT n FROM t ORDER BY n';
const numbersOf = (rows: readonly { n: number }[]) => rows.map(({ n }) => n);
const inside = async (tx: SqlTransaction) => numbersOf(await tx.afetchAll<{ n: number }>(NUMBERS));
const outside = async (db: Database, options = {}) =>
  numbersOf(await db.afetchAll<{ n: number }>(NUMBERS, [], options));

/** What is in the file, as another program sees it. */
function inFile(file: string): number[] {
  const other = new Sqlite(file, { readonly: true });
  try {
    return numbersOf(other.prepare(NUMBERS).all() as { n: number }[]);
  } finally {
    other.close();
  }
}

/** A promise with its end outside. */
function gate(): { readonly passed: Promise<void>; readonly open: () => void } {
  let open = () => {};
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { passed, open };
}

describe('commit and rollback', () => {
  test('a transaction sees its own writes, nobody else does before it is committed', async () => {
    const { db, file } = await opened();
    const result = await db.atransaction(async (tx) => {
      expect(await tx.aexecute("INSERT INTO t VALUES (7, 'a'), (8, 'b')")).toEqual({
        rows: [],
        changes: 2,
        lastInsertRowid: 8,
      });
      expect(await tx.aexecute('UPDATE t SET text = ? WHERE n = :n RETURNING n', { n: 7, 1: 'c' }).catch(() => 0)).toBe(
        0,
      );
      expect(await tx.aexecute("UPDATE t SET text = 'c' WHERE n = :n RETURNING n, text", { n: 7 })).toMatchObject({
        rows: [{ n: 7, text: 'c' }],
        changes: 1,
      });
      expect(await tx.afetchOne('SELECT count(*) AS count FROM t')).toEqual({ count: 2 });
      expect(await tx.afetchOne('SELECT n FROM t WHERE n = 9')).toBeUndefined();
      expect([await inside(tx), await outside(db, { stale: true }), inFile(file)]).toEqual([[7, 8], [], []]);
      return 'done';
    }, SQL);
    expect(result).toBe('done');
    expect([await outside(db), inFile(file)]).toEqual([
      [7, 8],
      [7, 8],
    ]);
  });

  test('what the function throws rolls back, and is thrown itself', async () => {
    const { db } = await opened();
    for (const thrown of [new TypeError('mine'), 'a text', undefined]) {
      const caught: unknown[] = [];
      const body = async (tx: SqlTransaction) => {
        await insert(tx, 1);
        throw thrown;
      };
      await db.atransaction(body, SQL).catch((error) => caught.push(error));
      expect(caught).toEqual([thrown]);
      expect(caught[0]).toBe(thrown);
    }
    const notAsync = () => {
      throw new RangeError('at once');
    };
    await expect(db.atransaction(notAsync, SQL)).rejects.toThrow('at once');
    expect(await outside(db)).toEqual([]);
    await db.atransaction((tx) => insert(tx, 2), SQL);
    expect(await outside(db)).toEqual([2]);
  });

  test('a statement that SQLite refuses changes nothing, and the transaction goes on', async () => {
    const { db } = await opened();
    await db.atransaction(async (tx) => {
      await insert(tx, 1);
      const error = await refusal(() => tx.aexecute('INSERT INTO t (n) VALUES (2), (1), (3)'));
      expect([error.code, error.sqliteCode]).toEqual(['SLUICE_STORE', 'SQLITE_CONSTRAINT_PRIMARYKEY']);
      expect((await refusal(() => tx.aexecute('INSERT INTO nowhere VALUES (1)'))).code).toBe('SLUICE_STORE');
      expect((await refusal(() => tx.afetchAll('SELECT nothing'))).code).toBe('SLUICE_STORE');
      await insert(tx, 4);
    }, SQL);
    expect(await outside(db)).toEqual([1, 4]);
  });

  test.for([
    ['OR ROLLBACK', 'INSERT OR ROLLBACK INTO t (n) VALUES (1)'],
    ['RAISE(ROLLBACK)', 'INSERT INTO t (n) VALUES (99)'],
  ] as const)(
    'a statement that ends the transaction (%s) ends it here, too: nothing after it is committed',
    async ([, sql]) => {
      const { db } = await opened();
      await db.aexecute(
        "CREATE TRIGGER no BEFORE INSERT ON t WHEN new.n = 99 BEGIN SELECT RAISE(ROLLBACK, 'not that'); END",
      );
      await db.aexecute('INSERT INTO t (n) VALUES (1)');
      let later: string[] = [];
      const outcome = await refusal(() =>
        db.atransaction(async (tx) => {
          await insert(tx, 2);
          await tx.aexecute(sql).catch(() => 'swallowed');
          expect(tx.isOpen).toBe(false);
          later = [
            await codeFrom(() => tx.aexecute('INSERT INTO t (n) VALUES (3)')),
            await codeFrom(() => tx.afetchAll(NUMBERS)),
            await codeFrom(() => tx.asavepoint('a')),
          ];
          return 'as if nothing had happened';
        }, SQL),
      );
      expect([outcome.code, later]).toEqual(['SLUICE_STORE', Array(3).fill('SLUICE_STORE')]);
      expect(outcome.sqliteCode).toMatch(/^SQLITE_CONSTRAINT/);
      expect(await outside(db)).toEqual([1]);
    },
  );

  test('a deferred foreign key that is not satisfied is refused at COMMIT: everything is rolled back', async () => {
    const { db } = await opened();
    await db.aexecute('CREATE TABLE child (n INTEGER REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED)');
    const orphan = async (tx: SqlTransaction) => {
      await insert(tx, 1);
      await tx.aexecute('INSERT INTO child VALUES (5)');
    };
    const error = await refusal(() => db.atransaction(orphan, SQL));
    expect([error.code, error.sqliteCode]).toEqual(['SLUICE_STORE', 'SQLITE_CONSTRAINT_FOREIGNKEY']);
    expect(await outside(db)).toEqual([]);
    await db.atransaction(async (tx) => {
      await orphan(tx);
      await insert(tx, 5);
    }, SQL);
    expect(await outside(db)).toEqual([1, 5]);
    const tx = await db.abeginTransaction();
    await tx.aexecute('INSERT INTO child VALUES (6)');
    expect(await codeFrom(() => db.acommit())).toBe('SLUICE_STORE');
    expect(await codeFrom(() => tx.aexecute('INSERT INTO t (n) VALUES (6)'))).toBe('SLUICE_STORE');
    expect(await outside(db)).toEqual([1, 5]);
  });

  test('its text is checked as that of aexecute, and a query must only read', async () => {
    const { db } = await opened();
    await db.atransaction(async (tx) => {
      for (const sql of [
        'COMMIT',
        'SAVEPOINT a',
        'PRAGMA synchronous = OFF',
        "ATTACH 'x' AS x",
        'SELECT 1; SELECT 2',
        '',
        5,
      ]) {
        expect(await codeFrom(() => tx.aexecute(sql as string)), String(sql)).toBe('SLUICE_INVALID_SQL');
        expect(await codeFrom(() => tx.afetchAll(sql as string)), String(sql)).toBe('SLUICE_INVALID_SQL');
      }
      for (const sql of ['DELETE FROM _sluice_state', 'UPDATE "_sluice_state" SET owner = 1 RETURNING 1']) {
        expect(await codeFrom(() => tx.aexecute(sql))).toBe('SLUICE_INVALID_SQL');
        expect(await codeFrom(() => tx.afetchAll(sql))).toBe('SLUICE_INVALID_SQL');
      }
      expect(await codeFrom(() => tx.afetchAll('INSERT INTO t (n) VALUES (1) RETURNING n'))).toBe('SLUICE_INVALID_SQL');
      expect(await codeFrom(() => tx.aexecute('INSERT INTO t (n) VALUES (?)', [Number.NaN]))).toBe(
        'SLUICE_INVALID_VALUE',
      );
      expect(await codeFrom(() => tx.aexecute('VACUUM'))).toBe('SLUICE_STORE');
      expect(await tx.afetchOne('SELECT count(*) AS states FROM _sluice_state')).toEqual({ states: 1 });
      await insert(tx, 2);
    }, SQL);
    expect(await outside(db)).toEqual([2]);
  });

  test('after its end every call is refused, and the ends are refused in their own way', async () => {
    const { db } = await opened();
    let leaked: SqlTransaction | undefined;
    await db.atransaction(async (tx) => {
      leaked = tx;
      await insert(tx, 1);
    }, SQL);
    const tx = leaked as SqlTransaction;
    expect(tx.isOpen).toBe(false);
    const calls = [
      () => tx.aexecute('INSERT INTO t (n) VALUES (2)'),
      () => tx.afetchAll(NUMBERS),
      () => tx.afetchOne(NUMBERS),
      () => tx.atransaction((inner) => insert(inner, 3)),
      () => tx.asavepoint('a'),
      () => tx.arollbackTo('a'),
      () => tx.arelease('a'),
      () => tx.acommit(),
      () => tx.arollback(),
    ];
    for (const call of calls) expect(await codeFrom(call)).toBe('SLUICE_CLOSED');
    expect(await outside(db)).toEqual([1]);
  });

  test('a function may end its transaction by itself', async () => {
    const { db } = await opened();
    await db.atransaction(async (tx) => {
      await insert(tx, 1);
      await tx.acommit();
      expect(await codeFrom(() => insert(tx, 2))).toBe('SLUICE_CLOSED');
    }, SQL);
    const result = await db.atransaction(async (tx) => {
      await insert(tx, 3);
      await tx.arollback();
      await tx.arollback();
      expect(await codeFrom(() => tx.acommit())).toBe('SLUICE_CLOSED');
      return 'rolled back';
    }, SQL);
    expect([result, await outside(db)]).toEqual(['rolled back', [1]]);
  });

  test('calls that are not awaited are carried out in their order, before the end', async () => {
    const { db } = await opened();
    let last: Promise<unknown> | undefined;
    await db.atransaction(async (tx) => {
      for (let n = 0; n < 50; n++) last = tx.aexecute('INSERT INTO t (n) SELECT count(*) FROM t');
    }, SQL);
    await last;
    expect(await outside(db)).toEqual(Array.from({ length: 50 }, (_, n) => n));
  });
});

describe('savepoints', () => {
  test('a transaction within a transaction is a savepoint: what it throws undoes it alone', async () => {
    const { db } = await opened();
    const thrown = new Error('mine');
    await db.atransaction(async (tx) => {
      await insert(tx, 1);
      await tx.atransaction(async (inner) => {
        await insert(inner, 2);
        const failing = inner.atransaction(async (innermost) => {
          await insert(innermost, 3);
          throw thrown;
        });
        await expect(failing).rejects.toBe(thrown);
        expect(await inside(inner)).toEqual([1, 2]);
      });
      await tx
        .atransaction(async (inner) => {
          await insert(inner, 4);
          await inner.atransaction((innermost) => insert(innermost, 5));
          throw thrown;
        })
        .catch(() => {});
      expect(await inside(tx)).toEqual([1, 2]);
    }, SQL);
    expect(await outside(db)).toEqual([1, 2]);
  });

  test('an inner transaction that is committed goes with the outer one', async () => {
    const { db } = await opened();
    const body = async (tx: SqlTransaction) => {
      await tx.atransaction((inner) => insert(inner, 1));
      throw new Error('after it');
    };
    await expect(db.atransaction(body, SQL)).rejects.toThrow('after it');
    expect(await outside(db)).toEqual([]);
  });

  test('the outer transaction waits for the inner one; inside that, a call of the outer one is refused instead of waiting for ever', async () => {
    const { db } = await opened();
    await db.atransaction(async (tx) => {
      const going = gate();
      const inner = tx.atransaction(async (part) => {
        await insert(part, 1);
        expect(await codeFrom(() => tx.aexecute('INSERT INTO t (n) VALUES (2)'))).toBe('SLUICE_CONFLICT');
        expect(await codeFrom(() => tx.atransaction((other) => insert(other, 3)))).toBe('SLUICE_CONFLICT');
        await going.passed;
        throw new Error('the inner one');
      });
      const sibling = tx.atransaction((part) => insert(part, 4));
      const behind = insert(tx, 5);
      expect(await isPending(behind)).toBe(true);
      going.open();
      await expect(inner).rejects.toThrow('the inner one');
      await Promise.all([sibling, behind]);
    }, SQL);
    expect(await outside(db)).toEqual([4, 5]);
  });

  test('asavepoint, arollbackTo and arelease do what SQL does', async () => {
    const { db } = await opened();
    await db.atransaction(async (tx) => {
      await insert(tx, 1);
      await tx.asavepoint('a');
      await insert(tx, 2);
      await tx.asavepoint('B "quoted"');
      await insert(tx, 3);
      await tx.arollbackTo('b "QUOTED"');
      await insert(tx, 4);
      expect(await inside(tx)).toEqual([1, 2, 4]);
      await tx.arollbackTo('A');
      expect(await inside(tx)).toEqual([1]);
      expect(await codeFrom(() => tx.arollbackTo('b "quoted"'))).toBe('SLUICE_NOT_FOUND');
      await insert(tx, 5);
      await tx.arollbackTo('a');
      await insert(tx, 6);
      await tx.asavepoint('c');
      await tx.arelease('a');
      for (const gone of ['a', 'c', 'never']) {
        expect(await codeFrom(() => tx.arelease(gone))).toBe('SLUICE_NOT_FOUND');
        expect(await codeFrom(() => tx.arollbackTo(gone))).toBe('SLUICE_NOT_FOUND');
      }
      for (const bad of ['', 5, '\0'])
        expect(await codeFrom(() => tx.asavepoint(bad as string))).toBe('SLUICE_INVALID_OPTION');
      // Of two with one name, the last one is meant.
      await tx.asavepoint('d');
      await insert(tx, 7);
      await tx.asavepoint('d');
      await insert(tx, 8);
      await tx.arollbackTo('d');
      await tx.arelease('d');
      expect(await inside(tx)).toEqual([1, 6, 7]);
      await tx.arollbackTo('d');
    }, SQL);
    expect(await outside(db)).toEqual([1, 6]);
  });

  test('a savepoint belongs to the transaction that has made it', async () => {
    const { db } = await opened();
    await db.atransaction(async (tx) => {
      await tx.asavepoint('a');
      await tx.atransaction(async (inner) => {
        expect(await codeFrom(() => inner.arelease('a'))).toBe('SLUICE_NOT_FOUND');
        expect(await codeFrom(() => inner.arollbackTo('sluice_1'))).toBe('SLUICE_NOT_FOUND');
        await inner.asavepoint('a');
        await insert(inner, 1);
        await inner.arollbackTo('a');
        await insert(inner, 2);
      });
      await tx.arelease('a');
    }, SQL);
    expect(await outside(db)).toEqual([2]);
  });
});

describe('order', () => {
  test('it sees what was accepted before it; what is staged meanwhile comes after it', async () => {
    const { db } = await opened();
    db.set('before', 1);
    db.set('both', 'before');
    db.stage('INSERT INTO t (n) VALUES (1)');
    const going = gate();
    const begun = gate();
    const done = db.atransaction(async (tx) => {
      expect(await tx.afetchOne("SELECT value FROM data WHERE key = 'before'")).toEqual({ value: '1' });
      expect(await inside(tx)).toEqual([1]);
      await tx.aexecute(`UPDATE data SET value = '"transaction"' WHERE key = 'both'`);
      begun.open();
      await going.passed;
      expect(await tx.afetchAll('SELECT * FROM data')).toHaveLength(2);
    }, SQL);
    await begun.passed;
    db.set('during', 1);
    db.set('both', 'during');
    db.stage('INSERT INTO t (n) SELECT 10 + count(*) FROM t');
    const flushed = db.aflush();
    expect(await isPending(flushed)).toBe(true);
    expect([db.get('both'), await db.aget('during'), db.stats().pending]).toEqual(['during', 1, 3]);
    going.open();
    await Promise.all([done, flushed]);
    db.set('after', 1);
    await db.aflush();
    expect(db.toDict()).toEqual({ before: 1, both: 'during', during: 1, after: 1 });
    expect(await outside(db)).toEqual([1, 11]);
  });

  test('transactions, direct statements and batches come one after the other, as they were called', async () => {
    const { db } = await opened({ flush: { mode: 'immediate' } });
    const seen: string[] = [];
    const transaction = (name: string) =>
      db.atransaction(async (tx) => {
        const before = (await inside(tx)).length;
        seen.push(`${name} begins`);
        await new Promise((resolve) => setTimeout(resolve, 5));
        await tx.aexecute('INSERT INTO t (n) VALUES (?)', [100 + before]);
        expect((await inside(tx)).length).toBe(before + 1);
        seen.push(`${name} ends`);
      }, SQL);
    const direct = () => db.aexecute('INSERT INTO t (n) SELECT 100 + count(*) FROM t');
    await Promise.all([transaction('a'), direct(), transaction('b'), direct(), transaction('c')]);
    expect(seen).toEqual(['a begins', 'a ends', 'b begins', 'b ends', 'c begins', 'c ends']);
    expect(await outside(db)).toEqual([100, 101, 102, 103, 104]);
  });

  test('the dead-letter queue waits for it as well', async () => {
    const { db } = await opened();
    db.stage('INSERT INTO t (n) VALUES (1), (1)');
    await db.aflush();
    const going = gate();
    const begun = gate();
    const done = db.atransaction(async (tx) => {
      begun.open();
      await going.passed;
      await insert(tx, 1);
    }, SQL);
    await begun.passed;
    const cleared = db.aclearDlq();
    expect(await isPending(cleared)).toBe(true);
    going.open();
    await done;
    expect(await cleared).toBe(1);
  });

  test('a call that would wait for the end of the transaction that it is made in is refused', async () => {
    const { db } = await opened();
    db.set('a', 1);
    const codes: string[] = [];
    await db.atransaction(async (tx) => {
      await insert(tx, 1);
      const calls = [
        () => db.aflush(),
        () => db.aexecute('SELECT 1'),
        () => db.afetchAll('SELECT 1'),
        () => db.aretryDlq(),
        () => db.abeginTransaction(),
        () => db.holdTransaction('another one'),
        () => db.aflush(),
        () => db.atransaction((other) => insert(other, 2), SQL),
        () => tx.atransaction(() => db.aflush()),
      ];
      for (const call of calls) codes.push(await codeFrom(call));
      expect(await outside(db, { stale: true })).toEqual([]);
      await db.aset('a', 2);
    }, SQL);
    expect(codes).toEqual(Array(9).fill('SLUICE_CONFLICT'));
    expect([db.get('a'), await outside(db)]).toEqual([2, [1]]);
  });

  test('so is every other one that waits for the writer thread, before anything of it is done', async () => {
    const { db, file } = await opened({ ...MANUAL, encryption: { key: randomBytes(32) } });
    const calls: Record<string, () => Promise<unknown>> = {
      'aexecute ahead': () => db.aexecute('INSERT INTO t (n) VALUES (9)', [], { ahead: true }),
      arotateKey: () => db.arotateKey({ key: randomBytes(32) }),
      'dlq.retry': () => db.dlq.retry('all'),
      'dlq.clear': () => db.dlq.clear('all'),
      'dlq.import': () => db.dlq.import([]),
      'dlq.take': () => db.dlq.take(),
      abackup: () => db.abackup(`${file}.backup`),
      arestore: () => db.arestore(`${file}.backup`),
      aiterate: () => db.aiterate('SELECT 1').next(),
      apragma: () => db.apragma('user_version'),
    };
    const codes: Record<string, string> = {};
    await db.atransaction(async (tx) => {
      await insert(tx, 1);
      for (const [name, call] of Object.entries(calls)) codes[name] = await codeFrom(call);
    }, SQL);
    expect(codes).toEqual(Object.fromEntries(Object.keys(calls).map((name) => [name, 'SLUICE_CONFLICT'])));
    expect([await outside(db), db.dlq.size, existsSync(`${file}.backup`)]).toEqual([[1], 0, false]);
  });

  test("at the level 'applied', so is every write that is awaited; others are not", async () => {
    const { db } = await opened({ ...MANUAL, durability: 'applied' });
    const rows = db.rows<{ n: number }>('t');
    const calls: Record<string, () => Promise<unknown>> = {
      aset: () => db.aset('a', 1),
      asetMany: () => db.asetMany({ a: 1 }),
      aupdate: () => db.aupdate({ a: 1 }),
      adelete: () => db.adelete('a'),
      apop: () => db.apop('a'),
      aclear: () => db.aclear(),
      aincrement: () => db.aincrement('a', 1, { default: 0 }),
      atransaction: () => db.atransaction(async (tx) => tx.set('a', 1)),
      aappend: () => rows.aappend({ n: 5 }),
      aappendMany: () => rows.aappendMany([{ n: 5 }]),
      astage: () => db.astage('INSERT INTO t (n) VALUES (5)'),
      adurable: () => db.adurable(),
    };
    const codes: Record<string, string> = {};
    await db.atransaction(async (tx) => {
      await insert(tx, 1);
      for (const [name, call] of Object.entries(calls)) codes[name] = await codeFrom(call);
      db.set('b', 2);
    }, SQL);
    expect(codes).toEqual(Object.fromEntries(Object.keys(calls).map((name) => [name, 'SLUICE_CONFLICT'])));
    expect([await outside(db), db.toDict()]).toEqual([[1], { b: 2 }]);
    await db.aset('a', 3);
    expect(db.get('a')).toBe(3);
  });

  test('so is a write that has to wait for room, and the wait for it', async () => {
    const { db } = await opened({ ...MANUAL, staging: { maxEntries: 4 } });
    const codes: string[] = [];
    await db.atransaction(async () => {
      for (let n = 0; n < 4; n++) db.set('a', n);
      for (const call of [() => db.aset('b', 1), () => db.adrain()]) codes.push(await codeFrom(call));
    }, SQL);
    expect(codes).toEqual(Array(2).fill('SLUICE_CONFLICT'));
    await db.aflush();
    await db.aset('b', 2);
    expect(db.toDict()).toEqual({ a: 3, b: 2 });
  });
});

describe('what others know of it', () => {
  test.for(['unbounded', undefined] as const)(
    'keys that it has changed are seen by the next read (cache: %s)',
    async (cache) => {
      const { db } = await opened({ ...MANUAL, cache });
      db.setMany({ a: 1, b: 1 });
      await db.aflush();
      expect([db.get('a'), await db.aget('b'), db.get('new')]).toEqual([1, 1, undefined]);
      const change = async (tx: SqlTransaction) => {
        await tx.aexecute("UPDATE data SET value = '2'");
        await tx.aexecute("INSERT INTO data VALUES ('new', '2')");
        // What is read meanwhile must not be remembered.
        expect([db.get('a'), await db.aget('b'), db.get('new')]).toEqual([1, 1, undefined]);
      };
      const failing = async (tx: SqlTransaction) => {
        await change(tx);
        throw new Error('no');
      };
      await db.atransaction(failing, SQL).catch(() => {});
      expect([db.get('a'), await db.aget('b'), db.get('new')]).toEqual([1, 1, undefined]);
      await db.atransaction(change, SQL);
      expect([db.get('a'), await db.aget('b'), db.get('new')]).toEqual([2, 2, 2]);
      const tx = await db.abeginTransaction();
      await tx.aexecute("DELETE FROM data WHERE key = 'a'");
      await db.acommit();
      expect([db.has('a'), await db.ahas('a')]).toEqual([false, false]);
    },
  );

  test('UniqueHook knows what it has written', async () => {
    const { db } = await opened();
    const users = db.table<{ mail: string }>('users', { hooks: [new UniqueHook<{ mail: string }>('mail')] });
    await users.aset('ada', { mail: 'a' });
    expect(await codeFrom(() => users.set('bob', { mail: 'a' }))).toBe('SLUICE_VALIDATION');
    await db.atransaction((tx) => tx.aexecute(`UPDATE users SET value = '{"mail":"b"}' WHERE key = 'ada'`), SQL);
    expect(await codeFrom(() => users.set('bob', { mail: 'b' }))).toBe('SLUICE_VALIDATION');
    users.set('bob', { mail: 'a' });
    expect(users.get('bob')).toEqual({ mail: 'a' });
  });

  test('its statements are counted, its queries are not', async () => {
    const { db } = await opened();
    const { directStatements } = db.stats();
    await db.atransaction(async (tx) => {
      await insert(tx, 1, 2, 3);
      await inside(tx);
    }, SQL);
    expect(db.stats().directStatements - directStatements).toBe(3);
  });

  test('a table that it has made, or made another, is known to the next batch', async () => {
    const { db } = await opened();
    await db.aset('a', 1);
    await db.aflush();
    await db.atransaction(async (tx) => {
      await tx.aexecute('DROP TABLE data');
      await tx.aexecute("CREATE TABLE data (key TEXT PRIMARY KEY, value TEXT CHECK (value <> '13'))");
    }, SQL);
    db.setMany({ b: 2 });
    db.set('c', 13);
    await db.aflush();
    expect([db.toDict(), db.dlq.size]).toEqual([{ b: 2 }, 1]);
    const dropping = async (tx: SqlTransaction) => {
      await tx.aexecute('DROP TABLE data');
      throw new Error('no');
    };
    await db.atransaction(dropping, SQL).catch(() => {});
    await db.aset('d', 4);
    await db.aflush();
    expect(db.toDict()).toEqual({ b: 2, d: 4 });
  });
});

describe('what the writer thread does by itself', () => {
  test('no checkpoint is tried inside it, and one is made after it', async () => {
    const { db } = await opened();
    await db.aset('a', 1);
    await db.aflush();
    await db.atransaction(async (tx) => {
      await insert(tx, 1);
      // The gap that a checkpoint waits for, several times over.
      await new Promise((resolve) => setTimeout(resolve, 500));
    }, SQL);
    const { complete } = db.stats().checkpoints;
    await eventually(() => db.stats().checkpoints.complete > complete, 'the next look has heard of a checkpoint');
    expect(db.stats().checkpoints.failed).toBe(0);
  });

  test('nobody looks, or sweeps what has expired, inside it', async () => {
    let looks = 0;
    // A look every 10 ms instead of every 2 s.
    const after: Clock['after'] = (delayMs, run, options) => {
      const isLook = delayMs === 2_000;
      const due = () => {
        if (isLook) looks++;
        run();
      };
      return systemClock.after(isLook ? 10 : delayMs, due, options);
    };
    let passed = 0;
    const now = () => systemClock.now() + passed;
    const { db } = await opened(MANUAL, { clock: { ...systemClock, after, now } });
    const short = db.table('short', { cache: { strategy: 'ttl', ttlMs: 60_000, persist: true } });
    short.set('a', 1);
    await db.aflush();
    await db.atransaction(async (tx) => {
      await insert(tx, 1);
      passed = 60_000;
      expect(short.has('a')).toBe(false);
      const before = looks;
      await eventually(() => looks > before + 5, 'it is time to look');
      expect(await tx.afetchOne('SELECT count(*) AS rows FROM short')).toEqual({ rows: 1 });
      await insert(tx, 2);
    }, SQL);
    expect(await outside(db)).toEqual([1, 2]);
    await eventually(() => db.stats().expired === 1, 'it is swept afterwards');
  });
});

describe('a database that is lost', () => {
  test('to another process: no transaction is begun', async () => {
    const { db, file } = await opened();
    const other = new Sqlite(file);
    other.prepare("UPDATE _sluice_state SET owner = 'another one'").run();
    expect(await codeFrom(() => db.atransaction((tx) => insert(tx, 1), SQL))).toBe('SLUICE_STORE');
    expect(await codeFrom(() => db.abeginTransaction())).toBe('SLUICE_STORE');
    expect(other.prepare(NUMBERS).all()).toEqual([]);
    // The write lock is free.
    other.prepare('INSERT INTO t (n) VALUES (2)').run();
    other.close();
  });

  test('because its file was moved: nothing is committed into what nobody would find', async () => {
    const { db, file } = await opened();
    const body = async (tx: SqlTransaction) => {
      await insert(tx, 1);
      renameSync(file, `${file}-elsewhere`);
    };
    expect(await codeFrom(() => db.atransaction(body, SQL))).toBe('SLUICE_STORE');
    renameSync(`${file}-elsewhere`, file);
    expect(inFile(file)).toEqual([]);
  });
});

describe('limits', () => {
  test('past its time it is rolled back: whoever waits is told, the flush goes on, and so do later transactions', async () => {
    const { db, file } = await opened({ flush: { mode: 'immediate' } });
    let leaked: SqlTransaction | undefined;
    const body = async (tx: SqlTransaction) => {
      leaked = tx;
      await insert(tx, 1);
      db.set('a', 1);
      await new Promise(() => {});
    };
    expect(await codeFrom(() => db.atransaction(body, { ...SQL, timeoutMs: 150 }))).toBe('SLUICE_TIMEOUT');
    const tx = leaked as SqlTransaction;
    expect(tx.isOpen).toBe(false);
    expect(await codeFrom(() => tx.aexecute('INSERT INTO t (n) VALUES (2)'))).toBe('SLUICE_TIMEOUT');
    expect(await codeFrom(() => tx.acommit())).toBe('SLUICE_TIMEOUT');
    await tx.arollback();
    await eventually(() => db.stats().pending === 0, 'what was staged meanwhile is applied');
    expect([await outside(db), inFile(file)]).toEqual([[], []]);
    await db.atransaction((next) => insert(next, 3), { ...SQL, timeoutMs: 5_000 });
    expect(await outside(db)).toEqual([3]);
  });

  test('a statement that is being run when the time is up is not waited for by its caller, but by everybody else', async () => {
    const { db } = await opened();
    const long =
      'INSERT INTO t (n) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 3000000) SELECT max(i) FROM c';
    let inner: string | undefined;
    const body = async (tx: SqlTransaction) => {
      inner = await codeFrom(() => tx.aexecute(long));
    };
    expect(await codeFrom(() => db.atransaction(body, { ...SQL, timeoutMs: 30 }))).toBe('SLUICE_TIMEOUT');
    await eventually(() => inner !== undefined, 'the caller of the statement is told');
    expect(inner).toBe('SLUICE_TIMEOUT');
    expect(await outside(db)).toEqual([]);
    await db.aexecute('INSERT INTO t (n) VALUES (1)');
    expect(await outside(db)).toEqual([1]);
  });

  test('a signal ends it, at once or on the way', async () => {
    const { db } = await opened();
    const ran: string[] = [];
    const reason = new Error('not any more');
    const before = db.atransaction(async () => void ran.push('before'), { ...SQL, signal: AbortSignal.abort(reason) });
    expect((await refusal(() => before)).code).toBe('SLUICE_ABORTED');
    const controller = new AbortController();
    const body = async (tx: SqlTransaction) => {
      await insert(tx, 1);
      controller.abort(reason);
      ran.push(await codeFrom(() => insert(tx, 2)));
    };
    const error = await refusal(() => db.atransaction(body, { ...SQL, signal: controller.signal }));
    expect([error.code, error.cause]).toEqual(['SLUICE_ABORTED', reason]);
    await eventually(() => ran.length === 1, 'the function goes on to its end');
    expect(ran).toEqual(['SLUICE_ABORTED']);
    expect(await outside(db)).toEqual([]);
    await db.atransaction((tx) => insert(tx, 3), SQL);
    expect(await outside(db)).toEqual([3]);
  });

  test('a signal that comes as the transaction begins is not missed', async () => {
    const { db } = await opened();
    const controller = new AbortController();
    const { signal } = controller;
    const stopListening = signal.removeEventListener.bind(signal);
    // The wait for the turn is over.
    signal.removeEventListener = (...args: Parameters<typeof stopListening>) => {
      stopListening(...args);
      controller.abort();
    };
    const ran = db.atransaction((tx) => insert(tx, 1), { ...SQL, signal });
    expect(await codeFrom(() => ran)).toBe('SLUICE_ABORTED');
    expect(await outside(db)).toEqual([]);
  });

  test('one that gives up while it waits for its turn does not hold up those behind it', async () => {
    const { db } = await opened();
    const going = gate();
    const begun = gate();
    const first = db.atransaction(async (tx) => {
      begun.open();
      await going.passed;
      await insert(tx, 1);
    }, SQL);
    await begun.passed;
    const ran: string[] = [];
    const late = db.atransaction(async () => void ran.push('late'), { ...SQL, timeoutMs: 50 });
    const last = db.atransaction((tx) => insert(tx, 2), SQL);
    expect(await codeFrom(() => late)).toBe('SLUICE_TIMEOUT');
    going.open();
    await Promise.all([first, last]);
    expect([ran, await outside(db)]).toEqual([[], [1, 2]]);
  });

  test('options that cannot be are refused before anything is done', async () => {
    const { db } = await opened();
    const never = async () => {
      throw new Error('was called');
    };
    for (const options of [{ timeoutMs: 0 }, { timeoutMs: 1.5 }, { signal: 5 }, { timeout: 5 }]) {
      expect(await codeFrom(() => db.atransaction(never, { ...SQL, ...options } as never))).toBe(
        'SLUICE_INVALID_OPTION',
      );
      expect(await codeFrom(() => db.abeginTransaction(options as never))).toBe('SLUICE_INVALID_OPTION');
    }
    for (const options of [null, { sql: 1 }, { sql: true, maxRetries: 1 }]) {
      expect(await codeFrom(() => db.atransaction(never, options as never))).toBe('SLUICE_INVALID_OPTION');
    }
    await db.atransaction(async (tx) => void tx.set('a', 1), { sql: false });
    expect(db.get('a')).toBe(1);
    await db.abeginTransaction();
    await db.arollback();
  });

  test('another program that has the write lock is waited for, until the time is up', async () => {
    const { db, file } = await opened();
    const unlock = await lockFromOutside(file);
    const error = await refusal(() => db.atransaction((tx) => insert(tx, 1), { ...SQL, timeoutMs: 200 }));
    expect([error.code, error.sqliteCode]).toEqual(['SLUICE_TIMEOUT', 'SQLITE_BUSY']);
    const waiting = db.atransaction((tx) => insert(tx, 2), SQL);
    expect(await isPending(waiting)).toBe(true);
    await unlock();
    await waiting;
    expect(await outside(db)).toEqual([2]);
  });
});

describe('close', () => {
  test('one that is open when the database is closed is rolled back, and close does not wait for it', async () => {
    const { db, file } = await opened({ ...MANUAL, closeTimeoutMs: 20_000 });
    const begun = gate();
    let inner: string | undefined;
    const going = gate();
    const open = codeFrom(() =>
      db.atransaction(async (tx) => {
        await insert(tx, 1);
        begun.open();
        await going.passed;
        inner = await codeFrom(() => insert(tx, 2));
      }, SQL),
    );
    await begun.passed;
    const waiting = codeFrom(() => db.atransaction((tx) => insert(tx, 3), SQL));
    db.set('staged', 1);
    const start = performance.now();
    expect(await db.close()).toEqual({ pending: 0 });
    expect(performance.now() - start).toBeLessThan(10_000);
    expect([await open, await waiting]).toEqual(['SLUICE_CLOSED', 'SLUICE_CLOSED']);
    going.open();
    await eventually(() => inner !== undefined, 'the function goes on to its end');
    expect(inner).toBe('SLUICE_CLOSED');
    expect(inFile(file)).toEqual([]);
    expect(await codeFrom(() => db.atransaction((tx) => insert(tx, 4), SQL))).toBe('SLUICE_CLOSED');
    expect(await codeFrom(() => db.abeginTransaction())).toBe('SLUICE_CLOSED');
    const again = await reopened(file);
    expect(again.get('staged')).toBe(1);
  });

  test('close in the function of a transaction does not wait for itself', async () => {
    const { db, file } = await opened();
    db.set('staged', 1);
    const code = await codeFrom(() =>
      db.atransaction(async (tx) => {
        await insert(tx, 1);
        db.set('later', 2);
        await db.close();
      }, SQL),
    );
    expect([code, await db.close(), inFile(file)]).toEqual(['SLUICE_CLOSED', { pending: 0 }, []]);
    expect((await reopened(file)).toDict()).toEqual({ staged: 1, later: 2 });
  });
});

async function reopened(file: string): Promise<Database> {
  const db = await open(file);
  onTestFinished(async () => void (await db.close()));
  return db;
}

describe('a writer thread that dies', () => {
  async function mortal(): Promise<Opened & { readonly writer: MortalWriter; readonly restarts: string[] }> {
    const writer = new MortalWriter();
    const at = await opened(MANUAL, { spawn: writer.spawn });
    const restarts: string[] = [];
    at.db.on('writer-restart', ({ reason }) => restarts.push(reason));
    return { ...at, writer, restarts };
  }

  test('before COMMIT was sent: everything is rolled back, its caller is told so, and nothing else is harmed', async () => {
    const { db, writer, restarts } = await mortal();
    let later: string | undefined;
    const error = await refusal(() =>
      db.atransaction(async (tx) => {
        await insert(tx, 1);
        db.set('a', 1);
        await writer.kill();
        later = await codeFrom(() => insert(tx, 2));
      }, SQL),
    );
    expect([later, error.code]).toEqual(['SLUICE_STORE', 'SLUICE_STORE']);
    expect(error.message).toContain('thread died');
    await db.aflush();
    expect([db.get('a'), await outside(db), restarts]).toEqual([1, [], ['death']]);
    await db.atransaction((tx) => insert(tx, 3), SQL);
    expect(await outside(db)).toEqual([3]);
  });

  test('idle, with nothing asked of it before the end: no COMMIT is sent, so there is no question', async () => {
    const { db, writer } = await mortal();
    const error = await refusal(() =>
      db.atransaction(async (tx) => {
        await insert(tx, 1);
        await writer.kill();
      }, SQL),
    );
    expect(error.code).toBe('SLUICE_STORE');
    expect(await outside(db)).toEqual([]);
  });

  test('at BEGIN: it begins again on the next thread', async () => {
    const { db, writer, restarts } = await mortal();
    const dead = writer.kill(1);
    await dead;
    await db.atransaction((tx) => insert(tx, 1), SQL);
    expect([await outside(db), restarts]).toEqual([[1], ['death']]);
  });

  /** A thread that ends right before or right after its COMMIT of a user's transaction. */
  const dyingAt = (moment: 'before' | 'after') =>
    wrappedWriter(`
      const prepare = Sqlite.prototype.prepare;
      let armed = false;
      Sqlite.prototype.prepare = function (sql) {
        const statement = prepare.call(this, sql);
        const { run } = statement;
        statement.run = (...values) => {
          if (sql.includes('the last one')) armed = true;
          const dies = armed && sql === 'COMMIT';
          if (dies && ${moment === 'before'}) process.exit(1);
          const result = run.apply(statement, values);
          if (dies) process.exit(1);
          return result;
        };
        return statement;
      };`);

  test.for([
    ['before', []],
    ['after', [1]],
  ] as const)('with COMMIT sent, right %s it: nobody knows, and it is not run again', async ([moment, left]) => {
    const { db } = await opened({ ...MANUAL, cache: 'unbounded' }, { spawn: dyingAt(moment) });
    await db.aset('a', 1);
    await db.aflush();
    expect(db.get('a')).toBe(1);
    let runs = 0;
    const body = async (tx: SqlTransaction) => {
      runs++;
      await tx.aexecute("UPDATE data SET value = '2' /* the last one */");
      await insert(tx, 1);
    };
    expect(await codeFrom(() => db.atransaction(body, SQL))).toBe('SLUICE_OUTCOME_UNKNOWN');
    expect([runs, await outside(db), db.get('a')]).toEqual([1, left, left.length + 1]);
    const tx = await db.abeginTransaction();
    await insert(tx, 5);
    await db.acommit();
    expect(await outside(db)).toEqual([...left, 5]);
  });
});

describe("the seed's style", () => {
  test('abeginTransaction, acommit, arollback and inTransaction', async () => {
    const { db } = await opened();
    expect(db.inTransaction).toBe(false);
    const tx = await db.abeginTransaction();
    expect(db.inTransaction).toBe(true);
    await insert(tx, 1);
    await db.acommit();
    expect([db.inTransaction, await outside(db)]).toEqual([false, [1]]);
    const other = await db.abeginTransaction();
    await insert(other, 2);
    await db.arollback();
    expect([db.inTransaction, other.isOpen, await outside(db)]).toEqual([false, false, [1]]);
    const third = await db.abeginTransaction();
    await insert(third, 3);
    await third.acommit();
    expect([db.inTransaction, await outside(db)]).toEqual([false, [1, 3]]);
  });

  test('a second one is refused while there is one, as is an end without a beginning', async () => {
    const { db } = await opened();
    for (const end of [() => db.acommit(), () => db.arollback()]) expect(await codeFrom(end)).toBe('SLUICE_CONFLICT');
    const beginning = db.abeginTransaction();
    expect(await codeFrom(() => db.abeginTransaction())).toBe('SLUICE_CONFLICT');
    expect(await codeFrom(() => db.acommit())).toBe('SLUICE_CONFLICT');
    await beginning;
    expect(await codeFrom(() => db.abeginTransaction())).toBe('SLUICE_CONFLICT');
    await db.arollback();
    expect(await codeFrom(() => db.arollback())).toBe('SLUICE_CONFLICT');
    await db.abeginTransaction();
    await db.acommit();
  });

  test('calls on the database are no part of it: one that would wait for its end is refused to who began it, and waits for others', async () => {
    const { db } = await opened();
    const going = gate();
    const begun = gate();
    const other = begun.passed.then(() => db.aexecute('INSERT INTO t (n) VALUES (9)'));
    const task = (async () => {
      const tx = await db.abeginTransaction();
      await insert(tx, 1);
      expect(await codeFrom(() => db.aexecute('INSERT INTO t (n) VALUES (2)'))).toBe('SLUICE_CONFLICT');
      db.set('kept', 1);
      begun.open();
      await going.passed;
      await db.arollback();
    })();
    await begun.passed;
    expect(await isPending(other)).toBe(true);
    going.open();
    await Promise.all([task, other]);
    await db.aflush();
    expect([await outside(db), db.get('kept')]).toEqual([[9], 1]);
  });

  test('one that is forgotten is rolled back after its time', async () => {
    const { db } = await opened();
    const tx = await db.abeginTransaction({ timeoutMs: 60 });
    await insert(tx, 1);
    await eventually(() => !db.inTransaction, 'its time is up');
    expect(await codeFrom(() => db.acommit())).toBe('SLUICE_TIMEOUT');
    expect(await outside(db)).toEqual([]);
    await db.abeginTransaction({ timeoutMs: 60 });
    await eventually(() => !db.inTransaction, 'its time is up');
    await db.abeginTransaction();
    await db.arollback();
  });
});
