import { expect, test } from 'vitest';
import { frameAt } from '../../dist/base/frame/index.js';
import { type Durability, Engine, Health, TableTarget } from '../../dist/engine/index.js';
import { AppendLog, Recovery } from '../../dist/engine/log/index.js';
import { SEGMENT_HEADER_BYTES, saltOf } from '../../dist/engine/log/segment.js';
import { Flusher } from '../../dist/flush/index.js';
import { FakeStore } from '../support/fake-store.ts';
import { HeldClock } from '../support/held-clock.ts';
import { LOG } from '../support/log-image.ts';
import { MemoryFileSystem } from '../support/memory-file-system.ts';
import { seededRandom } from '../support/seed.ts';

const CYCLES = 1_000;
const SEGMENT = 400;
const LEVELS: readonly Durability[] = ['os', 'interval', 'sync', 'applied'];

/** What a recount of the disk finds above a watermark. */
interface Recount {
  readonly files: number;
  readonly fileBytes: number;
  readonly writes: number;
  readonly frameBytes: number;
}

function recount(files: ReadonlyMap<string, Buffer>, appliedSeq: number): Recount {
  let [fileBytes, last, frameBytes] = [0, appliedSeq, 0];
  const segments = [...files].filter(([path]) => path.endsWith('.log')).sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [, bytes] of segments) {
    fileBytes += bytes.length;
    for (let offset = SEGMENT_HEADER_BYTES; ; ) {
      const frame = frameAt(bytes, offset, saltOf(bytes));
      if (frame === undefined) break;
      if (frame.lastSeq > last) {
        last = frame.lastSeq;
        frameBytes += frame.length;
      }
      offset += frame.length;
    }
  }
  return { files: segments.length, fileBytes, writes: last - appliedSeq, frameBytes };
}

function copyOf(store: FakeStore): FakeStore {
  const copy = new FakeStore();
  copy.appliedSeq = store.appliedSeq;
  for (const [key, value] of store.keys) copy.keys.set(key, value);
  return copy;
}

/** One life of a database: an engine with its log and its flush, on what the lives before have left. */
class Life {
  readonly fileSystem: MemoryFileSystem;
  readonly store: FakeStore;
  isAlive = true;
  readonly engine: Engine;
  readonly flusher: Flusher;
  readonly #log: AppendLog;
  readonly #target = new TableTarget('data');

  static async begin(fileSystem: MemoryFileSystem, left: FakeStore, durability: Durability): Promise<Life> {
    const appliedSeq = left.appliedSeq;
    const recovery = await Recovery.scan({ ...LOG, fileSystem, appliedSeq, policy: 'refuse', now: new Date(0) });
    await recovery.repair();
    const life = new Life(
      fileSystem,
      left,
      durability,
      new AppendLog({ ...LOG, fileSystem, segmentBytes: SEGMENT }, recovery.start),
    );
    for await (const frame of recovery.frames()) life.engine.adopt(frame);
    const found = recount(fileSystem.snapshot(), appliedSeq);
    life.engine.releaseLog();
    life.check(found);
    return life;
  }

  private constructor(fileSystem: MemoryFileSystem, left: FakeStore, durability: Durability, log: AppendLog) {
    this.fileSystem = fileSystem;
    this.#log = log;
    this.store = left;
    // It may die between a COMMIT and the answer.
    this.store.before = async (step) => {
      if (step === 'answer') for (let turns = 0; turns < 10; turns++) await Promise.resolve();
    };
    const emit = () => {};
    const env = { health: new Health(emit), clock: new HeldClock(), random: () => 0.5, emit };
    const admission = {
      maxBytes: 1 << 20,
      maxEntries: 1_000,
      highWaterRatio: 0.5,
      whenFull: 'block',
      maxBlockMs: 1_000,
      maxWaiting: 10,
    } as const;
    const options = { durability, syncIntervalMs: 5, admission, logMaxBytes: 1 << 20 };
    this.engine = new Engine(options, log, this.store.appliedSeq, env);
    this.flusher = new Flusher(
      this.engine,
      this.store.asStore,
      { mode: 'manual', intervalMs: 5, maxWrites: 3, maxBytes: 1 << 20 },
      env,
    );
  }

