/** What is written: the same keys, values and rows for every driver, made when they are asked for. */

export interface Workload {
  readonly writes: number;
  /** How many different keys, or rows, that makes. The first writes all have different ones. */
  readonly distinct: number;
}

export type Entry = readonly [key: string, value: unknown];

export interface KeyValueWorkload extends Workload {
  entryOf(i: number): Entry;
}

export interface RowWorkload<R extends object = Row> extends Workload {
  readonly columns: Readonly<Record<string, 'integer' | 'real' | 'text'>>;
  rowOf(i: number): R;
  /** The values of a row in the order of the columns, as they are bound to a statement. */
  valuesOf(row: R): unknown[];
}

/** Coprime to the counts in use: `(i * STEP) % count` meets every number below `count`, in an order of no meaning. */
const STEP = 7_919;

/** Small objects as a telemetry collector has them (about 75 bytes of JSON), under unique keys in random order. */
export function uniqueObjects(writes: number): KeyValueWorkload {
  return hotKeys(writes, writes);
}

/** The same objects under few keys, each written again and again. */
export function hotKeys(writes: number, keys: number): KeyValueWorkload {
  return {
    writes,
    distinct: keys,
    entryOf(i) {
      const id = (i * STEP) % keys;
      return [`sensor/${id}`, { id, at: FIRST_MS + i, celsius: (i % 400) / 10, room: roomOf(id) }];
    },
  };
}

/** Strings of so many characters under unique keys in random order. */
export function strings(writes: number, length: number): KeyValueWorkload {
  return {
    writes,
    distinct: writes,
    entryOf(i) {
      const id = (i * STEP) % writes;
      const start = `${id}:${i}:`;
      return [`text/${id}`, start + FILLER.slice(0, length - start.length)];
    },
  };
}

const FILLER = 'the quick brown fox jumps over the lazy dog, and then over the next one. '.repeat(60);

const FIRST_MS = 1_700_000_000_000;
const ROOMS = Array.from({ length: 97 }, (_, i) => `room-${i}`);
const roomOf = (i: number): string => ROOMS[i % ROOMS.length] as string;

export type Row = Readonly<Record<string, string | number | null>>;

/** Rows of telemetry: a moment, a name and a reading. */
export function threeColumns(writes: number): RowWorkload<{ at: number; room: string; celsius: number }> {
  return {
    writes,
    distinct: writes,
    columns: { at: 'integer', room: 'text', celsius: 'real' },
    rowOf: (i) => ({ at: FIRST_MS + i, room: roomOf(i), celsius: (i % 400) / 10 }),
    valuesOf: (row) => [row.at, row.room, row.celsius],
  };
}

interface TenColumns {
  at: number;
  room: string;
  sensor: number;
  celsius: number;
  humidity: number;
  pressure: number;
  volts: number;
  state: string;
  errors: number;
  note: string | null;
}

/** And of ten columns. */
export function tenColumns(writes: number): RowWorkload<TenColumns> {
  return {
    writes,
    distinct: writes,
    columns: {
      at: 'integer',
      room: 'text',
      sensor: 'integer',
      celsius: 'real',
      humidity: 'real',
      pressure: 'real',
      volts: 'real',
      state: 'text',
      errors: 'integer',
      note: 'text',
    },
    rowOf: (i) => ({
      at: FIRST_MS + i,
      room: roomOf(i),
      sensor: i % 1_000,
      celsius: (i % 400) / 10,
      humidity: (i % 1_000) / 10,
      pressure: 950 + (i % 1_000) / 10,
      volts: 3 + (i % 100) / 100,
      state: i % 50 === 0 ? 'alarm' : 'ok',
      errors: i % 7,
      note: i % 100 === 0 ? 'calibrated' : null,
    }),
    valuesOf: (row) => [
      row.at,
      row.room,
      row.sensor,
      row.celsius,
      row.humidity,
      row.pressure,
      row.volts,
      row.state,
      row.errors,
      row.note,
    ],
  };
}
