/** Text in bytes, of ASCII alone: one byte for each character. It may lie in memory that is used again: take it at once. */
export interface AsciiText {
  readonly bytes: Uint8Array;
  readonly length: number;
}

/** Up to here a loop over the characters is faster than a call into the runtime. */
const LOOP_MAX = 64;

/** Likewise for bytes that are copied. */
const COPY_LOOP_MAX = 256;

/** Up to here the longest that the bytes can get is reserved. */
const GUESS_MAX = 64 * 1024;

const BYTES_PER_UNIT_MAX = 3;

/** What is kept for the next frame; a larger one was the exception. */
const KEPT_BYTES = 2 * 1024 * 1024;

/** Numbers that an entry has. */
const ENTRY = 3;

/**
 * Words and text that grow, for the frame that is being built. Whoever builds one after the other keeps it: a frame is copied out
 * of it whole, when it is as long as it will be.
 *
 * Text is turned into bytes as it comes. Rejected: one string for the whole frame, turned into bytes at its end. It needs no call
 * into the runtime for long text, but all of it is garbage in the end, and the collector has seen it before.
 */
export class FrameScratch {
  #words: Uint32Array;
  #text: Buffer;
  /** Of each key that is set: where in the text it begins and ends, and what the builder says of the end of its value. */
  #marks: Int32Array;
  #wordCount = 0;
  #textBytes = 0;
  #entries = 0;
  #keptWords = 0;
  #keptTextBytes = 0;
  #keptEntries = 0;

  /** Many frames have one write: a dead letter, say. */
  constructor(words = 32, textBytes = 256) {
    this.#words = new Uint32Array(words);
    this.#text = Buffer.allocUnsafeSlow(textBytes);
    this.#marks = new Int32Array(words);
  }

  get words(): Uint32Array {
    return this.#words.subarray(0, this.#wordCount);
  }

  get wordCount(): number {
    return this.#wordCount;
  }

  get text(): Uint8Array {
    return this.#text.subarray(0, this.#textBytes);
  }

  get textBytes(): number {
    return this.#textBytes;
  }

  get entries(): number {
    return this.#entries;
  }

  keyAt(entry: number): string {
    return this.#text.toString('utf8', this.#marks[entry * ENTRY], this.#marks[entry * ENTRY + 1]);
  }

  /** The text between the end of the key and the end of the entry. */
  valueAt(entry: number): string {
    return this.#text.toString('utf8', this.#marks[entry * ENTRY + 1], this.#marks[entry * ENTRY + 2]);
  }

  endAt(entry: number): number {
    return this.#marks[entry * ENTRY + 2] as number;
  }

  addEntry(keyAt: number, keyEnd: number, end: number): void {
    const at = this.#entries++ * ENTRY;
    if (at + ENTRY > this.#marks.length) {
      const larger = new Int32Array(this.#marks.length * 2);
      larger.set(this.#marks);
      this.#marks = larger;
    }
    this.#marks[at] = keyAt;
    this.#marks[at + 1] = keyEnd;
    this.#marks[at + 2] = end;
  }

  /** Makes room for so many words, which are to be added then. */
  reserve(words: number): void {
    const needed = this.#wordCount + words;
    if (needed <= this.#words.length) return;
    const larger = new Uint32Array(Math.max(this.#words.length * 2, needed));
    larger.set(this.#words);
    this.#words = larger;
  }

  addWord(word: number): void {
    this.#words[this.#wordCount++] = word;
  }

  addText(text: string): void {
    const { length } = text;
    if (length <= LOOP_MAX && this.#addCharacters(text)) return;
    this.#reserveText(length <= GUESS_MAX ? length * BYTES_PER_UNIT_MAX : Buffer.byteLength(text));
    this.#textBytes += this.#text.write(text, this.#textBytes, 'utf8');
  }

  addAscii({ bytes, length }: AsciiText): void {
    this.#reserveText(length);
    const to = this.#text;
    const start = this.#textBytes;
    if (length > COPY_LOOP_MAX) to.set(bytes.subarray(0, length), start);
    else for (let i = 0; i < length; i++) to[start + i] = bytes[i] as number;
    this.#textBytes = start + length;
  }

  /** What is there now is not taken back any more. */
  keep(): void {
    this.#keptWords = this.#wordCount;
    this.#keptTextBytes = this.#textBytes;
    this.#keptEntries = this.#entries;
  }

  /** Whether nothing was added since {@link FrameScratch.keep}: whatever is added begins with a word. */
  get isKept(): boolean {
    return this.#wordCount === this.#keptWords;
  }

  /** Takes back what was added since {@link FrameScratch.keep}. */
  undo(): void {
    this.#wordCount = this.#keptWords;
    this.#textBytes = this.#keptTextBytes;
    this.#entries = this.#keptEntries;
  }

  /** For the next frame. */
  reset(): void {
    this.#wordCount = 0;
    this.#textBytes = 0;
    this.#entries = 0;
    this.keep();
    if (this.#words.byteLength > KEPT_BYTES) this.#words = new Uint32Array(KEPT_BYTES / 4);
    if (this.#marks.byteLength > KEPT_BYTES) this.#marks = new Int32Array(KEPT_BYTES / 4);
    if (this.#text.length > KEPT_BYTES) this.#text = Buffer.allocUnsafeSlow(KEPT_BYTES);
  }

  /** Adds text if it is ASCII; returns whether it was. */
  #addCharacters(text: string): boolean {
    this.#reserveText(text.length);
    const to = this.#text;
    const start = this.#textBytes;
    for (let i = 0; i < text.length; i++) {
      const character = text.charCodeAt(i);
      if (character > 0x7f) return false;
      to[start + i] = character;
    }
    this.#textBytes = start + text.length;
    return true;
  }

  #reserveText(bytes: number): void {
    const needed = this.#textBytes + bytes;
    if (needed <= this.#text.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.#text.length * 2, needed));
    larger.set(this.text);
    this.#text = larger;
  }
}
