import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { Counter, Registry } from 'prom-client';
import { type Database, type DatabaseStats, open, SluiceError } from 'sluicedb';
import { createMetrics, type MetricsSource } from 'sluicedb/metrics';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { isConserved, parseText, type Scrape, sampleId, sumOf } from '../support/exposition.ts';
import { openTemp } from '../support/open-temp.ts';
import { seededRandom } from '../support/seed.ts';
import { tempDir } from '../support/temp-dir.ts';

// The type test: metrics take the database structurally, and the real one must fit.
const asSource = (db: Database): MetricsSource => db;

/** A scrape, of which every value is a number. */
function read(text: string): Scrape {
  const found = parseText(text);
  expect([...found.samples].filter(([, value]) => !Number.isFinite(value))).toEqual([]);
  return found;
}

const scrape = async (registry: Registry): Promise<Scrape> => read(await registry.metrics());

/** Reads samples of one database: those that have the given labels, added up. */
function of(found: Scrape, db: string) {
  return (name: string, labels: Readonly<Record<string, string>> = {}): number =>
    sumOf(found, `sluice_${name}`, { db, ...labels });
}

const seriesOf = ({ samples }: Scrape, db: string) => [...samples.keys()].filter((id) => id.includes(`["db","${db}"]`));

const sum = (counts: readonly number[]) => counts.reduce((total, count) => total + count, 0);

const COUNTERS: Readonly<Record<string, (stats: DatabaseStats) => number>> = {
  writes_accepted_total: (s) => s.accepted,
  writes_recovered_total: (s) => s.recovered,
  writes_applied_total: (s) => s.applied,
  writes_coalesced_total: (s) => s.coalesced,
  writes_dead_lettered_total: (s) => s.deadLettered,
  log_fsyncs_total: (s) => s.syncs,
  writes_rejected_total: (s) => s.refused,
  bytes_accepted_total: (s) => s.bytesAccepted,
  bytes_applied_total: (s) => s.bytesApplied,
  backpressure_waits_total: (s) => s.waits,
  backpressure_wait_seconds_total: (s) => s.waitedMs / 1_000,
  log_bytes_written_total: (s) => s.logBytesWritten,
  log_segments_deleted_total: (s) => s.logSegmentsDeleted,
  log_errors_total: (s) => sum(Object.values(s.logErrors).flatMap((counts) => Object.values(counts))),
  batch_splits_total: (s) => s.batchSplits,
  sqlite_errors_total: (s) => sum(Object.values(s.sqliteErrors)),
  direct_statements_total: (s) => s.directStatements,
  rows_expired_total: (s) => s.expired,
  reads_total: (s) => sum(Object.values(s.reads)),
  cache_evictions_total: (s) => s.cacheEvictions,
  flushes_total: (s) => s.flushes,
  flush_retries_total: (s) => s.flushRetries,
  flush_busy_seconds_total: (s) => s.flushBusyMs / 1_000,
  worker_restarts_total: (s) => s.writerRestarts,
  dlq_retried_total: (s) => s.deadLetters.retried,
  dlq_retry_failures_total: (s) => s.deadLetters.retriesFailed,
  dlq_superseded_total: (s) => s.deadLetters.superseded,
  dlq_cleared_total: (s) => s.deadLetters.cleared,
  dlq_imported_total: (s) => s.deadLetters.imported,
  dlq_evicted_total: (s) => s.deadLetters.evicted,
};

const GAUGES: Readonly<Record<string, (stats: DatabaseStats) => number>> = {
  pending_writes: (s) => s.pending,
  staging_bytes: (s) => s.stagedBytes,
  backpressure_active: (s) => Number(s.needsDrain),
  waiting_producers: (s) => s.waiting,
  cache_entries: (s) => s.cacheEntries,
  cache_size_bytes: (s) => s.cacheBytes,
  last_durable_seq: (s) => s.durableSeq,
  unsynced_bytes: (s) => s.unsyncedBytes,
  flush_consecutive_failures: (s) => s.flushConsecutiveFailures,
  sqlite_wal_frames: (s) => s.walFrames,
  sqlite_wal_frames_checkpointed: (s) => s.walFramesCheckpointed,
  disk_free_bytes: (s) => s.diskFreeBytes ?? -1,
  dlq_entries_at_open: (s) => s.deadLetters.entriesAtOpen,
  recovery_duration_seconds: (s) => s.recovery.durationMs / 1_000,
  recovery_segments: (s) => s.recovery.segments,
  recovery_torn_bytes: (s) => s.recovery.tornBytes,
  recovery_set_aside_files: (s) => s.recovery.setAside,
  recovery_damaged: (s) => Number(s.recovery.damaged),
  last_accepted_seq: (s) => s.lastSeq,
  last_applied_seq: (s) => s.appliedSeq,
  log_size_bytes: (s) => s.logBytes,
  log_segments: (s) => s.logSegments,
  flush_last_success_timestamp_seconds: (s) => (s.lastFlushAt ?? 0) / 1_000,
  sqlite_wal_size_bytes: (s) => s.walBytes,
  dlq_entries: (s) => s.deadLetters.entries,
  dlq_size_bytes: (s) => s.deadLetters.bytes,
};

