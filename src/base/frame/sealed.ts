import { type Keyring, keyIdOf, type ValueCipher } from '../encryption/index.ts';
import { SluiceError } from '../errors.ts';
import { copyFrame, FRAME_MAGIC, type Frame, offsets, readU64, SEALED_FRAME_MAGIC } from './layout.ts';

/** What dead writes are bound to. An entry may be imported elsewhere, and has no place of its own. */
const DEAD_LETTER = 'dead letter';

/** What stays readable: what a segment is judged by. */
const OPEN_BYTES = offsets.words;

/** A frame as it lies in the log of an encrypted database. */
export function sealFrame({ bytes }: Frame, keyring: Keyring, databaseId: string): Buffer {
  const sealed = keyring.seal(bytes.subarray(OPEN_BYTES), contextOf(bytes, databaseId));
  const frame = Buffer.allocUnsafeSlow(OPEN_BYTES + sealed.length);
  bytes.copy(frame, 0, 0, OPEN_BYTES);
  sealed.copy(frame, OPEN_BYTES);
  frame.writeUInt32LE(SEALED_FRAME_MAGIC, offsets.magic);
  frame.writeUInt32LE(frame.length, offsets.length);
  return frame;
}

export function isSealedFrame(bytes: Buffer): boolean {
  return bytes.readUInt32LE(offsets.magic) === SEALED_FRAME_MAGIC;
}

/** The frame in what {@link sealFrame} made of it; throws `SLUICE_DECRYPT`. */
export function openFrame(bytes: Buffer, keyring: Keyring, databaseId: string): Frame {
  const opened = keyring.open(bytes.subarray(OPEN_BYTES), contextOf(bytes, databaseId));
  const frame = copyFrame(Buffer.concat([bytes.subarray(0, OPEN_BYTES), opened]));
  frame.bytes.writeUInt32LE(FRAME_MAGIC, offsets.magic);
  frame.bytes.writeUInt32LE(frame.bytes.length, offsets.length);
  return frame;
}

function contextOf(bytes: Buffer, databaseId: string): string {
  return `frame\0${databaseId}\0${readU64(bytes, offsets.firstSeq)}\0${bytes.readUInt32LE(offsets.count)}`;
}

/** The frame of a dead letter as it is stored: encrypted where everything is. */
export function sealWrite(bytes: Uint8Array, cipher: ValueCipher | undefined): Uint8Array {
  return cipher === undefined ? bytes : cipher.keyring.seal(bytes, DEAD_LETTER);
}

/** The frame in what {@link sealWrite} made of it; throws `SLUICE_DECRYPT`. */
export function openWrite(stored: Uint8Array, cipher: ValueCipher | undefined): Uint8Array {
  if (keyIdOf(stored) === undefined && cipher?.accepts !== 'nothing') return stored;
  if (cipher !== undefined) return cipher.keyring.open(stored, DEAD_LETTER);
  throw new SluiceError('SLUICE_DECRYPT', 'the dead letter is encrypted: open the database with its key');
}