  put(key: string, value: string): void {
    this.engine.put(this.#target, key, value);
  }

  /** From here on nothing of it happens any more. What SQLite had then is returned. */
  die(): FakeStore {
    this.isAlive = false;
    this.fileSystem.before = () => new Promise(() => {});
    this.store.before = () => new Promise(() => {});
    return copyOf(this.store);
  }

  /** The numbers are those of the disk at the beginning, and add up at any time. */
  check(found?: Recount): void {
    const { engine } = this;
    const { recovered, applied, coalesced, deadLettered } = engine.counters;
    const accepted = Object.values(engine.accepted).reduce((total, count) => total + count, 0);
    expect(accepted + recovered).toBe(applied + coalesced + deadLettered + engine.pending);
    expect(engine.admission.entries).toBe(engine.pending);
    const gauges = [engine.pending, engine.admission.bytes, this.#log.bytes, this.#log.segments, engine.unsynced.bytes];
    for (const gauge of gauges) expect(gauge).toBeGreaterThanOrEqual(0);
    if (engine.pending === 0) expect(engine.admission.bytes).toBe(0);
    if (found === undefined) return;
    expect([recovered, engine.pending, engine.admission.bytes]).toEqual([found.writes, found.writes, found.frameBytes]);
    expect([this.#log.segments, this.#log.bytes]).toEqual([found.files, found.fileBytes]);
  }
}

test('[fault 66] after each of 1,000 crashes the counters are what a recount of the disk finds, never less than nothing', async () => {
  const random = seededRandom(66);
  const below = (limit: number) => Math.floor(random() * limit);
  const seen = { recovered: 0, lost: 0, segments: 0, midway: 0, applied: 0 };
  const history: [key: string, value: string][] = [];
  let disk = new MemoryFileSystem();
  let left = new FakeStore();
  let acknowledged = 0;
  for (let cycle = 0; cycle < CYCLES; cycle++) {
    const durability = LEVELS[below(LEVELS.length)] as Durability;
    const life = await Life.begin(disk, left, durability);
    const { engine, flusher } = life;
    expect(engine.lastSeq, `cycle ${cycle}`).toBeGreaterThanOrEqual(acknowledged);
    expect(engine.lastSeq, `cycle ${cycle}`).toBeLessThanOrEqual(history.length);
    if (engine.lastSeq < history.length) seen.lost++;
    if (engine.counters.recovered > 0) seen.recovered++;
    if (engine.log.segments > 1) seen.segments++;
    history.length = engine.lastSeq;
    for (let step = below(6); step > 0; step--) {
      for (let writes = below(4); writes > 0; writes--) {
        const write: [string, string] = [`k${below(5)}`, `${cycle}`.repeat(below(20))];
        life.put(...write);
        history.push(write);
      }
      const seq = engine.lastSeq;
      const answer =
        below(3) === 0 ? flusher.barrier('the test') : durability === 'applied' ? undefined : engine.acknowledgement();
      const noted = answer?.then(() => {
        if (life.isAlive) acknowledged = Math.max(acknowledged, seq);
      });
      if (below(2) === 0) await noted;
      else for (let turns = below(30); turns > 0; turns--) await Promise.resolve();
      life.check();
    }
    if (engine.pending > 0 && engine.appliedSeq < life.store.appliedSeq) seen.midway++;
    seen.applied += engine.counters.applied;
    left = life.die();
    // What was acknowledged as synced survives the loss of power too.
    disk = durability === 'sync' && below(2) === 0 ? life.fileSystem.afterPowerCut() : life.fileSystem.image();
  }
  const last = await Life.begin(disk, left, 'sync');
  history.length = last.engine.lastSeq;
  await last.flusher.barrier('the end');
  last.check();
  expect(last.engine.pending).toBe(0);
  expect([...last.store.keys].sort()).toEqual([...new Map(history)].sort());
  console.log(JSON.stringify(seen));
  for (const [path, count] of Object.entries(seen)) expect(count, path).toBeGreaterThan(10);
});
