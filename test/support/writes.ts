import * as fc from 'fast-check';
import type { Frame, SqlValue } from '../../dist/base/frame/index.js';
import { FrameBuilder, FrameReader, Kind, Target } from '../../dist/base/frame/index.js';

/** One write, as plain data: what goes into a frame builder, and what should come out of a reader. */
export type Write =
  | { readonly kind: 'put'; readonly table: string; readonly key: string; readonly value: string | Uint8Array }
  | { readonly kind: 'delete'; readonly table: string; readonly key: string }
  | { readonly kind: 'clear'; readonly table: string }
  | {
      readonly kind: 'append' | 'stage';
      readonly table: string | null;
      readonly sql: string;
      readonly values: readonly SqlValue[];
    }
  | { readonly kind: 'ensure'; readonly table: string; readonly columns: string }
  | { readonly kind: 'group'; readonly members: readonly Write[] };

/** Strings with everything that has gone wrong in some codec before: empty, NUL, quotes, combining, astral. */
export const text: fc.Arbitrary<string> = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 12 }),
  fc.string({ unit: 'grapheme', maxLength: 6 }),
  fc.constantFrom('', '\0', '"', "'", '\\', '\ufeff', 'é', '\ud7ff', '\ue000', '\uffff', '😀', '\u{10ffff}', 'a😀b'),
);

export const blob: fc.Arbitrary<Uint8Array> = fc.uint8Array({ maxLength: 24 });

const INT64 = { min: -(2n ** 63n), max: 2n ** 63n - 1n };

export const sqlValue: fc.Arbitrary<SqlValue> = fc.oneof(
  fc.constant(null),
  fc.bigInt(INT64),
  fc.constantFrom(INT64.min, INT64.max, 0n, -1n, 2n ** 53n, -(2n ** 53n) - 1n),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.integer(),
  fc.constantFrom(-0, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, 2 ** 53, -(2 ** 32), 2 ** 32 - 1, 5e-324),
  text,
  blob,
);

const member: fc.Arbitrary<Write> = fc.oneof(
  fc.record({ kind: fc.constant('put' as const), table: text, key: text, value: fc.oneof(text, blob) }),
  fc.record({ kind: fc.constant('delete' as const), table: text, key: text }),
  fc.record({ kind: fc.constant('clear' as const), table: text }),
  fc.record({
    kind: fc.constantFrom('append' as const, 'stage' as const),
    table: fc.option(text),
    sql: text,
    values: fc.array(sqlValue, { maxLength: 5 }),
  }),
  fc.record({ kind: fc.constant('ensure' as const), table: text, columns: fc.constant('{"a":"TEXT"}') }),
);

export const write: fc.Arbitrary<Write> = fc.oneof(
  { weight: 5, arbitrary: member },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('group' as const),
      members: fc.array(member, { minLength: 1, maxLength: 4 }),
    }),
  },
);

/** Targets are shared between the frames of a process, as in the engine. */
export class Targets {
  readonly #known = new Map<string, Target>();

  of(table: string | null, statement: string | null = null): Target {
    const name = JSON.stringify([table, statement]);
    let target = this.#known.get(name);
    if (target === undefined) {
      target = new Target(table, statement);
      this.#known.set(name, target);
    }
    return target;
  }
}

export function addTo(builder: FrameBuilder, targets: Targets, given: Write): void {
  switch (given.kind) {
    case 'put':
      return builder.put(targets.of(given.table), given.key, given.value);
    case 'delete':
      return builder.delete(targets.of(given.table), given.key);
    case 'clear':
      return builder.clear(targets.of(given.table));
    case 'append':
      return builder.append(targets.of(given.table, given.sql), given.values);
    case 'stage':
      return builder.stage(targets.of(given.table, given.sql), given.values);
    case 'ensure':
      return builder.ensure(targets.of(given.table, given.columns));
    case 'group':
      builder.group(given.members.length);
      for (const each of given.members) addTo(builder, targets, each);
  }
}

export function frameOf(writes: readonly Write[], firstSeq: number, targets: Targets = new Targets()): Frame {
  const builder = new FrameBuilder(1_700_000_000_000);
  for (const each of writes) addTo(builder, targets, each);
  return builder.build(firstSeq);
}

/** What is in a frame, with the sequence number of each write; a member of a group has the group's. */
export function writesOf(bytes: Buffer): { readonly seq: number; readonly write: Write }[] {
  const reader = new FrameReader(bytes);
  const found: { seq: number; write: Write }[] = [];
  while (reader.next()) {
    const { seq } = reader;
    if (reader.kind !== Kind.group) {
      found.push({ seq, write: current(reader) });
      continue;
    }
    const members: Write[] = [];
    for (let left = reader.members; left > 0; left--) {
      if (!reader.next()) throw new Error('the group is cut short');
      if (reader.seq !== seq) throw new Error(`a member has number ${reader.seq} and its group ${seq}`);
      members.push(current(reader));
    }
    found.push({ seq, write: { kind: 'group', members } });
  }
  return found;
}

function current(reader: FrameReader): Write {
  const { key, value, parameters: values } = reader;
  const { table, statement } = reader.target;
  switch (reader.kind) {
    case Kind.putText:
    case Kind.putBlob:
      return { kind: 'put', table: table as string, key, value };
    case Kind.delete:
      return { kind: 'delete', table: table as string, key };
    case Kind.clear:
      return { kind: 'clear', table: table as string };
    case Kind.append:
    case Kind.stage:
      return {
        kind: reader.kind === Kind.append ? 'append' : 'stage',
        table,
        sql: statement as string,
        values,
      };
    case Kind.ensure:
      return { kind: 'ensure', table: table as string, columns: statement as string };
    default:
      throw new Error(`a record of kind ${reader.kind} inside a group`);
  }
}

/** As SQLite will be given it: whole numbers are integers, and there is no negative zero among them. */
export function asStored(given: Write): Write {
  if (given.kind === 'group') return { kind: 'group', members: given.members.map(asStored) };
  if (given.kind !== 'append' && given.kind !== 'stage') return given;
  return {
    ...given,
    values: given.values.map((value) => (Number.isSafeInteger(value) ? BigInt(Number(value)) : value)),
  };
}
