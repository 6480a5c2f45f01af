import { messageOf } from '../errors.ts';
import { FRAME_HEADER_BYTES, FRAME_MAGIC, Kind, offsets, Tag } from './layout.ts';

/**
 * What is wrong with a frame whose bytes nothing vouches for; `undefined` where a {@link FrameReader} can walk over all of
 * it. The reader itself trusts what it reads, for a frame of the log has a checksum; one that lies in a table has not.
 */
export function frameProblem(bytes: Buffer): string | undefined {
  if (bytes.length < FRAME_HEADER_BYTES) return `it has ${bytes.length} bytes, fewer than the header of a frame`;
  if (bytes.readUInt32LE(offsets.magic) !== FRAME_MAGIC) return 'it does not begin as a frame does';
  const length = bytes.readUInt32LE(offsets.length);
  if (length !== bytes.length) return `it has ${bytes.length} bytes, and says it has ${length}`;
  const words = bytes.readUInt32LE(offsets.words);
  const textOffset = FRAME_HEADER_BYTES + words * 4;
  const textBytes = bytes.readUInt32LE(offsets.text);
  const blobBytes = bytes.readUInt32LE(offsets.blobs);
  if (textOffset + textBytes + blobBytes !== length) return 'its parts do not add up to its length';
  const text = bytes.toString('utf8', textOffset, textOffset + textBytes);
  const dictionaryLength = bytes.readUInt32LE(offsets.dictionary);
  const targets = targetsIn(text.slice(0, dictionaryLength));
  if (typeof targets === 'string') return targets;
  return new Walk(bytes, words, targets).problem(text.length - dictionaryLength, blobBytes);
}

/** The same of a frame that must hold one write, as that of a dead letter does. */
export function singleWriteProblem(bytes: Buffer): string | undefined {
  const problem = frameProblem(bytes);
  if (problem !== undefined) return problem;
  return bytes.readUInt32LE(offsets.count) === 1 ? undefined : 'it is not one write';
}

/** How many targets the dictionary names, or what is wrong with it. */
function targetsIn(dictionary: string): number | string {
  try {
    const targets = JSON.parse(dictionary) as unknown;
    const isName = (name: unknown) => name === null || typeof name === 'string';
    const isSound = Array.isArray(targets) && targets.every((each) => Array.isArray(each) && each.every(isName));
    return isSound ? targets.length : 'its dictionary is not a list of tables and statements';
  } catch (error) {
    return `its dictionary is not JSON: ${messageOf(error)}`;
  }
}

/** Counts what the records use, and touches no byte outside the words. */
class Walk {
  readonly #bytes: Buffer;
  readonly #words: number;
  readonly #targets: number;
  #word = 0;
  #textUnits = 0;
  #blobBytes = 0;

  constructor(bytes: Buffer, words: number, targets: number) {
    this.#bytes = bytes;
    this.#words = words;
    this.#targets = targets;
  }

  problem(textUnits: number, blobBytes: number): string | undefined {
    let writes = 0;
    let openMembers = 0;
    while (this.#word < this.#words) {
      const head = this.#take();
      const isMember = openMembers > 0;
      if (isMember) openMembers--;
      else writes++;
      if ((head & 15) === Kind.group) {
        if (isMember) return 'a group lies in a group';
        openMembers = head >>> 4;
        continue;
      }
      if (head >>> 4 >= this.#targets) return `a record names target ${head >>> 4} of ${this.#targets}`;
      if (!this.#skip(head & 15)) return `it has a record of kind ${head & 15}, or a value, that nobody knows`;
    }
    if (this.#word > this.#words || openMembers > 0) return 'it ends in the middle of a record';
    if (this.#textUnits !== textUnits || this.#blobBytes !== blobBytes)
      return 'its texts or bytes are not those of its records';
    const count = this.#bytes.readUInt32LE(offsets.count);
    return writes === count ? undefined : `it holds ${writes} writes, and says it holds ${count}`;
  }

  /** Whether the record is of a kind there is. */
  #skip(kind: number): boolean {
    switch (kind) {
      case Kind.putText:
        this.#textUnits += this.#take() + this.#take();
        return true;
      case Kind.putBlob:
        this.#textUnits += this.#take();
        this.#blobBytes += this.#take();
        return true;
      case Kind.delete:
        this.#textUnits += this.#take();
        return true;
      case Kind.clear:
      case Kind.ensure:
        return true;
      case Kind.append:
      case Kind.stage: {
        // Each value takes a word at least: a count that cannot be is not counted to.
        const count = this.#take();
        if (count > this.#words - this.#word) this.#word = this.#words + 1;
        else for (let left = count; left > 0; left--) if (!this.#skipValue()) return false;
        return true;
      }
      default:
        return false;
    }
  }

  #skipValue(): boolean {
    const head = this.#take();
    switch (head & 7) {
      case Tag.null:
        return true;
      case Tag.real:
      case Tag.integer:
        this.#word += 2;
        return true;
      case Tag.text:
        this.#textUnits += head >>> 3;
        return true;
      case Tag.blob:
        this.#blobBytes += head >>> 3;
        return true;
      default:
        return false;
    }
  }

  /** The next word; behind the last one 0, and the walk will know that it went too far. */
  #take(): number {
    const at = this.#word++;
    return at < this.#words ? this.#bytes.readUInt32LE(FRAME_HEADER_BYTES + at * 4) : 0;
  }
}
