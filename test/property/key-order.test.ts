import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { inKeyOrder } from '../../dist/store/sqlite/writer/key-order.js';

const ordered = (keys: readonly string[]) => inKeyOrder(keys).map((place) => keys[place] as string);

/** How many neighbours are not in order. */
function falls(keys: readonly string[]): number {
  return keys.filter((key, i) => i > 0 && key < (keys[i - 1] as string)).length;
}

describe('the order in which keys go down', () => {
  test('has each key once, whatever the keys', () => {
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
        const given = [...keys];
        expect(inKeyOrder(keys).sort((a, b) => a - b)).toEqual(keys.map((_, place) => place));
        expect(keys).toEqual(given);
      }),
    );
  });

  test('is that of the keys, but for a few that lie close to each other', () => {
    const keys = Array.from({ length: 20_000 }, (_, i) => {
      const n = (i * 7_919) % 20_000;
      return n % 3 === 0 ? `sensor/floor-${n}/temperature` : `room/${n}`;
    });
    expect(falls(keys)).toBeGreaterThan(5_000);
    expect(falls(ordered(keys))).toBeLessThan(500);
    expect(ordered([])).toEqual([]);
    const others = Array.from(
      { length: 20_000 },
      (_, i) => `温度/${String.fromCharCode(0x4e00 + ((i * 7_919) % 20_000))}`,
    );
    expect(falls(others)).toBeGreaterThan(5_000);
    expect(falls(ordered(others))).toBe(0);
  });
});
