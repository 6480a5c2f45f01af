import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { systemClock } from '../../dist/base/clock.js';
import type { Frame } from '../../dist/base/frame/index.js';
import { GroupCommit, type LogDurability } from '../../dist/engine/group-commit.js';
import { type Durability, Engine, Health, TableTarget } from '../../dist/engine/index.js';
import { AppendLog } from '../../dist/engine/log/index.js';
import { Flusher, type FlushMode } from '../../dist/flush/index.js';
import { SluiceError } from '../../dist/index.js';
import { StoreFailure } from '../../dist/store/store.js';
import type { Fault } from '../support/disk-faults.ts';
import { FakeStore } from '../support/fake-store.ts';
import { FRESH, LOG, lastIn, numberedFrame } from '../support/log-image.ts';
import { MemoryFileSystem } from '../support/memory-file-system.ts';
import { fault, schedule, scheduledClock } from '../support/scheduled.ts';

type Action =
  | { readonly kind: 'write'; readonly writes: number }
  | { readonly kind: 'acknowledgement' | 'reached' | 'seal' | 'release' };

const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('write' as const), writes: fc.integer({ min: 1, max: 3 }) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        'acknowledgement' as const,
        'acknowledgement' as const,
        'reached' as const,
        'seal' as const,
        'release' as const,
      ),
    }),
  },
);
const script = fc.array(action, { minLength: 4, maxLength: 30, size: 'max' });
const durability = fc.constantFrom<LogDurability>('os', 'interval', 'sync');
const segmentBytes = fc.constantFrom(200, 500, 100_000);

/** What one acknowledgement said, and what would have been found if everything had stopped at that moment. */
interface Answer {
  readonly seq: number;
  readonly isGroup: boolean;
  readonly outcome: 'resolved' | 'rejected';
  readonly code: string | undefined;
  readonly image: MemoryFileSystem;
  readonly appliedSeq: number;
}

class Run {
  readonly scheduler: fc.Scheduler;
  readonly fileSystem = new MemoryFileSystem();
  readonly health: Health;
  readonly log: AppendLog;
  readonly commit: GroupCommit;
  readonly durability: LogDurability;
  readonly answers: Answer[] = [];
  readonly waiting = new Set<{ readonly seq: number }>();
  /** Of the waiters at the moment of a fault of the log, those whose writes had been handed to it. */
  readonly mustBeRejected = new Set<{ readonly seq: number }>();
  readonly rejected = new Set<{ readonly seq: number }>();
  readonly faults: Fault[] = [];
  lastSeq = 0;
  takenSeq = 0;
  appliedSeq = 0;
  #frames: Frame[] = [];

  constructor(scheduler: fc.Scheduler, level: LogDurability, limit: number, faults: readonly Fault[]) {
    this.scheduler = scheduler;
    this.durability = level;
    schedule(scheduler, this.fileSystem, faults, (found) => this.#onFault(found));
    this.log = new AppendLog({ ...LOG, fileSystem: this.fileSystem, segmentBytes: limit }, FRESH);
    const clock = scheduledClock(scheduler);
    const emit = () => {};
    this.health = new Health(emit);
    const source = { takeFrames: () => this.#takeFrames(), onLogChange: () => {} };
    const env = { health: this.health, clock, random: () => 0.5, emit };
    this.commit = new GroupCommit(this.log, source, { durability: level, syncIntervalMs: 5 }, 0, env);
    this.health.onFailed(() => this.commit.stop(new SluiceError('SLUICE_FAILED', 'failed')));
  }

  act(each: Action): void {
    switch (each.kind) {
      case 'write':
        if (this.health.state === 'failed') return;
        this.#frames.push(numberedFrame(this.lastSeq + 1, each.writes));
        this.lastSeq += each.writes;
        return this.commit.request();
      case 'acknowledgement':
        if (this.health.state !== 'failed') this.#expect(this.commit.acknowledgement(), true);
        return;
      case 'reached':
        if (this.health.state !== 'failed') this.#expect(this.commit.reached(this.lastSeq), false);
        return;
      case 'seal':
        return this.commit.seal();
      case 'release':
        // The store applies what is logged, and nothing else; it has made that durable.
        this.appliedSeq = this.commit.acknowledgedSeq;
        return this.commit.release(this.appliedSeq);
    }
  }

  /** All waiters told, the loop at rest. */
  async end(): Promise<void> {
    const closed = this.commit.close();
    closed.catch(() => {});
    await until(this.scheduler, closed);
  }

  #takeFrames(): Frame[] {
    const frames = this.#frames;
    this.#frames = [];
    this.takenSeq = frames.at(-1)?.lastSeq ?? this.takenSeq;
    return frames;
  }

  #expect(promise: Promise<void>, isGroup: boolean): void {
    const waiter = { seq: this.lastSeq };
    if (isGroup) this.waiting.add(waiter);
    const settled = (outcome: Answer['outcome'], code?: string) => {
      this.waiting.delete(waiter);
      if (outcome === 'rejected') this.rejected.add(waiter);
      const image = this.durability === 'sync' ? this.fileSystem.afterPowerCut() : this.fileSystem.image();
      this.answers.push({ seq: waiter.seq, isGroup, outcome, code, image, appliedSeq: this.appliedSeq });
    };
    promise.then(
      () => settled('resolved'),
      (error: { code: string }) => settled('rejected', error.code),
    );
  }

