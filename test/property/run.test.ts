import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { FrameReader } from '../../dist/base/frame/index.js';
import type { KeyTable } from '../../dist/store/sqlite/writer/catalog.js';
import { Run } from '../../dist/store/sqlite/writer/run.js';
import { frameOf, Targets, type Write } from '../support/writes.ts';

const tables = new Map(['one', 'other'].map((folded) => [folded, { folded } as KeyTable]));

/** What a run says is the newest of each key, by table. */
function newestIn(run: Run): Map<string, unknown> {
  return new Map(
    run.tables.flatMap((each) =>
      run.newestOf(each).map((entry) => {
        const { key, value, seq } = run.writeAt(entry);
        return [`${each.table} ${key}`, [value, seq]] as const;
      }),
    ),
  );
}

function add(run: Run, writes: readonly Write[], firstSeq: number, targets: Targets): void {
  const reader = new FrameReader(frameOf(writes, firstSeq, targets).bytes);
  let taken = true;
  while (reader.next()) taken &&= run.add(tables.get(reader.target.table as string) as KeyTable, reader);
  expect(taken).toBe(true);
}

test('a run has the newest write of each key, as a Map would', () => {
  const table = fc.constantFrom(...tables.keys());
  const key = fc.oneof(fc.constantFrom('', 'a', 'b', 'é', '😀', '\ud800'), fc.string({ unit: 'binary', maxLength: 3 }));
  const write: fc.Arbitrary<Write> = fc.oneof(
    fc.record({
      kind: fc.constant('put' as const),
      table,
      key,
      value: fc.oneof(fc.string(), fc.uint8Array({ maxLength: 3 })),
    }),
    fc.record({ kind: fc.constant('delete' as const), table, key }),
  );
  const run = new Run();
  let coalesced = 0;
  fc.assert(
    fc.property(fc.array(fc.array(write, { minLength: 1, maxLength: 20 }), { maxLength: 5 }), (frames) => {
      const targets = new Targets();
      const expected = new Map<string, unknown>();
      let seq = 1;
      for (const writes of frames) {
        add(run, writes, seq, targets);
        for (const each of writes as { table: string; key: string; value?: unknown }[]) {
          expected.set(`${each.table} ${each.key.toWellFormed()}`, [each.value ?? null, seq++]);
        }
      }
      expect(newestIn(run)).toEqual(expected);
      expect([run.keys, run.coalesced]).toEqual([expected.size, seq - 1 - expected.size]);
      coalesced += run.coalesced;
      run.reset();
      expect([run.keys, run.coalesced, run.tables]).toEqual([0, 0, []]);
    }),
  );
  expect(coalesced).toBeGreaterThan(100);
});

test('a run takes 25,000 keys, whose hashes share their low bits, and no other, and can be filled again', () => {
  const run = new Run();
  const put = (table: string, key: string, value: string): Write => ({ kind: 'put', table, key, value });
  for (const round of [1, 2]) {
    const writes = Array.from({ length: 30_000 }, (_, i) => put('one', `${round} ${i % 24_999}`, String(i)));
    add(run, writes, 1, new Targets());
    add(run, [put('other', `${round} 0`, 'x'), put('one', `${round} 1`, 'y')], 30_001, new Targets());
    const more = new FrameReader(frameOf([put('one', 'more', 'z')], 30_003).bytes);
    more.next();
    expect(run.add(tables.get('one') as KeyTable, more)).toBe(false);
    add(run, [put('one', `${round} 2`, 'z')], 30_003, new Targets());
    expect([run.keys, run.coalesced]).toEqual([25_000, 5_003]);
    const newest = newestIn(run);
    expect(newest.size).toBe(25_000);
    expect(newest.get(`one ${round} 0`)).toEqual(['24999', 25_000]);
    expect(newest.get(`one ${round} 1`)).toEqual(['y', 30_002]);
    expect(newest.get(`one ${round} 2`)).toEqual(['z', 30_003]);
    expect(newest.get(`one ${round} 5000`)).toEqual(['29999', 30_000]);
    expect(newest.get(`one ${round} 5001`)).toEqual(['5001', 5_002]);
    expect(newest.get(`other ${round} 0`)).toEqual(['x', 30_001]);
    run.reset();
  }
});
