/** What is written: the same keys, values and rows for every driver, made when they are asked for. */

export type Entry = readonly [key: string, value: unknown];
export type EntryOf = (i: number) => Entry;

/** Coprime to the counts in use: `(i * STEP) % count` meets every number below `count`, in an order of no meaning. */
const STEP = 7_919;

/** Small objects as a telemetry collector has them (about 75 bytes of JSON), under unique keys in random order. */
export function uniqueObjects(count: number): EntryOf {
  return (i) => objectOf((i * STEP) % count, i);
}

/** The same objects under few keys, each written again and again. */
export function hotKeys(keys: number): EntryOf {
  return (i) => objectOf((i * STEP) % keys, i);
}

/** Strings of so many characters under unique keys in random order. */
export function strings(count: number, length: number): EntryOf {
  return (i) => {
    const id = (i * STEP) % count;
    const start = `${id}:${i}:`;
    return [`text/${id}`, start + FILLER.slice(0, length - start.length)];
  };
}

const FILLER = 'the quick brown fox jumps over the lazy dog, and then over the next one. '.repeat(60);

function objectOf(id: number, i: number): Entry {
  return [`sensor/${id}`, { id, at: FIRST_MS + i, celsius: (i % 400) / 10, room: ROOMS[id % ROOMS.length] }];
}

const FIRST_MS = 1_700_000_000_000;
const ROOMS = Array.from({ length: 97 }, (_, i) => `room-${i}`);

export type Row = Record<string, string | number | null>;

/** Rows of telemetry: a moment, a name and a reading. */
export const THREE_COLUMNS = { at: 'integer', room: 'text', celsius: 'real' } as const;

export function threeColumnRow(i: number): Row {
  return { at: FIRST_MS + i, room: ROOMS[i % ROOMS.length] as string, celsius: (i % 400) / 10 };
}

/** And of ten columns. */
export const TEN_COLUMNS = {
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
} as const;

export function tenColumnRow(i: number): Row {
  return {
    at: FIRST_MS + i,
    room: ROOMS[i % ROOMS.length] as string,
    sensor: i % 1_000,
    celsius: (i % 400) / 10,
    humidity: (i % 1_000) / 10,
    pressure: 950 + (i % 1_000) / 10,
    volts: 3 + (i % 100) / 100,
    state: i % 50 === 0 ? 'alarm' : 'ok',
    errors: i % 7,
    note: i % 100 === 0 ? 'calibrated' : null,
  };
}
