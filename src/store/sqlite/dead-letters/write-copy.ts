import { keyIdOf, type ValueCipher } from '../../../base/encryption/index.ts';
import { foldName } from '../../../base/fold-name.ts';
import {
  type Frame,
  FrameBuilder,
  FrameReader,
  Kind,
  openWrite,
  type SqlValue,
  sealWrite,
  Target,
} from '../../../base/frame/index.ts';
import { ownerOfExpiries } from '../../expiry-table.ts';
import type { DeadLetter, DeadLetterSummary, WriteOperation } from '../../store.ts';
import { narrow } from '../connection.ts';
import { type TableKey, tableKey } from './dead-letter-index.ts';

/** One write as the frame reader found it, kept for longer than the reader stands on it. */
export interface WriteCopy {
  readonly seq: number;
  readonly acceptedAt: number;
  readonly kind: Kind;
  readonly table: string | null;
  readonly statement: string | null;
  readonly key: string;
  readonly value: string | Uint8Array;
  readonly parameters: readonly SqlValue[];
  /** The members, of a group. */
  readonly members: readonly WriteCopy[];
  /** Of a `clear` that is retried: the dead letter it comes from, whose overwritten keys are spared. */
  readonly sparing?: number | undefined;
}

export function copyOf(reader: FrameReader): WriteCopy {
  return {
    seq: reader.seq,
    acceptedAt: reader.acceptedAt,
    kind: reader.kind,
    table: reader.target.table,
    statement: reader.target.statement,
    key: reader.key,
    value: reader.value,
    parameters: reader.parameters,
    members: [],
  };
}

/** Takes a group and its members off the reader, which stands on the group. */
export function copyGroup(reader: FrameReader): WriteCopy {
  const members: WriteCopy[] = [];
  const { seq, acceptedAt } = reader;
  for (let left = reader.members; left > 0 && reader.next(); left--) members.push(copyOf(reader));
  const tables = new Set(members.map((member) => subjectOf(member)));
  const table = tables.size === 1 ? (members[0]?.table ?? null) : null;
  return { seq, acceptedAt, kind: Kind.group, table, statement: null, key: '', value: '', parameters: [], members };
}

/** The write of a dead letter. Its place in the order is the entry's, which an import may have changed. */
export function decodeWrite(bytes: Uint8Array, seq?: number): WriteCopy {
  const aligned = Buffer.from(new ArrayBuffer(bytes.length));
  aligned.set(bytes);
  const reader = new FrameReader(aligned);
  reader.next();
  const write = reader.kind === Kind.group ? copyGroup(reader) : copyOf(reader);
  if (seq === undefined || seq === write.seq) return write;
  return { ...write, seq, members: write.members.map((member) => ({ ...member, seq })) };
}

/** A frame of its own, so that a retry applies exactly what was accepted. */
export function encodeWrite(write: WriteCopy): Frame {
  const builder = new FrameBuilder(write.acceptedAt);
  if (write.kind === Kind.group) {
    builder.group(write.members.length);
    for (const member of write.members) addTo(builder, member);
  } else {
    addTo(builder, write);
  }
  return builder.build(write.seq, Buffer.allocUnsafe);
}

/** A stored dead write as the active key makes it; `undefined` where it is so already. */
export function resealWrite(
  stored: Uint8Array,
  cipher: ValueCipher,
  except: ReadonlySet<string>,
): Uint8Array | undefined {
  const write = decodeWrite(openWrite(stored, cipher));
  const isStale = (each: WriteCopy) =>
    isPutOfValue(each) && !except.has(foldName(each.table as string)) && cipher.isStale(each.value);
  if (keyIdOf(stored) === cipher.keyring.active.id && ![write, ...write.members].some(isStale)) return undefined;
  const resealed = (each: WriteCopy): WriteCopy => {
    if (!isStale(each)) return each;
    const table = each.table as string;
    const value = cipher.seal(table, each.key, cipher.open(table, each.key, each.value));
    return { ...each, kind: Kind.putBlob, value };
  };
  const anew = { ...resealed(write), members: write.members.map(resealed) };
  return sealWrite(encodeWrite(anew).bytes, cipher);
}

