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
import { type AsciiText, FrameScratch } from './scratch.ts';
import { sharedMemory } from './shared-memory.ts';

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

/** In the place of the end of an entry's text: its key is deleted; or, from here down, which of the blobs its value is. */
const DELETED = -1;
const BLOB = -2;

/**
 * Collects the writes of one frame. What is added must be valid and captured: nothing is checked here. A call can fail half-way
 * all the same, for want of memory: whoever goes on then calls `keep` after each write, and `undo` before the next one.
 *
 * The keys that it sets can be read before it is built: each is an entry, 0, 1, 2 … in the order of the writes.
 */
export class FrameBuilder {
  readonly #id = ++frames;
  readonly #scratch: FrameScratch;
  #dictionary: [string | null, string | null][] = [];
  #blobs: Uint8Array[] = [];
  #blobBytes = 0;
  #openMembers = 0;
  #keptCount = 0;
  #keptBlobs = 0;

  /** Writes added so far. A group counts as one. */
  count = 0;
  readonly acceptedAt: number;

  /** `scratch` belongs to it until it is built. */
  constructor(acceptedAt: number, scratch: FrameScratch = new FrameScratch()) {
    this.acceptedAt = acceptedAt;
    this.#scratch = scratch;
    scratch.reset();
  }

  /** About how many bytes the frame will have. */
  get bytes(): number {
    return FRAME_HEADER_BYTES + this.#scratch.wordCount * 4 + this.#scratch.textBytes + this.#blobBytes;
  }

  put(target: Target, key: string, value: string | Uint8Array | AsciiText): void {
    const scratch = this.#scratch;
    const isBlob = value instanceof Uint8Array;
    this.#record(isBlob ? Kind.putBlob : Kind.putText, target, 3);
    scratch.addWord(key.length);
    scratch.addWord(value.length);
    const keyAt = scratch.textBytes;
    scratch.addText(key);
    const keyEnd = scratch.textBytes;
    if (isBlob) {
      scratch.addEntry(keyAt, keyEnd, BLOB - this.#blobs.length);
      this.#blob(value);
      return;
    }
    if (typeof value === 'string') scratch.addText(value);
    else scratch.addAscii(value);
    scratch.addEntry(keyAt, keyEnd, scratch.textBytes);
  }

  delete(target: Target, key: string): void {
    const scratch = this.#scratch;
    this.#record(Kind.delete, target, 2);
    scratch.addWord(key.length);
    const keyAt = scratch.textBytes;
    scratch.addText(key);
    scratch.addEntry(keyAt, scratch.textBytes, DELETED);
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
    this.#scratch.reserve(1);
    this.#scratch.addWord(Kind.group | (members << 4));
    this.count++;
    this.#openMembers = members;
  }

  /** What was added is not taken back any more. */
  keep(): void {
    this.#scratch.keep();
    this.#keptCount = this.count;
    this.#keptBlobs = this.#blobs.length;
  }

  /** Takes back what was added since {@link FrameBuilder.keep}. */
  undo(): void {
    if (this.#scratch.isKept) return;
    this.#scratch.undo();
    this.count = this.#keptCount;
    this.#openMembers = 0;
    while (this.#blobs.length > this.#keptBlobs) this.#blobBytes -= (this.#blobs.pop() as Uint8Array).length;
  }

  /** How many entries there are. */
  get entries(): number {
    return this.#scratch.entries;
  }

  keyAt(entry: number): string {
    return this.#scratch.keyAt(entry);
  }

  /** `null` where the key is deleted. */
  valueAt(entry: number): string | Uint8Array | null {
    const end = this.#scratch.endAt(entry);
    if (end === DELETED) return null;
    return end > DELETED ? this.#scratch.valueAt(entry) : (this.#blobs[BLOB - end] as Uint8Array);
  }

  /** On memory that can be shared with another thread, unless it goes nowhere. */
  build(firstSeq: number, allocate: (length: number) => Buffer = sharedMemory): Frame {
    const { words, text } = this.#scratch;
    const dictionary = JSON.stringify(this.#dictionary);
    const dictionaryBytes = Buffer.byteLength(dictionary);
    const dictionaryOffset = FRAME_HEADER_BYTES + words.byteLength;
    const textBytes = dictionaryBytes + text.length;
    const length = dictionaryOffset + textBytes + this.#blobBytes;
    if (length > FRAME_LENGTH_MAX) {
      throw new SluiceError('SLUICE_INVALID_VALUE', `a frame of ${length} bytes is more than the log can hold`);
    }
    const bytes = allocate(length);
    bytes.fill(0, 0, FRAME_HEADER_BYTES);
    bytes.writeUInt32LE(FRAME_MAGIC, offsets.magic);
    bytes.writeUInt32LE(length, offsets.length);
    bytes.writeUInt32LE(this.count, offsets.count);
    writeU64(bytes, offsets.firstSeq, firstSeq);
    bytes.writeUInt32LE(words.length, offsets.words);
    bytes.writeUInt32LE(dictionary.length, offsets.dictionary);
    bytes.writeUInt32LE(textBytes, offsets.text);
    bytes.writeUInt32LE(this.#blobBytes, offsets.blobs);
    bytes.writeDoubleLE(this.acceptedAt, offsets.acceptedAt);
    new Uint32Array(bytes.buffer, bytes.byteOffset + FRAME_HEADER_BYTES, words.length).set(words);
    bytes.write(dictionary, dictionaryOffset, 'utf8');
    bytes.set(text, dictionaryOffset + dictionaryBytes);
    let offset = dictionaryOffset + textBytes;
    for (const blob of this.#blobs) {
      bytes.set(blob, offset);
      offset += blob.length;
    }
    return { bytes, firstSeq, lastSeq: firstSeq + this.count - 1 };
  }

  #record(kind: Kind, target: Target, words: number): void {
    this.#scratch.reserve(words);
    if (target.frame !== this.#id) {
      target.frame = this.#id;
      target.index = this.#dictionary.push([target.table, target.statement]) - 1;
    }
    this.#scratch.addWord(kind | (target.index << 4));
    if (this.#openMembers > 0) this.#openMembers--;
    else this.count++;
  }

  #statement(kind: Kind, target: Target, values: readonly SqlValue[]): void {
    this.#record(kind, target, 2 + values.length * 3);
    this.#scratch.addWord(values.length);
    for (const value of values) this.#value(value);
  }

  #value(value: SqlValue): void {
    if (value === null) {
      this.#scratch.addWord(Tag.null);
    } else if (typeof value === 'number') {
      if (Number.isSafeInteger(value)) {
        this.#scratch.addWord(Tag.integer);
        this.#scratch.addWord(value >>> 0);
        this.#scratch.addWord(Math.floor(value / 0x1_0000_0000) >>> 0);
      } else {
        scratchReal[0] = value;
        this.#scratch.addWord(Tag.real);
        this.#twoWords();
      }
    } else if (typeof value === 'bigint') {
      scratchInteger[0] = value;
      this.#scratch.addWord(Tag.integer);
      this.#twoWords();
    } else if (typeof value === 'string') {
      this.#scratch.addWord(Tag.text | (value.length << 3));
      this.#scratch.addText(value);
    } else {
      this.#scratch.addWord(Tag.blob | (value.length << 3));
      this.#blob(value);
    }
  }

  #twoWords(): void {
    this.#scratch.addWord(scratchWords[0] as number);
    this.#scratch.addWord(scratchWords[1] as number);
  }

  #blob(blob: Uint8Array): void {
    this.#blobs.push(blob);
    this.#blobBytes += blob.length;
  }
}
