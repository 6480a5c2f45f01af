import { SluiceError } from '../errors.ts';
import {
  FRAME_HEADER_BYTES,
  FRAME_LENGTH_MAX,
  FRAME_MAGIC,
  type Frame,
  Kind,
  offsets,
  type SqlValue,
  Tag,
  writeU64,
} from './layout.ts';

/**
 * What writes are aimed at: a table, and for rows and SQL the statement (for `ensure`, the columns as JSON). One object
 * per target and process: it remembers its place in the dictionary of the frame that is being built.
 */
export class Target {
  readonly table: string | null;
  readonly statement: string | null;
  /** @internal The frame that last named this target, and under which index. Written by the builder alone. */
  frame = 0;
  /** @internal */
  index = 0;

  constructor(table: string | null, statement: string | null = null) {
    this.table = table;
    this.statement = statement;
  }
}

const scratchReal = new Float64Array(1);
const scratchInteger = new BigInt64Array(scratchReal.buffer);
const scratchWords = new Uint32Array(scratchReal.buffer);

let frames = 0;

/** Collects the writes of one frame. What is added must be valid and captured: nothing is checked here. */
export class FrameBuilder {
  readonly #id = ++frames;
  /** It grows. Many frames have few writes: a dead letter has one, and each has a frame of its own. */
  #words: Uint32Array = new Uint32Array(32);
  #length = 0;
  #text = '';
  #dictionary: [string | null, string | null][] = [];
  #blobs: Uint8Array[] = [];
  #blobBytes = 0;
  #openMembers = 0;

  /** Writes added so far. A group counts as one. */
  count = 0;
  readonly acceptedAt: number;

  constructor(acceptedAt: number) {
    this.acceptedAt = acceptedAt;
  }

  /** About how many bytes the frame will have. */
  get bytes(): number {
    return FRAME_HEADER_BYTES + this.#length * 4 + this.#text.length + this.#blobBytes;
  }

  put(target: Target, key: string, value: string | Uint8Array): void {
    const isText = typeof value === 'string';
    this.#record(isText ? Kind.putText : Kind.putBlob, target, 3);
    this.#words[this.#length++] = key.length;
    this.#words[this.#length++] = value.length;
    if (isText) {
      this.#text += key + value;
    } else {
      this.#text += key;
      this.#blob(value);
    }
  }

  delete(target: Target, key: string): void {
    this.#record(Kind.delete, target, 2);
    this.#words[this.#length++] = key.length;
    this.#text += key;
  }

  clear(target: Target): void {
    this.#record(Kind.clear, target, 1);
  }

  /** Creates the target's table, or adds to it, so that it has the columns the target names. */
  ensure(target: Target): void {
    this.#record(Kind.ensure, target, 1);
  }

  append(target: Target, values: readonly SqlValue[]): void {
    this.#statement(Kind.append, target, values);
  }

  stage(target: Target, values: readonly SqlValue[]): void {
    this.#statement(Kind.stage, target, values);
  }

  /** The next `members` records make one write, applied whole or not at all. */
  group(members: number): void {
    this.#reserve(1);
    this.#words[this.#length++] = Kind.group | (members << 4);
    this.count++;
    this.#openMembers = members;
  }

  /** On memory that can be shared with another thread, unless it goes nowhere. */
  build(firstSeq: number, allocate: (length: number) => Buffer = sharedMemory): Frame {
    const dictionary = JSON.stringify(this.#dictionary);
    const text = dictionary + this.#text;
    const textBytes = Buffer.byteLength(text);
    const textOffset = FRAME_HEADER_BYTES + this.#length * 4;
    const length = textOffset + textBytes + this.#blobBytes;
    if (length > FRAME_LENGTH_MAX) {
      throw new SluiceError('SLUICE_INVALID_VALUE', `a frame of ${length} bytes is more than the log can hold`);
    }
    const bytes = allocate(length);
    bytes.fill(0, 0, FRAME_HEADER_BYTES);
    bytes.writeUInt32LE(FRAME_MAGIC, offsets.magic);
    bytes.writeUInt32LE(length, offsets.length);
    bytes.writeUInt32LE(this.count, offsets.count);
    writeU64(bytes, offsets.firstSeq, firstSeq);
    bytes.writeUInt32LE(this.#length, offsets.words);
    bytes.writeUInt32LE(dictionary.length, offsets.dictionary);
    bytes.writeUInt32LE(textBytes, offsets.text);
    bytes.writeUInt32LE(this.#blobBytes, offsets.blobs);
    bytes.writeDoubleLE(this.acceptedAt, offsets.acceptedAt);
    new Uint32Array(bytes.buffer, bytes.byteOffset + FRAME_HEADER_BYTES, this.#length).set(
      this.#words.subarray(0, this.#length),
    );
    bytes.write(text, textOffset, 'utf8');
    let offset = textOffset + textBytes;
    for (const blob of this.#blobs) {
      bytes.set(blob, offset);
      offset += blob.length;
    }
    return { bytes, firstSeq, lastSeq: firstSeq + this.count - 1 };
  }

  #record(kind: Kind, target: Target, words: number): void {
    this.#reserve(words);
    if (target.frame !== this.#id) {
      target.frame = this.#id;
      target.index = this.#dictionary.push([target.table, target.statement]) - 1;
    }
    this.#words[this.#length++] = kind | (target.index << 4);
    if (this.#openMembers > 0) this.#openMembers--;
    else this.count++;
  }

  #statement(kind: Kind, target: Target, values: readonly SqlValue[]): void {
    this.#record(kind, target, 2 + values.length * 3);
    this.#words[this.#length++] = values.length;
    for (const value of values) this.#value(value);
  }

  #value(value: SqlValue): void {
    if (value === null) {
      this.#words[this.#length++] = Tag.null;
    } else if (typeof value === 'number') {
      if (Number.isSafeInteger(value)) {
        this.#words[this.#length++] = Tag.integer;
        this.#words[this.#length++] = value >>> 0;
        this.#words[this.#length++] = Math.floor(value / 0x1_0000_0000) >>> 0;
      } else {
        scratchReal[0] = value;
        this.#words[this.#length++] = Tag.real;
        this.#scratch();
      }
    } else if (typeof value === 'bigint') {
      scratchInteger[0] = value;
      this.#words[this.#length++] = Tag.integer;
      this.#scratch();
    } else if (typeof value === 'string') {
      this.#words[this.#length++] = Tag.text | (value.length << 3);
      this.#text += value;
    } else {
      this.#words[this.#length++] = Tag.blob | (value.length << 3);
      this.#blob(value);
    }
  }

  #scratch(): void {
    this.#words[this.#length++] = scratchWords[0] as number;
    this.#words[this.#length++] = scratchWords[1] as number;
  }

  #blob(blob: Uint8Array): void {
    this.#blobs.push(blob);
    this.#blobBytes += blob.length;
  }

  #reserve(words: number): void {
    if (this.#length + words <= this.#words.length) return;
    const larger = new Uint32Array(Math.max(this.#words.length * 2, this.#length + words));
    larger.set(this.#words);
    this.#words = larger;
  }
}

function sharedMemory(length: number): Buffer {
  return Buffer.from(new SharedArrayBuffer(length));
}