/** The moment at which a row expires is no value of the user's: it is as readable as the key. */
function isPutOfValue({ kind, table }: WriteCopy): boolean {
  const isPut = kind === Kind.putText || kind === Kind.putBlob;
  return isPut && ownerOfExpiries(table as string) === undefined;
}

/**
 * The keys that a write is about: one of a put or delete, those of its members of a group. When a row expires is part of the
 * row: whoever takes the key over takes both.
 */
export function keysOf(write: WriteCopy): TableKey[] {
  if (write.kind === Kind.group) return write.members.flatMap(keysOf);
  return isOfKey(write.kind) ? [tableKey(subjectOf(write) as string, write.key)] : [];
}

/** The table that a write is about, as whoever made it knows it. */
function subjectOf({ table }: WriteCopy): string | null {
  return table === null ? null : (ownerOfExpiries(table) ?? table);
}

/** Whether a write is to a key-value table, with a statement of Sluice's own: a put, a delete or a `clear`. */
export function isOfKeyTable(kind: Kind): boolean {
  return kind <= Kind.clear;
}

/** Whether a write is about one key: a put or a delete. */
export function isOfKey(kind: Kind): boolean {
  return kind <= Kind.delete;
}

const OPERATIONS: Readonly<Record<Kind, WriteOperation>> = {
  [Kind.putText]: 'put',
  [Kind.putBlob]: 'put',
  [Kind.delete]: 'delete',
  [Kind.clear]: 'clear',
  [Kind.append]: 'append',
  [Kind.stage]: 'sql',
  [Kind.ensure]: 'ensure',
  [Kind.group]: 'group',
};

function operationOf({ kind }: WriteCopy): WriteOperation {
  return OPERATIONS[kind];
}

/** What a dead letter is found by. */
export function namesOf(write: WriteCopy): Pick<DeadLetterSummary, 'table' | 'operation' | 'key'> {
  return { table: write.table, operation: operationOf(write), key: isOfKey(write.kind) ? write.key : null };
}

/** What a write wanted to write, as people and programs read it. */
export function contentOf(
  write: WriteCopy,
  cipher: ValueCipher | undefined,
): Pick<DeadLetter, 'statement' | 'payload'> {
  if (write.kind !== Kind.group) return simpleContentOf(write, cipher);
  const payload = write.members.map((member) => ({
    table: member.table,
    operation: operationOf(member),
    key: isOfKey(member.kind) ? member.key : null,
    ...simpleContentOf(member, cipher),
  }));
  return { statement: null, payload };
}

function simpleContentOf(
  write: WriteCopy,
  cipher: ValueCipher | undefined,
): { statement: string | null; payload: SqlValue | readonly SqlValue[] } {
  switch (write.kind) {
    case Kind.putText:
    case Kind.putBlob:
      return { statement: null, payload: readable(write, cipher) };
    case Kind.append:
    case Kind.stage:
      return { statement: write.statement, payload: write.parameters.map(narrow) };
    case Kind.ensure:
      return { statement: write.statement, payload: null };
    default:
      return { statement: null, payload: null };
  }
}

/** The value of a put, as far as the keys of the database open it: a table may have one of its own. */
function readable({ table, key, value }: WriteCopy, cipher: ValueCipher | undefined): string | Uint8Array {
  const id = typeof value === 'string' ? undefined : keyIdOf(value);
  if (id === undefined || cipher?.keyring.has(id) !== true) return value;
  return cipher.open(table as string, key, value);
}

function addTo(builder: FrameBuilder, write: WriteCopy): void {
  const target = new Target(write.table, write.statement);
  switch (write.kind) {
    case Kind.putText:
    case Kind.putBlob:
      return builder.put(target, write.key, write.value);
    case Kind.delete:
      return builder.delete(target, write.key);
    case Kind.clear:
      return builder.clear(target);
    case Kind.append:
      return builder.append(target, write.parameters);
    case Kind.stage:
      return builder.stage(target, write.parameters);
    case Kind.ensure:
      return builder.ensure(target);
    default:
      throw new Error(`a record of kind ${write.kind} cannot stand alone`);
  }
}
