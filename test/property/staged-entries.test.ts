import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Frame, FrameBuilder, FrameScratch } from '../../dist/base/frame/index.js';
import { hashOf } from '../../dist/base/hash.js';
import { Generation, TableTarget } from '../../dist/engine/generation.js';

type Value = string | Uint8Array | null;

const TABLES = ['one', 'two'].map((name) => new TableTarget(name));

const table = fc.constantFrom(...TABLES);
const key = fc.oneof({ weight: 3, arbitrary: fc.nat(20).map((i) => `key/${i}`) }, fc.string({ unit: 'binary' }));
const value = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 200 }),
  fc.uint8Array({ maxLength: 20 }),
  fc.constant(null),
);
const step = fc.oneof(
  { weight: 40, arbitrary: fc.record({ kind: fc.constant('set' as const), table, key, value }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('append' as const), table, value: fc.string() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('clear' as const), table }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('close' as const) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('undo' as const), table, key, value }) },
);

/** A generation beside the maps that it must be like. */
class Sides {
  readonly generation = new Generation(1);
  readonly frames: Frame[] = [];
  readonly maps = new Map(TABLES.map((each) => [each, new Map<string, Value>()]));
  readonly #scratch = new FrameScratch();
  #open: FrameBuilder | undefined;
  #writes = 0;

  get open(): FrameBuilder {
    this.#open ??= new FrameBuilder(0, this.#scratch);
    return this.#open;
  }

  set(target: TableTarget, name: string, to: Value): void {
    if (to === null) this.open.delete(target, name);
    else this.open.put(target, name, to);
    this.generation.set(target, name, this.open);
    this.open.keep();
    this.maps.get(target)?.set(name, to);
  }

  append(target: TableTarget, to: string): void {
    this.open.append(target, [to]);
    this.open.keep();
  }

  /** A group that fails after its first member. */
  undo(target: TableTarget, name: string, to: Value): void {
    this.open.group(2);
    if (to === null) this.open.delete(target, name);
    else this.open.put(target, name, to);
    this.open.undo();
  }

  clear(target: TableTarget): void {
    this.open.clear(target);
    this.open.keep();
    this.generation.stageFor(target).clear();
    this.maps.get(target)?.clear();
  }

  close(): void {
    if (this.#open === undefined) return;
    const { entries, count } = this.#open;
    const frame = this.#open.build(this.#writes + 1);
    this.#open = undefined;
    this.#writes += count;
    this.frames.push(frame);
    this.generation.addFrame(frame, entries);
  }

  check(target: TableTarget, name: string): void {
    const found = this.generation.stage(target.folded)?.get(name, hashOf(name));
    expect(found).toEqual(this.maps.get(target)?.get(name));
  }

  checkAll(): void {
    for (const [target, map] of this.maps) {
      for (const name of map.keys()) this.check(target, name);
      expect(newest(this.generation, target)).toEqual(map);
    }
  }
}

function newest(generation: Generation, target: TableTarget): Map<string, Value> {
  const stage = generation.stage(target.folded);
  const map = new Map<string, Value>();
  for (let entry = 0; entry < (stage?.size ?? 0); entry++) {
    map.set(stage?.keyAt(entry) as string, stage?.valueAt(entry) as Value);
  }
  return map;
}

describe('what is staged', () => {
  test('is found as in a map, in the open frame and in those that are built', () => {
    let open = 0;
    let built = 0;
    fc.assert(
      fc.property(fc.array(step, { minLength: 30, maxLength: 300, size: 'max' }), fc.boolean(), (steps, reads) => {
        const sides = new Sides();
        for (const each of steps) {
          if (each.kind === 'close') sides.close();
          else if (each.kind === 'clear') sides.clear(each.table);
          else if (each.kind === 'append') sides.append(each.table, each.value);
          else if (each.kind === 'undo') sides.undo(each.table, each.key, each.value);
          else {
            sides.set(each.table, each.key, each.value);
            if (reads) sides.check(each.table, each.key);
            open++;
          }
        }
        sides.checkAll();
        sides.close();
        sides.checkAll();
        built += sides.frames.length;
      }),
    );
    expect(open).toBeGreaterThan(1_000);
    expect(built).toBeGreaterThan(200);
  });

  test('is found again in frames that recovery takes over, from any write on', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 100, size: 'max' }), fc.nat(120), (steps, applied) => {
        const sides = new Sides();
        const above = new Sides();
        let seq = 0;
        for (const each of steps) {
          if (each.kind === 'close' || each.kind === 'undo') {
            if (each.kind === 'close') sides.close();
            else sides.undo(each.table, each.key, each.value);
            continue;
          }
          const isAbove = ++seq > applied;
          if (each.kind === 'append') sides.append(each.table, each.value);
          else if (each.kind === 'clear') {
            sides.clear(each.table);
            if (isAbove) above.clear(each.table);
          } else {
            sides.set(each.table, each.key, each.value);
            if (isAbove) above.set(each.table, each.key, each.value);
          }
        }
        sides.close();
        const recovered = new Generation(1);
        for (const frame of sides.frames) {
          recovered.adopt(frame, (reader) => {
            const target = TABLES.find(({ table: name }) => name === reader.target.table);
            if (reader.seq <= applied || target === undefined) return undefined;
            if (reader.kind === 4) recovered.stageFor(target).clear();
            return target;
          });
        }
        for (const [target, map] of above.maps) expect(newest(recovered, target)).toEqual(map);
      }),
    );
  });

  test('is let go of by its table when it is applied', () => {
    const target = new TableTarget('rarely written');
    const generation = new Generation(1);
    const open = new FrameBuilder(0);
    open.put(target, 'key', '1');
    generation.set(target, 'key', open);
    expect(target.stage?.size).toBe(1);
    generation.release();
    expect([target.stage, target.generation, target.lastSize]).toEqual([undefined, undefined, 1]);
  });

  test('is told from another key with the same hash', () => {
    const [target] = TABLES as [TableTarget];
    const sides = new Sides();
    sides.set(target, 'one', '1');
    for (const close of [false, true]) {
      if (close) sides.close();
      expect(sides.generation.stage(target.folded)?.get('one', hashOf('one'))).toBe('1');
      expect(sides.generation.stage(target.folded)?.get('other', hashOf('one'))).toBeUndefined();
    }
  });

  test('has keys that come to as many buckets as those of a good hash would', () => {
    // What numbered keys have in common is most of them: with a poor hash they share buckets, and reads walk through chains.
    for (const name of [(i: number) => `sensor/${i}`, (i: number) => `${i}`, (i: number) => `room-${i % 97}/${i}/x`]) {
      const buckets = new Set(Array.from({ length: 65_536 }, (_, i) => hashOf(name(i)) & 65_535));
      expect(buckets.size / 65_536).toBeGreaterThan(0.6); // 1 - 1/e = 0.63 for a hash that is random
    }
  });
});