const HISTOGRAMS = [
  'log_write_duration_seconds',
  'log_fsync_duration_seconds',
  'log_group_size_writes',
  'flush_duration_seconds',
  'flush_batch_writes',
  'flush_batch_bytes',
  'write_ack_duration_seconds',
  'write_apply_latency_seconds',
  'checkpoint_duration_seconds',
];

/** Metrics that are held against something else than one field of the statistics. */
const OTHERS = [
  'oldest_pending_age_seconds',
  'unsynced_age_seconds',
  'staging_max_bytes',
  'staging_max_writes',
  'log_max_bytes',
  'dlq_max_entries',
  'dlq_max_bytes',
  'dlq_oldest_entry_age_seconds',
  'flush_interval_seconds',
  'flush_running_seconds',
  'flush_stalled',
  'checkpoints_total',
  'state',
  'build_info',
];

/** What is told by kind: the field of the statistics, the metric and its label. */
const KINDS: readonly (readonly [
  metric: string,
  label: string,
  (stats: DatabaseStats) => Readonly<Record<string, number>>,
])[] = [
  ['writes_accepted_total', 'op', (s) => s.acceptedBy],
  ['writes_dead_lettered_total', 'reason', (s) => s.deadLetteredBy],
  ['writes_rejected_total', 'reason', (s) => s.refusedBy],
  ['flush_retries_total', 'class', (s) => s.flushRetriesBy],
  ['sqlite_errors_total', 'code', (s) => s.sqliteErrors],
  ['worker_restarts_total', 'reason', (s) => s.writerRestartsBy],
  ['reads_total', 'source', (s) => s.reads],
  ['checkpoints_total', 'result', (s) => ({ ...s.checkpoints })],
];

/** Every number of a scrape is the one that `db.stats()` has at the same moment. */
async function expectSameAsStats(registry: Registry, label: string, db: Database): Promise<Scrape> {
  const stats = db.stats();
  const text = registry.metrics(); // collects before it returns
  const found = read(await text);
  const value = of(found, label);
  for (const [name, read] of Object.entries({ ...COUNTERS, ...GAUGES })) {
    expect(value(name), name).toBe(read(stats));
    expect(found.types.get(`sluice_${name}`)).toBe(name in COUNTERS ? 'counter' : 'gauge');
  }
  for (const [metric, label, read] of KINDS) {
    for (const [kind, count] of Object.entries(read(stats))) {
      expect(value(metric, { [label]: kind }), `${metric} ${kind}`).toBe(count);
    }
  }
  expect(sum(Object.values(stats.deadLetteredBy))).toBe(stats.deadLettered);
  const reasons = ['transient', 'space', 'reopen', 'config', 'breaker', 'queue-full'];
  for (const reason of reasons) expect(value('flush_stalled', { reason })).toBe(reason === stats.stall ? 1 : 0);
  if (stats.deadLetters.entries === 0) expect(value('dlq_oldest_entry_age_seconds')).toBe(0);
  else expect(value('dlq_oldest_entry_age_seconds')).toBeGreaterThanOrEqual(0);
  expect(value('flush_running_seconds')).toBeGreaterThanOrEqual(stats.flushRunningMs / 1_000);
  const { staging, log, dlq, flush } = db.options;
  expect(value('staging_max_bytes')).toBe(staging.maxBytes);
  expect(value('staging_max_writes')).toBe(staging.maxEntries);
  expect(value('log_max_bytes')).toBe(log.maxBytes);
  expect(value('dlq_max_entries')).toBe(dlq.maxEntries);
  expect(value('dlq_max_bytes')).toBe(dlq.maxBytes);
  if (flush.mode === 'auto') expect(value('flush_interval_seconds')).toBe(flush.intervalMs / 1_000);
  for (const age of ['oldest_pending_age_seconds', 'unsynced_age_seconds'])
    expect(value(age)).toBeGreaterThanOrEqual(0);
  const states = ['ok', 'degraded', 'space', 'failed', 'closing'];
  for (const state of states) expect(value('state', { state })).toBe(state === stats.state ? 1 : 0);
  return found;
}

