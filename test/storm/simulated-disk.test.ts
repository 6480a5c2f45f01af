import * as fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import type { Durability } from '../../dist/engine/index.js';
import type { Fault } from '../support/disk-faults.ts';
import { assertOnEveryPath } from '../support/every-path.ts';
import { MemoryFileSystem } from '../support/memory-file-system.ts';
import { type DiskOperation, PROCESS_CRASH, SURVIVALS } from '../support/power-loss.ts';
import { randomFrom } from '../support/seed.ts';
import { Life, type LifeOptions, type Note } from '../support/simulated-life.ts';
import { SimulatedStore, type StoreState } from '../support/simulated-store.ts';
import { type Crash, contentsOf, diskOf, explore, type Ground, hit, LEVELS, paths, states } from '../support/storm.ts';
import type { Write } from '../support/writes.ts';

const FACTOR = Number(process.env['SLUICE_STORM'] ?? 1);
/** So many states after a power cut are looked at. Where no log is kept there is less to see, and each costs more. */
const statesAt = (level: Durability) => (level === 'memory' ? 5_000 : 20_000) * FACTOR;
const ROUNDS = Math.ceil(40 * FACTOR);
const RUNS = 30;
const LIMIT_MS = 120_000 * Math.max(1, FACTOR);

/** One thing to do. A write says how large it is; what it says besides is told by its number. */
type Act =
  | {
      readonly kind: 'put' | 'delete' | 'clear' | 'row' | 'poison' | 'sql' | 'group' | 'poisonGroup';
      readonly size: number;
    }
  | { readonly kind: 'acknowledgement' | 'barrier' | 'settle' | 'seal' }
  | { readonly kind: 'wait'; readonly ms: number }
  | { readonly kind: 'short'; readonly bytes: number }
  | { readonly kind: 'trouble'; readonly when: 'before' | 'after' };

const size = fc.oneof({ weight: 6, arbitrary: fc.nat(60) }, { weight: 2, arbitrary: fc.nat(900) }, fc.constant(6_000));
const act: fc.Arbitrary<Act> = fc.oneof(
  {
    weight: 9,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        'put',
        'put',
        'put',
        'row',
        'row',
        'delete',
        'group',
        'sql',
        'clear',
        'poison',
        'poisonGroup',
      ),
      size,
    }),
  },
  { weight: 6, arbitrary: fc.record({ kind: fc.constantFrom('acknowledgement', 'acknowledgement', 'settle') }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('barrier', 'seal') }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('wait'), ms: fc.constantFrom(1, 7, 20, 60, 700) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('short'), bytes: fc.integer({ min: 1, max: 90 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('trouble'), when: fc.constantFrom('before', 'after') }) },
) as fc.Arbitrary<Act>;

const fault: fc.Arbitrary<Fault> = fc.record({
  operation: fc.constantFrom('create', 'write', 'datasync', 'datasync', 'syncDirectory', 'truncate', 'unlink', 'close'),
  nth: fc.nat(4),
  code: fc.constantFrom('EIO', 'EIO', 'ENOSPC', 'EDQUOT', 'EROFS', 'EMFILE', 'EACCES'),
  sticky: fc.boolean(),
});

const life = fc.record({
  acts: fc.array(act, { minLength: 5, maxLength: 26, size: 'max' }),
  mode: fc.constantFrom('auto', 'immediate', 'count', 'time', 'manual', 'manual'),
  segmentBytes: fc.constantFrom(300, 1_000, 8_000, 1 << 20),
  logMaxBytes: fc.constantFrom(1 << 20, 1 << 20, 2_000),
  syncIntervalMs: fc.constantFrom(5, 50),
  slowMs: fc.constantFrom(0, 0, 3),
  faults: fc.oneof(fc.constant([]), fc.array(fault, { minLength: 1, maxLength: 3 })),
  /** Of the lives after the first one. */
  level: fc.oneof(fc.constant(undefined), fc.constantFrom(...LEVELS)),
  heldUp: fc.nat(4),
  lockedFor: fc.constantFrom(0, 0, 3, 8),
  /** How it goes on for the one after it. */
  at: fc.nat(),
  kill: fc.boolean(),
  restored: fc.oneof({ weight: 6, arbitrary: fc.constant(false) }, fc.constant(true)),
  closes: fc.oneof({ weight: 4, arbitrary: fc.constant(false) }, fc.constant(true)),
});
type Story = typeof life extends fc.Arbitrary<infer T> ? T : never;

