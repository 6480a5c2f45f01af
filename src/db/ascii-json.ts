import type { AsciiText } from '../base/frame/index.ts';

/** Longer ones are left to `JSON.stringify`, as is whatever is not plain. */
const BYTES_MAX = 64 * 1024;

/** Deeper ones too, which may contain themselves. */
const DEPTH_MAX = 8;

/** Up to here a loop over the characters is faster than calls into the runtime. */
const LOOP_MAX = 128;

/** So many characters are looked at before all of them are. */
const FIRST = 64;

/** The longest that a number can be: -1.2345678901234567e-100. */
const NUMBER_MAX = 24;

const MINUS = 0x2d;
const ZERO = 0x30;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const DOT = 0x2e;

/**
 * The JSON of plain values as bytes: objects and arrays of numbers, ASCII text, booleans and nulls, as telemetry is made of. What
 * it writes is what `JSON.stringify` writes, to the byte; what it does not write at all is everything else, and what JSON cannot
 * hold.
 *
 * `JSON.stringify` was half of what a write cost: it makes a string, which is written into the frame a moment later and is
 * garbage then. Here the bytes are made in one step, in memory that is used again: half the time, and nothing to collect.
 */
export class AsciiJson implements AsciiText {
  readonly bytes: Buffer = Buffer.alloc(BYTES_MAX);
  length = 0;
  readonly #words = new Int32Array(this.bytes.buffer, this.bytes.byteOffset, BYTES_MAX / 4);
  #busy = false;

  /** The JSON of a value, which is here until the next call; `undefined` where it is not plain. */
  encode(value: unknown): AsciiText | undefined {
    // A getter of the value's own may write something else meanwhile.
    if (this.#busy) return undefined;
    this.#busy = true;
    try {
      this.length = 0;
      return !isPolluted() && this.#value(value, 0) ? this : undefined;
    } finally {
      this.#busy = false;
    }
  }

  /** Whether text of any length is its own JSON, but for the quotes. */
  isPlain(text: string): boolean {
    if (this.#busy || !mayBePlain(text)) return false;
    for (let at = 0; at < text.length; at += BYTES_MAX) {
      if (!this.#isPlainAt(0, text.substring(at, at + BYTES_MAX))) return false;
    }
    return true;
  }

  #value(value: unknown, depth: number): boolean {
    switch (typeof value) {
      case 'number':
        return Number.isFinite(value) && this.#number(value);
      case 'string':
        return this.#string(value);
      case 'boolean':
        return this.#literal(value ? 'true' : 'false');
      case 'object':
        if (value === null) return this.#literal('null');
        if (depth === DEPTH_MAX) return false;
        return Array.isArray(value) ? this.#array(value, depth) : this.#object(value as PlainObject, depth);
      default:
        return false;
    }
  }

  #object(value: PlainObject, depth: number): boolean {
    // Without a prototype it may be what JSON.rawJSON has made.
    if (Object.getPrototypeOf(value) !== Object.prototype) return false;
    if (typeof value['toJSON'] === 'function') return false;
    let before = 0x7b;
    for (const name in value) {
      if (!this.#byte(before) || !this.#string(name) || !this.#byte(COLON)) return false;
      if (!this.#value(value[name], depth + 1)) return false;
      before = COMMA;
    }
    return before === COMMA ? this.#byte(0x7d) : this.#literal('{}');
  }

  #array(value: readonly unknown[] & { toJSON?: unknown }, depth: number): boolean {
    if (typeof value.toJSON === 'function') return false;
    let before = 0x5b;
    for (let i = 0; i < value.length; i++) {
      if (!this.#byte(before) || !this.#value(value[i], depth + 1)) return false;
      before = COMMA;
    }
    return before === COMMA ? this.#byte(0x5d) : this.#literal('[]');
  }

  #byte(byte: number): boolean {
    if (this.length >= BYTES_MAX) return false;
    this.bytes[this.length++] = byte;
    return true;
  }

  #literal(text: string): boolean {
    if (this.length + text.length > BYTES_MAX) return false;
    for (let i = 0; i < text.length; i++) this.bytes[this.length++] = text.charCodeAt(i);
    return true;
  }

  /** In quotes, if nothing in it needs an escape. */
  #string(text: string): boolean {
    const { bytes } = this;
    let at = this.length;
    if (at + text.length + 2 > BYTES_MAX) return false;
    if (text.length > LOOP_MAX) return this.#longString(text);
    bytes[at++] = QUOTE;
    for (let i = 0; i < text.length; i++) {
      const character = text.charCodeAt(i);
      if (character < 0x20 || character > 0x7f || character === QUOTE || character === BACKSLASH) return false;
      bytes[at++] = character;
    }
    bytes[at++] = QUOTE;
    this.length = at;
    return true;
  }

