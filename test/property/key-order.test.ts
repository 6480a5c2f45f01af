import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { inKeyOrder } from '../../dist/store/sqlite/writer/key-order.js';

const entriesOf = (keys: readonly string[]) => keys.map((key) => ({ key }));
const keysOf = (entries: readonly { readonly key: string }[]) => entries.map(({ key }) => key);

/** How many neighbours are not in order. */
function falls(keys: readonly string[]): number {
  return keys.filter((key, i) => i > 0 && key < (keys[i - 1] as string)).length;
}

describe('the order in which keys go down', () => {
  test('has each entry once, whatever the keys', () => {
    const characters = fc.constantFrom('a', 'b', '\0', '~', 'é', '😀', '/');
    const key = fc.oneof(
      fc.string({ unit: characters, maxLength: 20 }),
      fc.nat(300).map((n) => 'a'.repeat(n)),
      fc.nat(300).map((n) => 'é'.repeat(n)),
      fc.nat(300).map((n) => '\0'.repeat(n)),
      fc.tuple(fc.constantFrom('sensor/', 'room/', 'é/'), fc.nat()).map(([kind, n]) => kind + n),
    );
    fc.assert(
      fc.property(fc.uniqueArray(key, { maxLength: 400, size: 'max' }), (keys) => {
        const entries = entriesOf(keys);
        const ordered = inKeyOrder(entries);
        expect(new Set(ordered)).toEqual(new Set(entries));
        expect(ordered).toHaveLength(entries.length);
        expect(keysOf(entries)).toEqual(keys);
      }),
    );
  });

  test('is that of the keys, but for a few that lie close to each other', () => {
    const keys = Array.from({ length: 20_000 }, (_, i) => {
      const n = (i * 7_919) % 20_000;
      return n % 3 === 0 ? `sensor/floor-${n}/temperature` : `room/${n}`;
    });
    expect(falls(keys)).toBeGreaterThan(5_000);
    expect(falls(keysOf(inKeyOrder(entriesOf(keys))))).toBeLessThan(500);
    expect(keysOf(inKeyOrder(entriesOf([])))).toEqual([]);
    const others = Array.from(
      { length: 20_000 },
      (_, i) => `温度/${String.fromCharCode(0x4e00 + ((i * 7_919) % 20_000))}`,
    );
    expect(falls(others)).toBeGreaterThan(5_000);
    expect(falls(keysOf(inKeyOrder(entriesOf(others))))).toBe(0);
  });
});
