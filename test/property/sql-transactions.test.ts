import { join } from 'node:path';
import * as fc from 'fast-check';
import { type Database, open, type SqlTransaction } from 'sluicedb';
import { expect, test } from 'vitest';
import { settle } from '../support/eventually.ts';
import { assertOnEveryPath } from '../support/every-path.ts';
import { tempDir } from '../support/temp-dir.ts';

const RUNS = 25;
const SQL = { sql: true } as const;

type Change =
  | { readonly do: 'put'; readonly key: string; readonly value: number }
  | { readonly do: 'remove'; readonly key: string }
  // Says in which order the others came.
  | { readonly do: 'mark'; readonly digit: number };

type Step = Change | { readonly do: 'nested'; readonly steps: readonly Step[]; readonly fails: boolean };

interface Transaction {
  readonly steps: readonly Step[];
  readonly fails: boolean;
  readonly turns: number;
}

type State = Map<string, string>;

const key = fc.constantFrom('a', 'b', 'c', 'd');
const change: fc.Arbitrary<Change> = fc.oneof(
  fc.record({ do: fc.constant('put' as const), key, value: fc.integer({ min: 1, max: 9 }) }),
  fc.record({ do: fc.constant('remove' as const), key }),
  fc.record({ do: fc.constant('mark' as const), digit: fc.integer({ min: 1, max: 9 }) }),
);
const { steps } = fc.letrec<{ step: Step; steps: readonly Step[] }>((tie) => ({
  step: fc.oneof(
    { weight: 5, arbitrary: change },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant('nested' as const), steps: tie('steps'), fails: fc.boolean() }),
    },
  ),
  steps: fc.array(tie('step'), { maxLength: 5, depthIdentifier: 'steps' }),
}));
const turns = fc.integer({ min: 0, max: 6 });
const transactions = fc.array(
  fc.record({ steps, fails: fc.oneof({ weight: 3, arbitrary: fc.constant(false) }, fc.constant(true)), turns }),
  { minLength: 1, maxLength: 3 },
);
const staged = fc.array(fc.record({ change, turns, flushes: fc.boolean() }), { maxLength: 14 });

function apply(state: State, made: Change): void {
  if (made.do === 'put') state.set(made.key, String(made.value));
  else if (made.do === 'remove') state.delete(made.key);
  else for (const [name, value] of state) state.set(name, `${value}${made.digit}`);
}

function stage(db: Database, made: Change): void {
  if (made.do === 'put') db.set(made.key, made.value);
  else if (made.do === 'remove') db.delete(made.key);
  else db.stage('UPDATE data SET value = value || ?', [String(made.digit)]);
}

const run = (tx: SqlTransaction, made: Change) =>
  made.do === 'put'
    ? tx.aexecute('INSERT OR REPLACE INTO data VALUES (?, ?)', [made.key, String(made.value)])
    : made.do === 'remove'
      ? tx.aexecute('DELETE FROM data WHERE key = ?', [made.key])
      : tx.aexecute('UPDATE data SET value = value || ?', [String(made.digit)]);

async function stateIn(tx: SqlTransaction): Promise<State> {
  const rows = await tx.afetchAll<{ key: string; value: string }>('SELECT key, value FROM data');
  return new Map(rows.map((row) => [row.key, row.value]));
}

const watermark = async (tx: SqlTransaction) =>
  (await tx.afetchOne<{ seq: number }>('SELECT applied_seq AS seq FROM _sluice_state'))?.seq as number;

class Failed extends Error {}

/** Makes the steps, and holds what the transaction sees against what it should see. */
async function make(
  tx: SqlTransaction,
  state: State,
  list: readonly Step[],
  wait: () => Promise<void>,
): Promise<State> {
  let seen = new Map(state);
  for (const step of list) {
    await wait();
    if (step.do !== 'nested') {
      await run(tx, step);
      apply(seen, step);
    } else {
      const before = seen;
      seen = await tx
        .atransaction(async (inner) => {
          const after = await make(inner, before, step.steps, wait);
          if (step.fails) throw new Failed();
          return after;
        })
        .catch((error) => {
          if (!(error instanceof Failed)) throw error;
          return before;
        });
    }
    expect(await stateIn(tx)).toEqual(seen);
  }
  return seen;
}

test('two SQL transactions and staged writes, however they fall between each other, have one order', async () => {
  const hit = { between: 0, rolledBack: 0, nested: 0, waited: 0 };
  const property = fc.asyncProperty(transactions, transactions, staged, async (first, second, writes) => {
    const db = await open(join(tempDir(), 'a.db'), { flush: { mode: 'immediate' }, cache: 'unbounded' });
    await db.aexecute('CREATE TABLE IF NOT EXISTS data (key TEXT PRIMARY KEY, value TEXT)');
    /** The staged writes by their numbers, as far as they count in the order … */
    const accepted: { readonly seq: number; readonly change: Change }[] = [];
    /** … and what all have come to so far. */
    const state: State = new Map();
    let next = 0;
    const catchUp = (seq: number) => {
      for (let write = accepted[next]; write !== undefined && write.seq <= seq; write = accepted[++next]) {
        apply(state, write.change);
      }
    };

    const transact = async (list: readonly Transaction[]) => {
      for (const { steps: made, fails, turns: pause } of list) {
        await settle(pause);
        const calledAt = db.stats().accepted;
        const body = async (tx: SqlTransaction) => {
          const seq = await watermark(tx);
          expect(seq).toBeGreaterThanOrEqual(calledAt);
          catchUp(seq);
          expect(await stateIn(tx)).toEqual(state);
          const after = await make(tx, state, made, () => settle(pause));
          // No batch has gone down meanwhile, whatever was staged.
          expect(await watermark(tx)).toBe(seq);
          if (db.stats().accepted > seq) hit.waited++;
          if (fails) throw new Failed();
          state.clear();
          for (const [name, value] of after) state.set(name, value);
        };
        const isMade = await db.atransaction(body, SQL).then(
          () => true,
          (error) => {
            if (!(error instanceof Failed)) throw error;
            return false;
          },
        );
        expect(isMade).toBe(!fails);
        if (fails) hit.rolledBack++;
        if (made.some((step) => step.do === 'nested')) hit.nested++;
      }
    };

    const write = async () => {
      for (const { change: made, turns: pause, flushes } of writes) {
        await settle(pause);
        const before = db.stats().accepted;
        stage(db, made);
        const { accepted: seq } = db.stats();
        if (seq > before) accepted.push({ seq, change: made });
        if (flushes) await db.aflush();
      }
    };

    try {
      await Promise.all([transact(first), transact(second), write()]);
      if (next > 0) hit.between++;
      await db.aflush();
      catchUp(db.stats().accepted);
      const expected = Object.fromEntries([...state].map(([name, value]) => [name, JSON.parse(value)]));
      expect(db.toDict()).toEqual(expected);
      for (const name of ['a', 'b', 'c', 'd']) expect(db.get(name)).toEqual(expected[name]);
      expect(db.stats().deadLettered).toBe(0);
    } finally {
      await db.close();
    }
  });
  await assertOnEveryPath(property, { numRuns: RUNS }, hit);
}, 60_000);
