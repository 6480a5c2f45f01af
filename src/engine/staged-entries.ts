import { type Frame, type FrameBuilder, FrameReader, Kind } from '../base/frame/index.ts';

/** A value as it is stored: JSON text, or the bytes of a BLOB. */
export type Encoded = string | Uint8Array;

/**
 * The keys that one generation sets, with their values, in the order of the writes: the first one has place 0.
 *
 * They lie in the frames of the generation, as bytes. Strings that live until they are applied would be copied twice by the
 * garbage collector, which cost a write more than its JSON did. A frame out of which somebody reads is decoded once, as a whole,
 * and stays so until its generation goes; the open one is read entry by entry.
 *
 * Rejected: cutting each value out of the bytes of built frames too (a call into the runtime for each read).
 */
export class StagedEntries {
  #open: FrameBuilder | undefined;
  /** The place of the first entry of the open frame. */
  #openAt = 0;
  readonly #frames: FrameEntries[] = [];

  /** The place of an entry of the open frame. */
  placeOf(open: FrameBuilder, entry: number): number {
    this.#open = open;
    return this.#openAt + entry;
  }

  /** A frame with so many entries is built: the open one, with what was added since the one before it. */
  built({ bytes }: Frame, entries: number): void {
    this.#frames.push({ at: this.#openAt, bytes, decoded: undefined });
    this.#openAt += entries;
    this.#open = undefined;
  }

  /** The place that the next entry will have. */
  get next(): number {
    return this.#openAt + (this.#open?.entries ?? 0);
  }

  keyAt(place: number): string {
    if (place >= this.#openAt) return (this.#open as FrameBuilder).keyAt(place - this.#openAt);
    const frame = this.#frameOf(place);
    return decodedOf(frame)[(place - frame.at) * 2] as string;
  }

  valueAt(place: number): Encoded | null {
    if (place >= this.#openAt) return (this.#open as FrameBuilder).valueAt(place - this.#openAt);
    const frame = this.#frameOf(place);
    return decodedOf(frame)[(place - frame.at) * 2 + 1] as Encoded | null;
  }

  /** The last frame that does not begin behind a place. */
  #frameOf(place: number): FrameEntries {
    let low = 0;
    let high = this.#frames.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if ((this.#frames[middle] as FrameEntries).at <= place) low = middle;
      else high = middle - 1;
    }
    return this.#frames[low] as FrameEntries;
  }
}

/** A key and its value, and so on. */
type DecodedEntries = (Encoded | null)[];

interface FrameEntries {
  /** The place of its first entry. */
  readonly at: number;
  readonly bytes: Buffer;
  /** Once somebody has read one. */
  decoded: DecodedEntries | undefined;
}

function decodedOf(frame: FrameEntries): DecodedEntries {
  if (frame.decoded !== undefined) return frame.decoded;
  const entries: DecodedEntries = [];
  const reader = new FrameReader(frame.bytes);
  while (reader.next()) {
    if (isEntry(reader.kind)) entries.push(reader.key, reader.kind === Kind.delete ? null : reader.value);
  }
  frame.decoded = entries;
  return entries;
}

/** Whether a record sets or deletes a key. */
export function isEntry(kind: Kind): boolean {
  return kind === Kind.putText || kind === Kind.putBlob || kind === Kind.delete;
}