function writeOf({ kind, size }: { kind: Act['kind']; size: number }, number: number): Write {
  const pad = 'x'.repeat(size);
  const row = (n: number) => ({ kind: 'append', table: 'events', sql: ROW_SQL, values: [number, n, pad] }) as const;
  const put = (key: string) => ({ kind: 'put', table: 'data', key, value: `${number} ${pad}` }) as const;
  switch (kind) {
    case 'put':
      return put(`k${size % 5}`);
    case 'delete':
      return { kind: 'delete', table: 'data', key: `k${size % 5}` };
    case 'clear':
      return { kind: 'clear', table: 'data' };
    case 'row':
      return row(number);
    case 'poison':
      return row(-number);
    case 'sql':
      return { kind: 'stage', table: null, sql: 'UPDATE tally SET n = n + 1', values: [] };
    case 'group':
      return { kind: 'group', members: [put('k0'), row(number), put(`k${number}`)] };
    default:
      return { kind: 'group', members: [row(number), row(-number)] };
  }
}

const ROW_SQL = 'INSERT INTO events (id, n, pad) VALUES (?, ?, ?)';

const EMPTY = SimulatedStore.empty();

/** Lives one life, to its end, and explores every crash that could have been in it. */
async function liveAndDie(
  story: Story,
  ground: Ground,
  before: readonly Write[],
  random: () => number,
  epoch: number,
): Promise<{ ground: Ground; writes: Write[] }> {
  const { acts, heldUp, lockedFor, at, kill, closes, ...rest } = story;
  const options = { ...rest, epoch } as LifeOptions;
  const fileSystem = new MemoryFileSystem(diskOf(ground));
  const store = new SimulatedStore(ground.store);
  store.heldUp = heldUp;
  store.lockedFor = lockedFor;
  if (ground.past.length > 0) hit('killThenPowerCut');
  const one = await Life.begin(fileSystem, store, options, before, random);
  if (ground.past.length > 0 && one.writes.length < ground.owed.kill) throw new Error('less than had been seen before');
  try {
    for (const each of acts) {
      await perform(each, one, store);
    }
    await one.end();
    await one.drain();
    if (closes) await one.close();
  } finally {
    store.end();
  }
  expect(one.broken).toEqual([]);
  const { history } = fileSystem;
  checkStore(history, one);
  tell(one, fileSystem);
  return explore(history, { ground, options, writes: one.writes }, random, {
    cuts: 3,
    next: crashOf(history, at, kill),
  });
}

/** Where the next life goes on; more often than not soon after a sync that failed, before the engine has made good for it. */
function crashOf(history: readonly DiskOperation[], at: number, kill: boolean): Crash {
  const failed = history.findIndex((each) => each.kind === 'sync' && each.failed === true);
  if (failed >= 0 && at % 3 > 0)
    return { at: Math.min(failed + (at % 7), history.length - 1), survival: PROCESS_CRASH };
  const survival = kill ? PROCESS_CRASH : SURVIVALS[at % SURVIVALS.length];
  return { at: at % history.length, survival: survival ?? PROCESS_CRASH };
}

async function perform(each: Act, one: Life, store: SimulatedStore): Promise<void> {
  switch (each.kind) {
    case 'acknowledgement':
      return one.acknowledgement();
    case 'barrier':
      return one.barrier();
    case 'settle':
      return one.settle();
    case 'seal':
      return one.engine.seal();
    case 'wait':
      return one.wait(each.ms);
    case 'short':
      return one.shortWrite(each.bytes);
    case 'trouble':
      store.trouble = each.when;
      return;
    default:
      return one.write(writeOf(each, one.writes.length + 1));
  }
}

