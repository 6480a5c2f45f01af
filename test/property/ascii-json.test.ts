import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AsciiJson } from '../../dist/db/ascii-json.js';
import { encodeNow, encodeValue, keepEncoded } from '../../dist/db/codec.js';

const json = new AsciiJson();

/** Numbers of all sizes, and those of few decimals that measurements are. */
const number = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.integer(),
  fc.maxSafeInteger(),
  fc.tuple(fc.maxSafeInteger(), fc.integer({ min: 0, max: 17 })).map(([digits, scale]) => digits / 10 ** scale),
  fc.tuple(fc.integer({ min: -1e6, max: 1e6 }), fc.integer({ min: 1, max: 5 })).map(([n, scale]) => n / 10 ** scale),
);
const text = fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.string({ minLength: 100, maxLength: 200 }));
/** Long text, most of it plain, with at most one character that is something else, anywhere. */
const longText = fc
  .tuple(
    fc.string({ unit: fc.integer({ min: 0x20, max: 0x7f }).map(plainCharacter), minLength: 120, maxLength: 700 }),
    fc.nat(),
    fc.oneof(
      fc.constant(''),
      fc.integer({ min: 0, max: 0xff }).map((code) => String.fromCharCode(code)),
      fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }),
    ),
  )
  .map(([around, at, odd]) => around.slice(0, at % around.length) + odd + around.slice(at % around.length));
const plain = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 10, depthSize: 'small' },
    number,
    text,
    fc.boolean(),
    fc.constant(null),
    fc.array(tie('value'), { maxLength: 5 }),
    fc.dictionary(fc.oneof(text, fc.nat().map(String), fc.constantFrom('__proto__', 'toJSON')), tie('value'), {
      maxKeys: 5,
    }),
  ),
})).value;

function plainCharacter(code: number): string {
  return String.fromCharCode(code).replace(/["\\]/, 'x');
}

function isEscaped(text: string): boolean {
  return JSON.stringify(text) !== `"${text}"` || /[^\x20-\x7f]/.test(text);
}

describe('the JSON of plain values as bytes', () => {
  test('is that of JSON.stringify, to the byte', () => {
    let written = 0;
    fc.assert(
      fc.property(plain, (value) => {
        const ascii = json.encode(value);
        if (ascii === undefined) return;
        written++;
        expect(String(ascii)).toBe(JSON.stringify(value));
        expect(ascii.length).toBe(String(ascii).length);
      }),
      { numRuns: 20_000 },
    );
    expect(written).toBeGreaterThan(2_000);
  });

  test('has long text as JSON.stringify has it, or not at all', () => {
    let written = 0;
    let refused = 0;
    fc.assert(
      fc.property(longText, fc.nat({ max: 9 }), (value, before) => {
        const nested = [10 ** before, value];
        const ascii = json.encode(nested);
        if (ascii === undefined) refused++;
        else {
          written++;
          expect(String(ascii)).toBe(JSON.stringify(nested));
        }
        expect(ascii === undefined).toBe(isEscaped(value));
      }),
      { numRuns: 20_000 },
    );
    expect(written).toBeGreaterThan(2_000);
    expect(refused).toBeGreaterThan(2_000);
  });

  test('of long text beyond ASCII is none, though what there is room for has as many bytes', () => {
    // 65,536 bytes are all there is: of 40,000 characters of two bytes each only so many fit.
    for (let length = 32_700; length <= 32_800; length++) {
      expect(json.encode(['x'.repeat(2 * (32_766 - (length % 100))), 'ä'.repeat(length)])).toBeUndefined();
      expect(json.encode('ä'.repeat(length))).toBeUndefined();
    }
    expect(json.encode('x'.repeat(65_534))?.length).toBe(65_536);
    expect(json.encode('x'.repeat(65_535))).toBeUndefined();
  });

  test('has every number as JSON.stringify has it', () => {
    fc.assert(
      fc.property(number, (value) => {
        expect(String(json.encode(value))).toBe(JSON.stringify(value));
      }),
      { numRuns: 100_000 },
    );
  });

  test('of what is not plain is none: it is left to whoever says what is wrong with it', () => {
    const cycle: Record<string, unknown> = {};
    cycle['self'] = cycle;
    const others = [
      // As JSON.rawJSON makes it, where there is one.
      Object.freeze(Object.assign(Object.create(null), { rawJSON: '9007199254740993' })),
      undefined,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      1n,
      Symbol('s'),
      () => 1,
      new Date(0),
      new Map(),
      Object.create({ inherited: 1 }),
      { toJSON: () => 'else' },
      { a: undefined },
      [undefined],
      new Array(1),
      Object.assign([1], { toJSON: () => 'else' }),
      'ä',
      '"',
      '\\',
      '\n',
      '\ud800',
      { ä: 1 },
      'x'.repeat(100_000),
      Array.from({ length: 50_000 }, () => 1),
      cycle,
    ];
    for (const value of others) expect(json.encode(value), String(typeof value)).toBeUndefined();
    expect(json.encode({})).toBeDefined();
  });

  test('has only the own properties of an object, whatever somebody has given all of them', () => {
    let plain: unknown;
    let text: unknown;
    Object.defineProperty(Object.prototype, 'everywhere', { value: 1, enumerable: true, configurable: true });
    try {
      plain = json.encode({ a: 1 });
      text = keepEncoded(encodeNow({ a: 1 }));
    } finally {
      Reflect.deleteProperty(Object.prototype, 'everywhere');
    }
    expect(plain).toBeUndefined();
    expect(text).toBe('{"a":1}');
  });

  test('is not disturbed by a getter that encodes something else meanwhile', () => {
    let inner: unknown;
    const outer = {
      before: 1,
      get now() {
        inner = keepEncoded(encodeNow({ other: [1, 2, 3] }));
        return 2;
      },
      after: 3,
    };
    expect(keepEncoded(encodeNow(outer))).toBe('{"before":1,"now":2,"after":3}');
    expect(inner).toBe('{"other":[1,2,3]}');
  });

  test('can be made again after a getter has thrown', () => {
    const failing = {
      get now(): number {
        throw new Error('no');
      },
    };
    expect(() => json.encode(failing)).toThrow('no');
    expect(String(json.encode({ a: 1 }))).toBe('{"a":1}');
  });

  test('of text of any length is the text itself, if it is plain', () => {
    for (const length of [0, 1, 127, 65_535, 65_536, 65_537, 200_000]) {
      for (const odd of ['x', '\x7f', '\x1f', '\n', '"', '\\', 'é', '€', '😀', '\ud800']) {
        for (const at of [0, 70, length - 1]) {
          if (at < 0 || at > length) continue;
          const text = 'a'.repeat(at) + odd + 'a'.repeat(length - at);
          expect([json.isPlain(text), length, odd, at]).toEqual([!isEscaped(text), length, odd, at]);
          expect(encodeValue(text)).toBe(JSON.stringify(text));
        }
      }
    }
  });

  test('is what is written in the other way too', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(keepEncoded(encodeNow(value))).toBe(encodeValue(value));
      }),
    );
  });
});