describe('what a scrape shows', () => {
  test('every series is there before the first write, with counters at 0', async () => {
    const db = await openTemp('fresh.db');
    const { registry, close } = createMetrics(asSource(db));
    onTestFinished(close);
    const found = await expectSameAsStats(registry, 'fresh.db', db);
    const value = of(found, 'fresh.db');
    for (const name of Object.keys(COUNTERS)) expect(value(name), name).toBe(0);
    expect(new Set([...found.types.keys()].map((name) => name.slice('sluice_'.length)))).toEqual(
      new Set([...Object.keys({ ...COUNTERS, ...GAUGES }), ...HISTOGRAMS, ...OTHERS]),
    );
    for (const name of HISTOGRAMS) {
      expect(found.types.get(`sluice_${name}`)).toBe('histogram');
      expect(value(`${name}_count`)).toBe(0);
      expect(value(`${name}_bucket`, { le: '+Inf' })).toBe(0);
    }
    const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
      version: string;
    };
    expect(value('build_info', { version, sqlite_version: db.sqliteVersion, durability: 'sync' })).toBe(1);
    expect(value('state', { state: 'ok' })).toBe(1);
    // All of it is of this one database, and by the rules of names.
    expect(seriesOf(found, 'fresh.db')).toHaveLength(found.samples.size);
    for (const [name, type] of found.types) {
      expect(name).toMatch(/^sluice_[a-z_]+$/);
      expect(name.endsWith('_total'), name).toBe(type === 'counter');
    }
  });

  test('numbers follow the database through writes, coalescing, dead letters, a refusal and a retry', async () => {
    const db = await openTemp('data.db', {
      flush: { mode: 'manual' },
      staging: { maxEntries: 500 },
      whenFull: 'reject',
      cache: { strategy: 'lru', maxEntries: 90 },
    });
    const { registry, close } = createMetrics(db, { db: 'main' });
    onTestFinished(close);
    await db.aexecute('CREATE TABLE picky (id INTEGER PRIMARY KEY, n INTEGER CHECK (n > 0))');

    for (let i = 0; i < 300; i++) db.set(`key ${i % 100}`, i);
    db.stage('INSERT INTO picky (n) VALUES (?)', [-1]);
    db.stage('INSERT INTO picky (n) VALUES (?)', [-2]);
    const staged = of(await expectSameAsStats(registry, 'main', db), 'main');
    expect(staged('pending_writes')).toBe(302);
    expect(staged('staging_bytes')).toBeGreaterThan(0);
    expect([staged('cache_entries'), staged('cache_evictions_total')]).toEqual([90, 210]);
    expect(staged('cache_size_bytes')).toBeGreaterThan(90 * 100);

    expect(() => {
      for (let i = 0; i < 500; i++) db.set(`more ${i}`, i);
    }).toThrow(SluiceError);
    await db.aflush();
    const flushed = await expectSameAsStats(registry, 'main', db);
    const value = of(flushed, 'main');
    expect(value('writes_rejected_total', { reason: 'full' })).toBe(1);
    expect(value('writes_coalesced_total')).toBe(200);
    expect(value('writes_dead_lettered_total')).toBe(2);
    expect(value('dlq_entries')).toBe(2);
    expect(value('pending_writes')).toBe(0);
    expect(Math.abs(value('flush_last_success_timestamp_seconds') - Date.now() / 1_000)).toBeLessThan(60);
    expect(value('flush_duration_seconds_count')).toBe(value('flushes_total'));
    expect(value('flush_batch_writes_sum')).toBe(value('writes_accepted_total'));
    expect(value('flush_duration_seconds_sum')).toBeCloseTo(value('flush_busy_seconds_total'), 9);
    expect(value('log_group_size_writes_sum')).toBe(value('writes_accepted_total'));
    expect(value('log_write_duration_seconds_count')).toBe(value('log_group_size_writes_count'));
    expect(value('log_fsync_duration_seconds_count')).toBe(value('log_fsyncs_total'));
    expect(value('log_fsyncs_total')).toBeGreaterThan(0);
    expect(value('log_write_duration_seconds_sum')).toBeLessThan(60);

    await db.aexecute('DROP TABLE picky');
    await db.aexecute('CREATE TABLE picky (id INTEGER PRIMARY KEY, n INTEGER)');
    const [first] = await db.agetDlq();
    await db.aretryDlq([first?.id ?? -1]);
    await db.aclearDlq();
    const later = of(await expectSameAsStats(registry, 'main', db), 'main');
    expect([later('dlq_entries'), later('dlq_retried_total'), later('dlq_cleared_total')]).toEqual([0, 1, 1]);
  });

  test('a database that reopens with a backlog shows what it recovered', async () => {
    const path = join(tempDir(), 'data.db');
    const first = await open(path, { flush: { mode: 'manual' }, closeTimeoutMs: 0 });
    for (let i = 0; i < 50; i++) first.set(`key ${i}`, i);
    expect(await first.close()).toEqual({ pending: 50 });
    const db = await open(path, { flush: { mode: 'manual' } });
    onTestFinished(async () => void (await db.close()));
    const { registry, close } = createMetrics(db);
    onTestFinished(close);
    await db.aflush();
    const found = await expectSameAsStats(registry, 'data.db', db);
    const value = of(found, 'data.db');
    expect(value('writes_recovered_total')).toBe(50);
    expect(value('writes_accepted_total')).toBe(0);
    expect(isConserved(found, { db: 'data.db' })).toBe(true);
  });

  test("at 'interval', the syncs of the timer are timed like any other", async () => {
    const db = await openTemp('data.db', { durability: 'interval', syncIntervalMs: 1 });
    const { registry, close } = createMetrics(db);
    onTestFinished(close);
    for (let i = 0; i < 5; i++) {
      const { syncs } = db.stats();
      await db.aset('key', i);
      await vi.waitFor(() => expect(db.stats().syncs).toBeGreaterThan(syncs), 5_000);
    }
    await db.aflush();
    const value = of(await scrape(registry), 'data.db');
    expect(value('log_fsyncs_total')).toBeGreaterThanOrEqual(5);
    expect(value('log_fsync_duration_seconds_count')).toBe(value('log_fsyncs_total'));
    expect(value('log_group_size_writes_sum')).toBe(5);
    expect(value('log_write_duration_seconds_count')).toBe(value('log_group_size_writes_count'));
  });

  test('under load, every scrape obeys the conservation law and no counter goes back', async () => {
    const db = await openTemp('data.db', { flush: { intervalMs: 1, maxWrites: 500 } });
    await db.aexecute('CREATE TABLE picky (id INTEGER PRIMARY KEY, n INTEGER CHECK (n > 0))');
    const { registry, close } = createMetrics(db);
    onTestFinished(close);
    const random = seededRandom(7);
    const scrapes: Promise<string>[] = [];
    for (let round = 0; round < 150; round++) {
      for (let i = 0; i < 200; i++) db.set(`key ${Math.floor(random() * 3_000)}`, i);
      if (round % 10 === 0) db.stage('INSERT INTO picky (n) VALUES (?)', [-1]);
      scrapes.push(registry.metrics());
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    await db.aflush();
    scrapes.push(registry.metrics());

    let earlier: ((name: string) => number) | undefined;
    let midway = 0;
    for (const text of await Promise.all(scrapes)) {
      const found = read(text);
      const value = of(found, 'data.db');
      expect(isConserved(found, { db: 'data.db' })).toBe(true);
      expect(value('last_accepted_seq') - value('last_applied_seq')).toBe(value('pending_writes'));
      for (const name of Object.keys(COUNTERS)) expect(value(name)).toBeGreaterThanOrEqual(earlier?.(name) ?? 0);
      if (value('pending_writes') > 0 && value('writes_applied_total') > 0) midway++;
      earlier = value;
    }
    expect(midway, 'scrapes while some writes were applied and some were not').toBeGreaterThan(0);
    expect(earlier?.('writes_coalesced_total')).toBeGreaterThan(0);
    expect(earlier?.('writes_dead_lettered_total')).toBe(15);
    expect(earlier?.('pending_writes')).toBe(0);
  });

  test('a scrape that a listener makes obeys the laws, whatever event it is called for', async () => {
    const db = await openTemp('data.db', { flush: { intervalMs: 5 }, staging: { maxEntries: 10 } });
    await db.aexecute('CREATE TABLE guarded (n CHECK (n > 0))');
    const { registry } = createMetrics(db);
    const scrapes = new Map<string, Promise<Scrape>[]>();
    db.on('failure', () => {});
    for (const event of ['commit', 'retry', 'state', 'drain', 'flush', 'dead-letter', 'checkpoint'] as const) {
      const made: Promise<Scrape>[] = [];
      scrapes.set(event, made);
      db.on(event, () => made.push(scrape(registry)));
    }
    const other = new Sqlite(db.path);
    other.exec('BEGIN IMMEDIATE');
    db.stage('INSERT INTO guarded VALUES (-1)');
    for (let i = 0; i < 6; i++) db.set(`key ${i % 2}`, i);
    await vi.waitFor(() => expect(db.state).toBe('degraded'), { timeout: 5_000 });
    other.close();
    await db.aflush();
    await db.dlq.clear('all');
    for (const [event, made] of scrapes) {
      if (event !== 'checkpoint') expect(made, event).not.toHaveLength(0);
      for (const one of made) expect(isConserved(await one, { db: 'data.db' }), event).toBe(true);
    }
  });

  test('a number that is none is left out, and breaks nothing', async () => {
    const db = await openTemp();
    const odd: MetricsSource = {
      path: 'odd.db',
      state: 'ok',
      sqliteVersion: db.sqliteVersion,
      options: db.options,
      stats: () => ({ ...db.stats(), recovered: Number.NaN, applied: -1, pending: Number.NaN, flushBusyMs: Infinity }),
      on: () => {},
      off: () => {},
    };
    const { registry, close } = createMetrics(odd);
    onTestFinished(close);
    const found = await scrape(registry);
    const missing = ['writes_recovered_total', 'writes_applied_total', 'pending_writes', 'flush_busy_seconds_total'];
    for (const name of missing) {
      expect(found.types.has(`sluice_${name}`)).toBe(true);
      expect(found.samples.has(sampleId(`sluice_${name}`, [['db', 'odd.db']])), name).toBe(false);
    }
    expect(of(found, 'odd.db')('flushes_total')).toBe(0);
  });
});

