import { SluiceError } from '../errors.ts';
import { hashOf } from '../hash.ts';
import { FRAME_HEADER_BYTES, Kind, offsets, readU64, type SqlValue, Tag } from './layout.ts';

/** The target of a record, as the dictionary of its frame names it. */
export interface TargetName {
  readonly table: string | null;
  readonly statement: string | null;
}

const scratchWords = new Uint32Array(2);
const scratchReal = new Float64Array(scratchWords.buffer);
const scratchInteger = new BigInt64Array(scratchWords.buffer);

/**
 * Walks over the records of a frame. One object, whose fields change with each `next()`: nothing is made for a record but the
 * key and the value of a write to a key, each time that they are asked for, and the parameters of a row.
 *
 * @example
 * const reader = new FrameReader(frame.bytes);
 * while (reader.next()) apply(reader.seq, reader.kind, reader.target, reader.key, reader.value);
 */
export class FrameReader {
  /** Sequence number of the current record. All records of a group, and the group itself, have the same one. */
  seq: number;
  kind: Kind = Kind.clear;
  target: TargetName;
  /** Of `putText`, `putBlob` and `delete`: where the key lies in the text of the frame. */
  keyStart = 0;
  keyLength = 0;
  /** Of `putText` and `putBlob`: where the value lies in the text, or among the blobs. */
  valueStart = 0;
  valueLength = 0;
  /** Of `append` and `stage`. */
  parameters: SqlValue[] = [];
  /** Of `group`: how many of the next records belong to it. */
  members = 0;
  readonly acceptedAt: number;

  readonly #words: Uint32Array;
  readonly #text: string;
  readonly #blobs: Uint8Array;
  readonly #targets: TargetName[];
  #word = 0;
  #textPosition: number;
  #blobPosition = 0;
  #openMembers = 0;

  constructor(bytes: Buffer) {
    const words = bytes.readUInt32LE(offsets.words);
    const textOffset = FRAME_HEADER_BYTES + words * 4;
    const textEnd = textOffset + bytes.readUInt32LE(offsets.text);
    const dictionaryLength = bytes.readUInt32LE(offsets.dictionary);
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset + FRAME_HEADER_BYTES, words);
    this.#text = bytes.toString('utf8', textOffset, textEnd);
    this.#blobs = bytes.subarray(textEnd);
    const dictionary = JSON.parse(this.#text.slice(0, dictionaryLength)) as [string | null, string | null][];
    this.#targets = dictionary.map(([table, statement]) => ({ table, statement }));
    this.#textPosition = dictionaryLength;
    this.target = { table: null, statement: null };
    this.seq = readU64(bytes, offsets.firstSeq) - 1;
    this.acceptedAt = bytes.readDoubleLE(offsets.acceptedAt);
  }

  /** Of `putText`, `putBlob` and `delete`. */
  get key(): string {
    return this.kind <= Kind.delete ? this.textAt(this.keyStart, this.keyLength) : '';
  }

  /** Of `putText` and `putBlob`. */
  get value(): string | Uint8Array {
    if (this.kind === Kind.putText) return this.textAt(this.valueStart, this.valueLength);
    return this.kind === Kind.putBlob ? this.blobAt(this.valueStart, this.valueLength) : '';
  }

  get keyHash(): number {
    return hashOf(this.#text, this.keyStart, this.keyStart + this.keyLength);
  }

  /** Whether the key is what another frame has there. */
  isKeyAt(frame: FrameReader, start: number, length: number): boolean {
    if (length !== this.keyLength) return false;
    const other = frame.#text;
    for (let i = 0; i < length; i++) {
      if (this.#text.charCodeAt(this.keyStart + i) !== other.charCodeAt(start + i)) return false;
    }
    return true;
  }

  textAt(start: number, length: number): string {
    return this.#text.substring(start, start + length);
  }

  blobAt(start: number, length: number): Uint8Array {
    // A copy: what leaves here may be handed to a caller, and the frame's memory is shared with another thread.
    return Uint8Array.from(this.#blobs.subarray(start, start + length));
  }

  next(): boolean {
    if (this.#word >= this.#words.length) return false;
    const head = this.#takeWord();
    this.kind = (head & 15) as Kind;
    if (this.#openMembers > 0) this.#openMembers--;
    else this.seq++;
    if (this.kind === Kind.group) {
      this.members = this.#openMembers = head >>> 4;
      return true;
    }
    this.target = this.#targets[head >>> 4] as TargetName;
    switch (this.kind) {
      case Kind.putText:
        this.keyLength = this.#takeWord();
        this.valueLength = this.#takeWord();
        this.keyStart = this.#passText(this.keyLength);
        this.valueStart = this.#passText(this.valueLength);
        return true;
      case Kind.putBlob:
        this.keyLength = this.#takeWord();
        this.valueLength = this.#takeWord();
        this.keyStart = this.#passText(this.keyLength);
        this.valueStart = this.#passBlob(this.valueLength);
        return true;
      case Kind.delete:
        this.keyLength = this.#takeWord();
        this.keyStart = this.#passText(this.keyLength);
        return true;
      case Kind.append:
      case Kind.stage:
        this.parameters = this.#takeValues(this.#takeWord());
        return true;
      case Kind.clear:
      case Kind.ensure:
        return true;
      default:
        throw new SluiceError(
          'SLUICE_UNSUPPORTED',
          `the log holds a record of kind ${String(this.kind)}, which this version does not know: open it with the version that wrote it`,
        );
    }
  }

  #takeWord(): number {
    return this.#words[this.#word++] as number;
  }

  /** Returns where it begins. */
  #passText(length: number): number {
    const start = this.#textPosition;
    this.#textPosition += length;
    return start;
  }

  /** Returns where it begins. */
  #passBlob(length: number): number {
    const start = this.#blobPosition;
    this.#blobPosition += length;
    return start;
  }

  #takeValues(count: number): SqlValue[] {
    const values: SqlValue[] = new Array(count);
    for (let i = 0; i < count; i++) values[i] = this.#takeValue();
    return values;
  }

  #takeValue(): SqlValue {
    const head = this.#takeWord();
    switch (head & 7) {
      case Tag.null:
        return null;
      case Tag.real:
        this.#takeScratch();
        return scratchReal[0] as number;
      case Tag.integer:
        this.#takeScratch();
        return scratchInteger[0] as bigint;
      case Tag.text:
        return this.textAt(this.#passText(head >>> 3), head >>> 3);
      default:
        return this.blobAt(this.#passBlob(head >>> 3), head >>> 3);
    }
  }

  #takeScratch(): void {
    scratchWords[0] = this.#takeWord();
    scratchWords[1] = this.#takeWord();
  }
}
