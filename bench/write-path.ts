/**
 * Figures of the write path, through the public API of the built package, on a host that yields to its event loop every
 * 1,000 writes. Beside it, in the same run and in turns: the same with metrics that are scraped every second, fifteen
 * times as often as Prometheus does by default; and a loop of better-sqlite3 transactions of 10,000 on the host's own
 * thread. Usage: npm run bench:write-path [-- rounds]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import BetterSqlite3 from 'better-sqlite3';
import { type Database, open } from 'sluicedb';
import { createMetrics } from 'sluicedb/metrics';

const WRITES = 300_000;
const WRITES_PER_TURN = 1_000;
const ROWS_PER_TRANSACTION = 10_000;
const SCRAPE_MS = 1_000;
const ROUNDS = Number(process.argv[2] ?? 5);

interface Round {
  readonly acknowledgedPerSecond: number;
  readonly appliedPerSecond: number;
  readonly longestBlockMs: number;
}

/** Unique keys in an order that has nothing to do with their own, and a value as a telemetry collector has it. */
function entryOf(i: number): [key: string, value: object] {
  const id = (i * 7_919) % WRITES;
  return [`sensor/${id}`, { id, at: 1_700_000_000_000 + i, celsius: (i % 400) / 10, room: `room-${id % 97}` }];
}

/**
 * Scrapes until it is told to stop. Without prom-client's metrics of the process: what they watch it with cannot be taken off
 * again, and would be on the other rounds as well.
 */
function watch(db: Database): () => void {
  const metrics = createMetrics(db);
  const timer = setInterval(() => void metrics.registry.metrics(), SCRAPE_MS);
  return () => {
    clearInterval(timer);
    metrics.close();
  };
}

async function sluice(folder: string, withMetrics: boolean): Promise<Round> {
  const path = join(folder, 'sluice.db');
  const db = await open(path, { durability: 'sync' });
  const stopWatching = withMetrics ? watch(db) : () => {};
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  let longestBlockMs = 0;
  let turn = performance.now();
  const start = performance.now();
  for (let i = 0; i < WRITES; i++) {
    const [key, value] = entryOf(i);
    db.set(key, value);
    if ((i + 1) % WRITES_PER_TURN === 0) {
      await nextTurn();
      const now = performance.now();
      longestBlockMs = Math.max(longestBlockMs, now - turn);
      turn = now;
    }
  }
  await db.adurable();
  const acknowledged = performance.now();
  await db.aflush({ wait: true });
  const applied = performance.now();
  delay.disable();
  if (db.size !== WRITES) throw new Error(`${db.size} of ${WRITES} rows are there`);
  stopWatching();
  await db.close();
  for (const name of [path, `${path}-log`]) rmSync(name, { recursive: true });
  return {
    acknowledgedPerSecond: (WRITES / (acknowledged - start)) * 1_000,
    appliedPerSecond: (WRITES / (applied - start)) * 1_000,
    longestBlockMs: Math.max(longestBlockMs, delay.max / 1e6),
  };
}

function loop(folder: string): Round {
  const path = join(folder, 'loop.db');
  const db = new BetterSqlite3(path);
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = FULL');
  db.exec('CREATE TABLE data (key TEXT PRIMARY KEY, value TEXT)');
  const insert = db.prepare(
    'INSERT INTO data (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value',
  );
  let longestBlockMs = 0;
  const start = performance.now();
  for (let i = 0; i < WRITES; ) {
    const begun = performance.now();
    db.exec('BEGIN IMMEDIATE');
    for (const end = i + ROWS_PER_TRANSACTION; i < end; i++) {
      const [key, value] = entryOf(i);
      insert.run(key, JSON.stringify(value));
    }
    db.exec('COMMIT');
    longestBlockMs = Math.max(longestBlockMs, performance.now() - begun);
  }
  const perSecond = (WRITES / (performance.now() - start)) * 1_000;
  db.close();
  rmSync(path);
  return { acknowledgedPerSecond: perSecond, appliedPerSecond: perSecond, longestBlockMs };
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] as number;
}

function summary(rounds: readonly Round[]): Record<string, number> {
  return {
    'acknowledged/s': Math.round(median(rounds.map((round) => round.acknowledgedPerSecond))),
    'applied/s': Math.round(median(rounds.map((round) => round.appliedPerSecond))),
    'longest block, ms': Number(Math.max(...rounds.map((round) => round.longestBlockMs)).toFixed(1)),
  };
}

function compare(
  what: string,
  ours: readonly Round[],
  theirs: readonly Round[],
  figure: (round: Round) => number,
): void {
  const ratios = ours.map((round, i) => figure(round) / figure(theirs[i] as Round));
  const [least, middle, most] = [Math.min(...ratios), median(ratios), Math.max(...ratios)].map((x) => x.toFixed(3));
  console.log(`${what}, round by round: median ${middle}, from ${least} to ${most}`);
}

const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
try {
  // The first round of each warms up and does not count.
  const plain: Round[] = [];
  const watched: Round[] = [];
  const theirs: Round[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    // Who goes first finds the disk and the heap in another state.
    const order = round % 2 === 0 ? [false, true] : [true, false];
    for (const withMetrics of order) (withMetrics ? watched : plain).push(await sluice(folder, withMetrics));
    theirs.push(loop(folder));
    if (round === 0) for (const rounds of [plain, watched, theirs]) rounds.length = 0;
  }
  console.log(`${WRITES} unique object writes, durability 'sync', ${ROUNDS} rounds in turns, Node ${process.version}`);
  console.table({
    sluice: summary(plain),
    'sluice with metrics': summary(watched),
    'better-sqlite3, 10,000 a transaction': summary(theirs),
  });
  compare('acknowledged, sluice / loop', plain, theirs, (round) => round.acknowledgedPerSecond);
  compare('acknowledged, with metrics / without', watched, plain, (round) => round.acknowledgedPerSecond);
  compare('applied, with metrics / without', watched, plain, (round) => round.appliedPerSecond);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