describe('several databases and registries', () => {
  test('two databases share a registry, and each leaves alone', async () => {
    const registry = new Registry();
    const a = await openTemp('a.db');
    const b = await openTemp('b.db');
    const metricsOfA = createMetrics(a, { registry });
    const metricsOfB = createMetrics(b, { registry });
    expect(metricsOfA.registry).toBe(registry);
    await a.aset('x', 1);
    await b.aset('x', 1);
    await b.aset('y', 2);
    await Promise.all([a.aflush(), b.aflush()]);
    await expectSameAsStats(registry, 'a.db', a);
    const both = await expectSameAsStats(registry, 'b.db', b);
    expect(of(both, 'a.db')('writes_accepted_total')).toBe(1);
    expect(of(both, 'b.db')('writes_accepted_total')).toBe(2);
    expect(of(both, 'a.db')('flush_batch_writes_sum')).toBe(1);
    expect(of(both, 'b.db')('flush_batch_writes_sum')).toBe(2);

    metricsOfA.close();
    metricsOfA.close();
    await a.aset('z', 3);
    const rest = await expectSameAsStats(registry, 'b.db', b);
    expect(seriesOf(rest, 'a.db')).toEqual([]);
    metricsOfB.close();
    expect((await scrape(registry)).samples.size).toBe(0);
  });

  test('an open database keeps its label; one that closes takes its series along, and can be opened again', async () => {
    const registry = new Registry();
    const path = join(tempDir(), 'data.db');
    const first = await open(path);
    await first.aset('x', 1);
    const old = createMetrics(first, { registry });
    const other = await openTemp('data.db');
    expect(() => createMetrics(other, { registry })).toThrow(
      expect.objectContaining({ code: 'SLUICE_INVALID_OPTION', message: expect.stringContaining("'data.db'") }),
    );
    await first.close();
    expect((await scrape(registry)).samples.size).toBe(0);
    expect(() => createMetrics(first, { registry })).toThrow(expect.objectContaining({ code: 'SLUICE_CLOSED' }));

    const second = await open(path);
    onTestFinished(async () => void (await second.close()));
    const metrics = createMetrics(second, { registry });
    await expectSameAsStats(registry, 'data.db', second);
    // What the old one lets go of is not the new one's.
    old.close();
    await second.aset('y', 2);
    const value = of(await expectSameAsStats(registry, 'data.db', second), 'data.db');
    expect(value('writes_accepted_total')).toBe(1);
    expect(value('log_group_size_writes_count')).toBe(1);
    metrics.close();
    createMetrics(second, { registry }).close();
    expect((await scrape(registry)).samples.size).toBe(0);
  });

  test('the same database twice counts once, and a cleared registry can be used again', async () => {
    const db = await openTemp();
    const registry = new Registry();
    const listening = vi.spyOn(db, 'on');
    const gone = vi.spyOn(db, 'off');
    createMetrics(db, { registry });
    await db.aset('x', 1);
    const again = createMetrics(db, { registry });
    await db.aset('y', 1);
    expect(of(await scrape(registry), 'data.db')('log_group_size_writes_sum')).toBe(2);
    registry.clear();
    const fresh = createMetrics(db, { registry });
    again.close();
    await expectSameAsStats(registry, 'data.db', db);
    fresh.close();
    expect(listening).toHaveBeenCalled();
    expect(gone).toHaveBeenCalledTimes(listening.mock.calls.length);
  });

  test('a database that closes while scrapes run breaks none of them', async () => {
    const db = await open(join(tempDir(), 'data.db'), { flush: { mode: 'manual' } });
    const { registry, close } = createMetrics(db);
    for (let i = 0; i < 20_000; i++) db.set(`key ${i}`, i);
    const closing = db.close();
    let scrapes = 0;
    while (db.state !== 'closed' && scrapes < 10_000) {
      const text = registry.metrics();
      if (scrapes++ % 3 === 0) createMetrics(db, { registry, db: 'second' }).close();
      const found = read(await text);
      const value = of(found, 'data.db');
      expect(isConserved(found, { db: 'data.db' })).toBe(true);
      expect(value('state', { state: 'closing' })).toBe(1);
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    expect(scrapes).toBeGreaterThan(1);
    await closing;
    expect((await scrape(registry)).samples.size).toBe(0);
    close();
    expect(db.stats()).toMatchObject({ state: 'closed', applied: 20_000 });
  });

  test('two scrapes of one turn, and the write between them', async () => {
    const db = await openTemp();
    const { registry, close } = createMetrics(db);
    onTestFinished(close);
    const before = registry.metrics();
    db.set('key', 1);
    const after = registry.metrics();
    expect(of(read(await before), 'data.db')('writes_accepted_total')).toBe(0);
    expect(of(read(await after), 'data.db')('writes_accepted_total', { op: 'put' })).toBe(1);
  });

  test('metrics of the process come once, and only when asked for', async () => {
    const registry = new Registry();
    const [a, b] = [await openTemp('a.db'), await openTemp('b.db')];
    createMetrics(a, { registry });
    expect(await registry.metrics()).not.toContain('process_cpu');
    createMetrics(a, { registry, processMetrics: true });
    createMetrics(b, { registry, processMetrics: true });
    expect(await registry.metrics()).toContain('process_cpu_seconds_total');
  });

  test('options are checked, and a name that is taken is said to be', async () => {
    const db = await openTemp();
    const wrong = { regsitry: new Registry(), db: '', registry: {} };
    expect(() => createMetrics(db, wrong as never)).toThrow(
      expect.objectContaining({ code: 'SLUICE_INVALID_OPTION', problems: expect.objectContaining({ length: 3 }) }),
    );
    const registry = new Registry();
    new Counter({ name: 'sluice_flushes_total', help: 'of somebody else', registers: [registry] });
    expect(() => createMetrics(db, { registry })).toThrow(
      expect.objectContaining({ code: 'SLUICE_INVALID_OPTION', message: expect.stringContaining('sluice_flushes') }),
    );
    expect(registry.getMetricsAsArray()).toHaveLength(1);
  });
});
