/**
 * What poison costs: writes applied per second with 0 %, 1 % and 10 % of writes that SQLite refuses, through the public API of
 * the built package. The shares take turns within one run. `applied/s` is from the first write to the end of the flush;
 * `writer/s` divides by the time on the writer thread alone, so that nothing the host does can hide what poison costs
 * there; `writes/CPU s` by the processor time of all threads, which other programs on the machine disturb the least.
 * Usage: npm run bench:poison [-- rounds [case]]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Database, open } from 'sluicedb';

const WRITES = 300_000;
const WRITES_PER_TURN = 1_000;
const SHARES = [0, 0.01, 0.1] as const;
const GOAL = 0.8;
const ROUNDS = Number(process.argv[2] ?? 5);

interface Case {
  readonly name: string;
  readonly schema: readonly string[];
  /** Returns what makes the write number `i`. */
  writer(db: Database): (i: number, bad: boolean) => void;
}

const COLUMNS = '(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, celsius REAL, room TEXT';
const INSERT = 'INSERT INTO readings VALUES (?, ?, ?, ?)';

const CASES: readonly Case[] = [
  {
    name: 'rows, CHECK',
    schema: [`CREATE TABLE readings ${COLUMNS}, CHECK (celsius > -274))`],
    writer(db) {
      const rows = db.rows('readings');
      return (i, bad) => rows.append({ id: i, at: atOf(i), celsius: bad ? -300 : celsiusOf(i), room: roomOf(i) });
    },
  },
  {
    name: 'puts, CHECK',
    schema: [`CREATE TABLE readings (key TEXT PRIMARY KEY, value TEXT CHECK (value ->> 'celsius' > -274))`],
    writer(db) {
      const table = db.table('readings');
      return (i, bad) =>
        table.set(`sensor/${(i * 7_919) % WRITES}`, {
          at: atOf(i),
          celsius: bad ? -300 : celsiusOf(i),
          room: roomOf(i),
        });
    },
  },
  {
    name: 'rows, trigger RAISE(ABORT)',
    schema: [
      `CREATE TABLE readings ${COLUMNS})`,
      `CREATE TRIGGER cold BEFORE INSERT ON readings WHEN NEW.celsius < -273 BEGIN SELECT RAISE(ABORT, 'too cold'); END`,
    ],
    writer(db) {
      const rows = db.rows('readings');
      return (i, bad) => rows.append({ id: i, at: atOf(i), celsius: bad ? -300 : celsiusOf(i), room: roomOf(i) });
    },
  },
  {
    name: 'staged SQL, CHECK',
    schema: [`CREATE TABLE readings ${COLUMNS}, CHECK (celsius > -274))`],
    writer(db) {
      return (i, bad) => db.stage(INSERT, [i, atOf(i), bad ? -300 : celsiusOf(i), roomOf(i)]);
    },
  },
];

function atOf(i: number): number {
  return 1_700_000_000_000 + i;
}

function celsiusOf(i: number): number {
  return (i % 400) / 10;
}

function roomOf(i: number): string {
  return `room-${i % 97}`;
}

interface Round {
  readonly appliedPerSecond: number;
  readonly writerPerSecond: number;
  readonly perCpuSecond: number;
}

async function measure(folder: string, { schema, writer }: Case, share: number): Promise<Round> {
  const db = await open(join(folder, 'poison.db'), { durability: 'sync' });
  let heard = 0;
  let writerMs = 0;
  db.on('dead-letter', () => {
    heard++;
  });
  db.on('flush', ({ durationMs }) => {
    writerMs += durationMs;
  });
  for (const sql of schema) await db.aexecute(sql);
  const write = writer(db);
  const every = share === 0 ? Number.POSITIVE_INFINITY : Math.round(1 / share);
  const cpuBefore = process.cpuUsage();
  const start = performance.now();
  for (let i = 0; i < WRITES; i++) {
    write(i, i % every === every - 1);
    if ((i + 1) % WRITES_PER_TURN === 0) await nextTurn();
  }
  await db.aflush();
  const ms = performance.now() - start;
  const cpu = process.cpuUsage(cpuBefore);
  const bad = Math.round(WRITES * share);
  const row = await db.afetchOne<{ n: number }>('SELECT count(*) AS n FROM readings');
  if (heard !== bad || db.dlq.size !== bad || row?.n !== WRITES - bad) {
    throw new Error(`${row?.n} rows, ${db.dlq.size} dead letters, ${heard} heard of ${bad}`);
  }
  await db.close();
  return {
    appliedPerSecond: (WRITES / ms) * 1_000,
    writerPerSecond: (WRITES / writerMs) * 1_000,
    perCpuSecond: (WRITES / (cpu.user + cpu.system)) * 1e6,
  };
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] as number;
}

function spread(ratios: readonly number[]): string {
  return `${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`;
}

const cases = CASES.filter(({ name }) => name.includes(process.argv[3] ?? ''));
const results = new Map(cases.map((each) => [each, SHARES.map((): Round[] => [])]));
for (let round = 0; round <= ROUNDS; round++) {
  for (const [each, rounds] of results) {
    for (const [i, share] of SHARES.entries()) {
      const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
      try {
        const figures = await measure(folder, each, share);
        // The first round warms up and does not count.
        if (round > 0) rounds[i]?.push(figures);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    }
  }
}

const [cpu] = cpus();
console.log(
  `${WRITES} writes, durability 'sync', ${ROUNDS} rounds in turns; ${cpus().length} x ${cpu?.model.trim()}, ` +
    `${Math.round(totalmem() / 2 ** 30)} GiB, ${process.platform} ${process.arch}, Node ${process.version}`,
);
const table: Record<string, Record<string, string | number>> = {};
const met: string[] = [];
const missed: string[] = [];
for (const [{ name }, rounds] of results) {
  const [clean = []] = rounds;
  for (const [i, poisoned] of rounds.entries()) {
    const applied = poisoned.map((each, n) => each.appliedPerSecond / (clean[n] as Round).appliedPerSecond);
    const writer = poisoned.map((each, n) => each.writerPerSecond / (clean[n] as Round).writerPerSecond);
    const cpuTime = poisoned.map((each, n) => each.perCpuSecond / (clean[n] as Round).perCpuSecond);
    table[`${name}, ${(SHARES[i] as number) * 100} %`] = {
      'applied/s': Math.round(median(poisoned.map((each) => each.appliedPerSecond))),
      'to 0 %': i === 0 ? '' : spread(applied),
      'writer/s': Math.round(median(poisoned.map((each) => each.writerPerSecond))),
      'writer to 0 %': i === 0 ? '' : spread(writer),
      'writes/CPU s to 0 %': i === 0 ? '' : spread(cpuTime),
    };
    if (SHARES[i] === 0.01) (median(applied) >= GOAL ? met : missed).push(name);
  }
}
console.table(table);
console.log(`at least ${GOAL * 100} % of the speed with 1 % poison: ${met.join('; ') || 'none'}`);
if (missed.length > 0) console.log(`less: ${missed.join('; ')}`);