  #onFault(found: Fault): void {
    this.faults.push(found);
    if (found.operation !== 'write' && found.operation !== 'create') return;
    for (const waiter of this.waiting) if (waiter.seq <= this.takenSeq) this.mustBeRejected.add(waiter);
  }
}

/** Waits while the scheduler goes on. When it has nothing left to do and the promise is still open, somebody is forgotten. */
async function until(scheduler: fc.Scheduler, promise: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const stuck = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('nothing moves any more')), 5_000);
  });
  try {
    await Promise.race([scheduler.waitFor(promise), stuck]);
  } finally {
    clearTimeout(timer);
  }
}

async function check(run: Run): Promise<void> {
  for (const { seq, outcome, image, appliedSeq } of run.answers) {
    if (outcome === 'resolved') expect(await lastIn(image, appliedSeq)).toBeGreaterThanOrEqual(seq);
  }
  const resolved = run.answers
    .filter(({ outcome, isGroup }) => isGroup && outcome === 'resolved')
    .map(({ seq }) => seq);
  expect(resolved).toEqual([...resolved].sort((a, b) => a - b));
  expect(run.waiting.size).toBe(0);
  for (const waiter of run.mustBeRejected) expect(run.rejected.has(waiter)).toBe(true);
}

const tally = { rejected: 0, faults: 0, failed: 0, segments: 0, released: 0, repaired: 0 };

async function race(
  scheduler: fc.Scheduler,
  level: LogDurability,
  limit: number,
  actions: readonly Action[],
  faults: readonly Fault[],
): Promise<Run> {
  const run = new Run(scheduler, level, limit, faults);
  const { task } = scheduler.scheduleSequence(
    actions.map((each) => ({ label: each.kind, builder: async () => run.act(each) })),
  );
  await until(scheduler, task);
  // The engine asks nothing of a group commit that has failed.
  const left = () => (run.health.state === 'failed' ? Promise.resolve() : run.commit.reached(run.lastSeq));
  await until(
    scheduler,
    left().catch(() => {}),
  );
  tally.segments = Math.max(tally.segments, run.log.segments);
  await run.end();
  tally.faults += run.faults.length;
  tally.rejected += run.rejected.size;
  if (run.fileSystem.operations.some(({ name }) => name === 'unlink')) tally.released++;
  return run;
}