  #longString(text: string): boolean {
    const start = this.length;
    const end = start + 1 + text.length;
    this.bytes[start] = QUOTE;
    if (!mayBePlain(text) || !this.#isPlainAt(start + 1, text)) return false;
    this.bytes[end] = QUOTE;
    this.length = end + 1;
    return true;
  }

  /** Writes text there; returns whether it is ASCII without control characters below the space, which JSON escapes. */
  #isPlainAt(start: number, text: string): boolean {
    const { bytes } = this;
    // Only ASCII has as many bytes as characters. What was cut short may have so too: it is found among the bytes.
    if (bytes.write(text, start) !== text.length) return false;
    const end = start + text.length;
    // Whole words are looked at. What is before the text has passed already, what is behind it is made to pass.
    for (let at = end; at % 4 !== 0; at++) bytes[at] = QUOTE;
    // A byte beyond ASCII has its highest bit, and one below the space borrows it. Nothing else borrows but behind one of those.
    let bits = 0;
    for (let at = start >> 2; at < end / 4; at++) {
      const word = this.#words[at] as number;
      bits |= word | (word - 0x20202020);
    }
    return (bits & 0x80808080) === 0;
  }

  #number(value: number): boolean {
    if (this.length + NUMBER_MAX > BYTES_MAX) return false;
    if (value < 0) this.bytes[this.length++] = MINUS;
    const size = Math.abs(value);
    if (Number.isSafeInteger(size)) this.#integer(size);
    else if (!this.#decimal(size)) return this.#literal(String(size));
    return true;
  }

  /** One of few decimals, as most are that were measured. The shortest text that reads as the number is the one to write. */
  #decimal(size: number): boolean {
    if (size < 1e-3 || size > 1e9) return false;
    let scale = 1;
    for (let digits = 1; digits <= 4; digits++) {
      scale *= 10;
      const scaled = Math.round(size * scale);
      // At most 14 digits: no other text of so many reads as the same number.
      if (scaled / scale !== size) continue;
      const whole = Math.floor(scaled / scale);
      this.#integer(whole);
      this.bytes[this.length++] = DOT;
      this.#digits(scaled - whole * scale, digits);
      return true;
    }
    return false;
  }

  #integer(size: number): void {
    if (size < 1e9) return this.#digits(size, countOfDigits(size));
    // Beyond 32 bits a division by ten is slow.
    const high = Math.floor(size / 1e8);
    this.#integer(high);
    this.#digits(size - high * 1e8, 8);
  }

  /** The last so many digits of a number below 2^31. */
  #digits(number: number, count: number): void {
    let rest = number | 0;
    for (let at = this.length + count - 1; at >= this.length; at--) {
      const tenth = (rest / 10) | 0;
      this.bytes[at] = ZERO + rest - tenth * 10;
      rest = tenth;
    }
    this.length += count;
  }

  toString(): string {
    return this.bytes.toString('latin1', 0, this.length);
  }
}

type PlainObject = Readonly<Record<string, unknown>>;

/** Text that needs an escape, or is not ASCII, mostly shows it at once. */
function mayBePlain(text: string): boolean {
  if (text.includes('"') || text.includes('\\') || text.includes('\n')) return false;
  for (let i = 0; i < text.length && i < FIRST; i++) if (text.charCodeAt(i) > 0x7f) return false;
  return true;
}

/** Whether somebody has given all objects a property that is listed with their own. */
function isPolluted(): boolean {
  for (const _ in EMPTY) return true;
  return false;
}

const EMPTY = {};

function countOfDigits(number: number): number {
  let count = 1;
  for (let limit = 10; number >= limit; limit *= 10) count++;
  return count;
}
