import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ResourceLimits } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { codeFrom, eventually } from '../support/eventually.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';
import { wrappedReaders, wrappedWriter } from '../support/wrapped-writer.ts';

/** The writer thread does something to itself when a switch is there, which it takes away first. */
async function opened(program: (takesSwitch: string) => string, limits?: ResourceLimits) {
  const folder = tempDir();
  const armed = join(folder, 'switch');
  const takesSwitch = `(() => { try { fs.unlinkSync(${JSON.stringify(armed)}); return true; } catch { return false; } })()`;
  const spawn = wrappedWriter(program(takesSwitch), limits === undefined ? {} : { resourceLimits: limits });
  const db = await openOn(machine({ spawn }), join(folder, 'a.db'), { flush: { mode: 'manual' } });
  const errors: string[] = [];
  db.on('failure', ({ error }) => errors.push(error.message));
  const rows = db.rows<{ n: number }>('r', { columns: { n: 'integer' } });
  for (let n = 0; n < 100; n++) rows.append({ n });
  await db.aflush();
  return { db, rows, errors, arm: () => writeFileSync(armed, '') };
}

/** In the transaction of a batch: between two inserts into the table of rows, each of which may be one of many rows. */
const inTransaction = (takesSwitch: string, act: string) => `
  const prepare = Sqlite.prototype.prepare;
  Sqlite.prototype.prepare = function (sql) {
    const statement = prepare.call(this, sql);
    if (!sql.startsWith('INSERT INTO "r"')) return statement;
    const run = statement.run;
    let runs = 0;
    statement.run = function (...given) {
      if (++runs % 6 === 3 && ${takesSwitch}) { ${act} }
      return run.apply(this, given);
    };
    return statement;
  };`;

const DEATHS: readonly [name: string, program: (takesSwitch: string) => string, limits?: ResourceLimits][] = [
  [
    'throws where nobody catches',
    (taken) => inTransaction(taken, `process.nextTick(() => { throw new Error('out of the blue'); }); port.close();`),
  ],
  ['calls process.exit', (taken) => inTransaction(taken, 'process.exit(3);')],
  [
    'runs out of memory',
    (taken) => inTransaction(taken, 'const hoard = []; for (;;) hoard.push(new Array(10_000).fill(Math.random()));'),
    { maxOldGenerationSizeMb: 48 },
  ],
  ['closes its port, and lives on', (taken) => inTransaction(taken, 'setInterval(() => {}, 1_000); port.close();')],
];

test.each(DEATHS)(
  '[fault 49] in the middle of a batch the writer thread %s: replayed, once',
  async (_, program, limits) => {
    const { db, rows, errors, arm } = await opened(program, limits);
    arm();
    for (let n = 100; n < 300; n++) rows.append({ n });
    await db.aflush({ timeoutMs: 20_000 });
    expect(errors).toHaveLength(1);
    expect(db.stats()).toMatchObject({ applied: 301, pending: 0, deadLettered: 0, state: 'ok', writerRestarts: 1 });
    expect(await db.afetchOne('SELECT count(*) AS n, count(DISTINCT n) AS different FROM r')).toEqual({
      n: 300,
      different: 300,
    });
    await db.close();
  },
);

test('[fault 51] the writer thread dies between COMMIT and its answer: the batch is not applied again', async () => {
  const dies = (taken: string) => `
    const postMessage = port.postMessage;
    port.postMessage = function (message) {
      if (message.response?.result !== undefined && ${taken}) process.exit(3);
      return postMessage.call(this, message);
    };`;
  const { db, rows, errors, arm } = await opened(dies);
  for (let round = 0; round < 3; round++) {
    await db.aset('k', round);
    rows.append({ n: 100 + round });
    arm();
    expect(await db.aflush()).toMatchObject({ applied: 2, coalesced: 0, dead: 0 });
    expect(errors).toHaveLength(round + 1);
    expect(errors.at(-1)).toMatch(/ended with code 3/);
  }
  await eventually(() => db.stats().pending === 0, 'nothing is left');
  // A second application would have doubled the rows.
  expect(await db.afetchOne('SELECT count(*) AS n FROM r')).toEqual({ n: 103 });
  expect(db.get('k')).toBe(2);
  expect(db.stats()).toMatchObject({ applied: 107, pending: 0, writerRestarts: 3 });
  await db.close();
});

const READER_DEATHS: readonly [name: string, act: string, limits?: ResourceLimits][] = [
  ['throws where nobody catches', `process.nextTick(() => { throw new Error('out of the blue'); }); port.close();`],
  ['calls process.exit', 'process.exit(3);'],
  [
    'runs out of memory',
    'const hoard = []; for (;;) hoard.push(new Array(10_000).fill(Math.random()));',
    { maxOldGenerationSizeMb: 48 },
  ],
  ['closes its port, and lives on', 'setInterval(() => {}, 1_000); port.close();'],
];

test.each(READER_DEATHS)(
  '[fault 49] in the middle of a query a reader thread %s: its caller is told, and the next read has another',
  async (_, act, limits) => {
    const spawn = wrappedReaders(
      `const prepare = Sqlite.prototype.prepare;
       Sqlite.prototype.prepare = function (sql) {
         const statement = prepare.call(this, sql);
         if (sql.includes('deadly')) { ${act} }
         return statement;
       };`,
      limits === undefined ? {} : { resourceLimits: limits },
    );
    const db = await openOn(machine({ spawn }), join(tempDir(), 'a.db'), { flush: { mode: 'manual' }, readers: 2 });
    const failures: string[] = [];
    db.on('failure', ({ error }) => failures.push(error.message));
    await db.aset('k', 1);
    await db.aflush();
    for (let round = 0; round < 2; round++) {
      expect(await codeFrom(() => db.afetchAll("SELECT 'deadly'", [], { stale: true, timeoutMs: 20_000 }))).toBe(
        'SLUICE_STORE',
      );
      // Whatever the others of the pool were asked at the same time is answered.
      const answers = await Promise.all([db.aget('k'), db.acount('data'), db.afetchOne('SELECT value FROM data')]);
      expect(answers).toEqual([1, 1, { value: '1' }]);
      await db.aset('k', 1);
      await db.aflush();
    }
    expect(db.stats()).toMatchObject({ state: 'ok', applied: 3, pending: 0, writerRestarts: 0 });
    expect(failures).toEqual([]);
    await db.close();
  },
);