describe('the group commit', () => {
  test('acknowledges in order, and only what a crash at that moment would leave', async () => {
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), durability, segmentBytes, script, async (scheduler, level, limit, actions) => {
        const run = await race(scheduler, level, limit, actions, []);
        await check(run);
        expect(run.rejected.size).toBe(0);
        expect(run.health.state).toBe('ok');
        expect(await lastIn(run.fileSystem.afterPowerCut(), run.appliedSeq)).toBe(run.lastSeq);
      }),
      { numRuns: 300 },
    );
    expect(tally.segments).toBeGreaterThan(2);
    expect(tally.released).toBeGreaterThan(10);
  });

  test('survives one failure of any operation: its waiters are told, and its frames are written again', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        durability,
        segmentBytes,
        script,
        fault,
        async (scheduler, level, limit, actions, one) => {
          const run = await race(scheduler, level, limit, actions, [one]);
          await check(run);
          expect(run.health.state).not.toBe('failed');
          if (run.faults.length === 0) expect(run.rejected.size).toBe(0);
          for (const { outcome, code } of run.answers) if (outcome === 'rejected') expect(code).toBe('SLUICE_LOG_IO');
          if (run.rejected.size > 0) tally.repaired++;
          // Closed while it waited for the disk to have room; a disk that fails is answered all the same.
          if (run.health.state !== 'ok') {
            expect(one.code).not.toBe('EIO');
            return;
          }
          expect(await lastIn(run.fileSystem.image(), run.appliedSeq)).toBe(run.lastSeq);
          expect(await lastIn(run.fileSystem.afterPowerCut(), run.appliedSeq)).toBe(run.lastSeq);
        },
      ),
      { numRuns: 600 },
    );
    expect(tally.faults).toBeGreaterThan(100);
    expect(tally.repaired).toBeGreaterThan(20);
  });

  test('leaves a synced log, whichever moment it is closed in', async () => {
    for (let moment = 0; moment < 40; moment++) {
      const fileSystem = new MemoryFileSystem();
      const written = new Promise<void>((resolve) => {
        // After the frame, which is the second write, the disk is slow to sync: nothing may be closed under it.
        fileSystem.before = async ({ name }) => {
          const writes = fileSystem.operations.filter((operation) => operation.name === 'write').length;
          if (name === 'write' && writes === 2) resolve();
          if (name === 'datasync' && writes === 2) await new Promise((synced) => setImmediate(synced));
        };
      });
      const log = new AppendLog({ ...LOG, fileSystem, segmentBytes: 500 }, FRESH);
      const frames = [numberedFrame(1, 2)];
      const source = { takeFrames: () => frames.splice(0), onLogChange: () => {} };
      const emit = () => {};
      const health = new Health(emit);
      const env = { health, clock: systemClock, random: () => 0.5, emit };
      const commit = new GroupCommit(log, source, { durability: 'os', syncIntervalMs: 5 }, 0, env);
      commit.request();
      await written;
      for (let i = 0; i < moment; i++) await Promise.resolve();
      await commit.close();
      expect(await lastIn(fileSystem.afterPowerCut(), 0), `moment ${moment}`).toBe(2);
      expect(health.state).toBe('ok');
      expect(fileSystem.operations.at(-1)?.name).toBe('close');
    }
  });

  test('ends in the state failed, with everybody told, when the disk is broken for good', async () => {
    let failed = 0;
    const broken = fc.record({
      operation: fc.constantFrom('create' as const, 'write' as const, 'datasync' as const, 'syncDirectory' as const),
      nth: fc.nat(4),
      code: fc.constant('EIO'),
      sticky: fc.constant(true),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        durability,
        segmentBytes,
        script,
        broken,
        async (scheduler, level, limit, actions, one) => {
          const run = await race(scheduler, level, limit, actions, [one]);
          await check(run);
          if (run.health.state !== 'failed') return;
          failed++;
          for (const { outcome, code } of run.answers) {
            if (outcome === 'rejected') expect(['SLUICE_LOG_IO', 'SLUICE_FAILED']).toContain(code);
          }
        },
      ),
      { numRuns: 300 },
    );
    expect(failed).toBeGreaterThan(50);
  });
});

type EngineAction =
  | { readonly kind: 'put' | 'delete'; readonly key: string }
  | { readonly kind: 'clear' | 'seal' | 'barrier' | 'acknowledgement' | 'read' };

const engineAction: fc.Arbitrary<EngineAction> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom('put' as const, 'put' as const, 'delete' as const),
      key: fc.constantFrom('a', 'b', 'c'),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        'seal' as const,
        'barrier' as const,
        'acknowledgement' as const,
        'read' as const,
        'clear' as const,
      ),
    }),
  },
);

/** Engine, log and flush together, over a store that applies when the scheduler says so, and a model that is always right. */
class EngineRun {
  readonly fileSystem = new MemoryFileSystem();
  readonly store = new FakeStore();
  readonly health: Health;
  readonly engine: Engine;
  readonly flusher: Flusher;
  readonly model = new Map<string, string>();
  readonly target = new TableTarget('data');
  readonly checks: { readonly seq: number; readonly image: MemoryFileSystem; readonly appliedSeq: number }[] = [];
  readonly level: Durability;
  open = 0;
  faults = 0;
  refused = 0;
  /** Batches that were not in the log when they went down. */
  early = 0;
  #value = 0;

  constructor(
    scheduler: fc.Scheduler,
    level: Durability,
    limit: number,
    mode: FlushMode,
    faults: readonly Fault[],
    lost: number,
  ) {
    this.level = level;
    schedule(scheduler, this.fileSystem, faults, () => this.faults++);
    let steps = 0;
    this.store.before = async (step, { lastSeq }) => {
      if (lastSeq > (this.engine.commit?.acknowledgedSeq ?? lastSeq)) this.early++;
      await scheduler.schedule(Promise.resolve(), `store ${step}`);
      if (steps++ !== lost) return;
      this.refused++;
      throw new StoreFailure('transient', 'the thread died');
    };
    const emit = () => {};
    this.health = new Health(emit);
    const env = { health: this.health, clock: scheduledClock(scheduler), random: () => 0.5, emit };
    const log = new AppendLog({ ...LOG, fileSystem: this.fileSystem, segmentBytes: limit }, FRESH);
    const admission = {
      maxBytes: 1 << 20,
      maxEntries: 1000,
      highWaterRatio: 0.5,
      whenFull: 'block' as const,
      maxBlockMs: 1000,
      maxWaiting: 10,
    };
    const options = { durability: level, syncIntervalMs: 5, admission, logMaxBytes: 1 << 20 };
    this.engine = new Engine(options, log, 0, env);
    const flush = { mode, intervalMs: 5, maxWrites: 3, maxBytes: 1 << 20 };
    this.flusher = new Flusher(this.engine, this.store.asStore, flush, env);
  }