/** Every commit holds the writes up to its watermark, each once, and the dead ones of them in the queue. */
function checkStore(history: readonly DiskOperation[], one: Life): void {
  const seen = new Set<StoreState>();
  for (const operation of history) {
    if (operation.kind !== 'mark' || (operation.note as Note).what !== 'commit') continue;
    const { state } = operation.note as Extract<Note, { what: 'commit' }>;
    if (seen.has(state)) continue;
    seen.add(state);
    expect(state.contents).toEqual(contentsOf(one.writes, state.appliedSeq));
    if (state.contents.dead.length > 0) hit('deadLetter');
  }
}

function tell(one: Life, { operations }: MemoryFileSystem): void {
  hit('rotation', Math.max(0, operations.filter(({ name }) => name === 'create').length - 1));
  hit('shortWrite', one.counted.shortWrites);
  hit('logFull', one.counted.logFull);
  if (one.failed) hit('engineFailed');
  for (const { operation, code } of one.fired) {
    if (operation === 'datasync') hit('failedSync');
    if (code === 'ENOSPC') hit('noSpace');
    if (operation === 'create' || operation === 'syncDirectory') hit('faultInRotation');
  }
}

function lives(level: Durability, atLeast = 1) {
  return fc.asyncProperty(fc.array(life, { minLength: atLeast, maxLength: 3 }), fc.nat(), async (stories, salt) => {
    const random = randomFrom(salt);
    const start = { state: EMPTY, synced: undefined };
    let ground: Ground = { image: undefined, past: [], store: start, owed: { power: 0, kill: 0, applied: 0 } };
    let writes: Write[] = [];
    let epoch = 1;
    for (const [i, story] of stories.entries()) {
      if (i > 0 && story.restored) {
        epoch++;
        ({ ground, writes } = restored(ground, writes));
      }
      const found = await liveAndDie(
        { ...story, level: (i === 0 ? undefined : story.level) ?? level },
        ground,
        writes,
        random,
        epoch,
      );
      ({ ground, writes } = found);
    }
  });
}

/** Somebody has put other data in the place of the database, here a copy of it: the log is not for that. */
function restored(ground: Ground, writes: readonly Write[]): { ground: Ground; writes: Write[] } {
  const { appliedSeq } = ground.store.state;
  const owed = { power: appliedSeq, kill: appliedSeq, applied: appliedSeq };
  const store = { state: ground.store.state, synced: undefined };
  return { ground: { ...ground, store, owed }, writes: writes.slice(0, appliedSeq) };
}

afterAll(() => {
  console.log(`power cuts and deaths of the process: ${JSON.stringify(states)}`);
});

/**
 * Random lives of the real engine on a simulated disk, over the real applier. The power goes after each operation of each, in
 * several ways, and the process dies there; what is left is recovered, with power cuts in the recovery and in the one after
 * it, and held against what had been promised. From one of these states the next life goes on.
 *
 * `SLUICE_STORM=10` looks at ten times as many states.
 */
describe('a simulated disk', () => {
  test.each(LEVELS)(
    'loses nothing that was promised, whenever the power goes: %s',
    async (level) => {
      const seed = fc.readConfigureGlobal().seed ?? 0;
      for (let round = 0; round < ROUNDS && states[level].power < statesAt(level); round++) {
        try {
          await fc.assert(lives(level), { numRuns: RUNS, seed: seed + round });
        } catch (error) {
          const command = `SLUICE_SEED=${seed + round} npx vitest run test/storm/simulated-disk.test.ts -t ${level}`;
          throw new Error(`reproduce with: ${command}\n${(error as Error).message}`, { cause: error });
        }
      }
      expect(states[level].power).toBeGreaterThanOrEqual(statesAt(level));
    },
    LIMIT_MS,
  );

  test('has been in all its rare corners', async () => {
    await assertOnEveryPath(lives('sync', 3), { numRuns: RUNS }, paths);
  });
});