  act(each: EngineAction): void {
    switch (each.kind) {
      case 'put': {
        const value = String(++this.#value);
        this.engine.put(this.target, each.key, value);
        this.model.set(each.key, value);
        break;
      }
      case 'delete':
        this.engine.delete(this.target, each.key);
        this.model.delete(each.key);
        break;
      case 'clear':
        this.engine.clear(this.target);
        this.model.clear();
        break;
      case 'seal':
        this.engine.seal();
        break;
      case 'barrier':
        this.#expect(this.flusher.barrier('test'), true);
        break;
      case 'acknowledgement':
        this.#expect(this.engine.acknowledgement(), this.level === 'applied');
        break;
    }
    this.check();
  }

  /** Every read finds the newest write, wherever it is on its way; and the numbers add up. */
  check(): void {
    for (const key of ['a', 'b', 'c']) {
      const staged = this.engine.lookup(this.target, key);
      expect(staged === undefined ? this.store.keys.get(key) : (staged ?? undefined)).toBe(this.model.get(key));
    }
    const accepted = Object.values(this.engine.accepted).reduce((total, count) => total + count, 0);
    expect(accepted).toBe(this.engine.counters.applied + this.engine.pending);
  }

  #expect(promise: Promise<unknown>, isApplied: boolean): void {
    const seq = this.engine.lastSeq;
    this.open++;
    promise.then(
      () => {
        this.open--;
        const { appliedSeq } = this.store;
        if (isApplied) expect(appliedSeq).toBeGreaterThanOrEqual(seq);
        const image = this.level === 'sync' ? this.fileSystem.afterPowerCut() : this.fileSystem.image();
        if (this.level !== 'memory') this.checks.push({ seq, image, appliedSeq });
      },
      (error: { code: string }) => {
        this.open--;
        expect(error.code).toBe('SLUICE_LOG_IO');
        expect(this.faults).toBeGreaterThan(0);
      },
    );
  }
}

describe('engine and flush', () => {
  const level = fc.constantFrom<Durability>('memory', 'os', 'interval', 'sync', 'applied');
  const mode = fc.constantFrom<FlushMode>('auto', 'immediate', 'count', 'time', 'manual');
  const actions = fc.array(engineAction, { minLength: 4, maxLength: 30, size: 'max' });
  const counted = { refused: 0, faults: 0, checks: 0, applied: 0 };

  test.each([
    ['on a sound disk', fc.constant<Fault[]>([])],
    ['when the disk fails once', fc.tuple(fault)],
  ])('never lose a write, nor show an older one, nor acknowledge too early: %s', async (_, faults) => {
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        level,
        segmentBytes,
        mode,
        actions,
        faults,
        fc.nat(8),
        async (scheduler, durability, limit, flushMode, steps, given, lost) => {
          const run = new EngineRun(scheduler, durability, limit, flushMode, given, lost);
          const broken: unknown[] = [];
          const { task } = scheduler.scheduleSequence(
            steps.map((each) => ({
              label: each.kind,
              builder: async () => {
                try {
                  run.act(each);
                } catch (error) {
                  broken.push(error);
                }
              },
            })),
          );
          await until(scheduler, task);
          expect(broken).toEqual([]);
          run.engine.stopIntake();
          await until(scheduler, run.flusher.barrier('the end'));
          run.check();
          expect(run.store.keys).toEqual(run.model);
          expect(run.engine.pending).toBe(0);
          await until(scheduler, run.flusher.close());
          await until(scheduler, run.engine.close());
          expect(run.early).toBe(0);
          expect(run.open).toBe(0);
          expect(run.health.state).not.toBe('failed');
          for (const { seq, image, appliedSeq } of run.checks) {
            expect(await lastIn(image, appliedSeq)).toBeGreaterThanOrEqual(seq);
          }
          counted.refused += run.refused;
          counted.faults += run.faults;
          counted.checks += run.checks.length;
          counted.applied += run.store.appliedSeq;
        },
      ),
      { numRuns: 250 },
    );
    expect(counted.checks).toBeGreaterThan(100);
    expect(counted.applied).toBeGreaterThan(500);
    expect(counted.refused).toBeGreaterThan(50);
  });

  test('the disk did fail in between', () => {
    expect(counted.faults).toBeGreaterThan(50);
  });
});
