import { SluiceError } from 'sluicedb';
import { afterAll, describe, expect, test } from 'vitest';
import type { Durability } from '../../dist/engine/index.js';
import type { Fault } from '../support/disk-faults.ts';
import { MemoryFileSystem, type Operation } from '../support/memory-file-system.ts';
import { type DiskImage, PROCESS_CRASH, SURVIVALS } from '../support/power-loss.ts';
import { seededRandom } from '../support/seed.ts';
import { Life, type LifeOptions } from '../support/simulated-life.ts';
import { SimulatedStore } from '../support/simulated-store.ts';
import { diskOf, explore, type Ground } from '../support/storm.ts';
import type { Write } from '../support/writes.ts';

const OPTIONS: LifeOptions = {
  level: 'sync',
  mode: 'manual',
  segmentBytes: 700,
  logMaxBytes: 1 << 20,
  syncIntervalMs: 20,
  slowMs: 0,
  epoch: 1,
  faults: [],
  faultsAtOpen: true,
};
const EMPTY = SimulatedStore.empty();
const FRESH: Ground = {
  image: undefined,
  past: [],
  store: { state: EMPTY, synced: undefined },
  owed: { power: 0, kill: 0, applied: 0 },
};

/** Of each class that the codes of a disk have, and the ones that are named most. */
const CODES = ['EIO', 'ENOSPC', 'EDQUOT', 'EROFS', 'EMFILE', 'ENFILE', 'EACCES'] as const;

const random = seededRandom(13);
const told = { cases: 0, refusedToOpen: 0, failed: 0, rejected: 0, unharmed: 0 };

afterAll(() => console.log(JSON.stringify(told)));

function put(number: number): Write {
  return { kind: 'put', table: 'data', key: `k${number}`, value: 'x'.repeat(150) };
}

interface Past {
  readonly ground: Ground;
  readonly writes: readonly Write[];
}

/** A log of several segments with a torn tail, one of them applied, and a file that nothing came of. */
async function past(): Promise<Past> {
  const fileSystem = new MemoryFileSystem();
  const store = new SimulatedStore(FRESH.store);
  const one = await Life.begin(fileSystem, store, { ...OPTIONS, level: 'interval', faultsAtOpen: false }, [], random);
  for (let i = 1; i <= 12; i++) {
    one.write(put(i));
    one.acknowledgement();
    await one.settle();
    if (i === 6) one.barrier();
    if (i === 9) await one.wait(50);
  }
  store.end();
  const image = fileSystem.imageAfterPowerCut({ data: 'all', names: 'all' }, random);
  const [last] = [...image.files.keys()].sort().slice(-1);
  const torn = new Map([...image.files].map(([path, bytes]) => [path, path === last ? bytes.subarray(0, -3) : bytes]));
  torn.set('/log/0000000099.log', Buffer.alloc(0));
  const owed = { power: 11, kill: 11, applied: store.state.appliedSeq };
  const ground = {
    image: { files: torn, directories: image.directories } as DiskImage,
    past: [],
    store: { state: store.state, synced: undefined },
    owed,
  };
  return { ground, writes: one.writes.slice(0, 11) };
}

interface Outcome {
  readonly operations: readonly Operation[];
  readonly life: Life | undefined;
}

/** Opens, writes, flushes and closes with these faults; then the power goes, or the process dies, and the next one starts. */
async function live({ ground, writes }: Past, level: Durability, faults: readonly Fault[]): Promise<Outcome> {
  const options = { ...OPTIONS, level, faults };
  const fileSystem = new MemoryFileSystem(diskOf(ground));
  const store = new SimulatedStore(ground.store);
  let one: Life | undefined;
  try {
    one = await Life.begin(fileSystem, store, options, writes, random);
    for (let i = 0; i < 10; i++) {
      one.write(put(one.writes.length + 1));
      one.acknowledgement();
      await one.settle();
      if (i === 3) one.barrier();
      if (i % 4 === 2) await one.wait(25);
    }
    // The disk stays as it is: nobody may wait for ever all the same.
    await one.close();
    expect(one.broken).toEqual([]);
  } catch (error) {
    // What `open` makes of an error of the disk is not the business of a recovery.
    const { code } = error as { code?: string };
    expect(error instanceof SluiceError || (CODES as readonly string[]).includes(code ?? ''), String(error)).toBe(true);
    expect(one, String(error)).toBeUndefined();
  } finally {
    store.end();
  }
  const { history } = fileSystem;
  if (history.length === 0) fileSystem.record({ kind: 'mark', note: { what: 'time', at: 0 } });
  const at = history.length - 1;
  const survival =
    random() < 0.5 ? PROCESS_CRASH : (SURVIVALS[Math.floor(random() * SURVIVALS.length)] ?? PROCESS_CRASH);
  const life = { ground, options, writes: one?.writes ?? writes };
  const after = await explore(history, life, random, { cuts: 2, from: at, next: { at, survival } });

  const well = new MemoryFileSystem(diskOf(after.ground));
  const again = new SimulatedStore(after.ground.store);
  const next = await Life.begin(well, again, { ...OPTIONS, level }, after.writes, random);
  next.write(put(next.writes.length + 1));
  next.acknowledgement();
  await next.drain();
  expect(next.broken).toEqual([]);
  expect(again.state.appliedSeq).toBe(next.writes.length);
  expect(next.health.state).toBe('ok');
  again.end();
  return { operations: fileSystem.operations, life: one };
}

async function check(before: Past, level: Durability, fault: Fault): Promise<void> {
  const where = `${fault.code} of ${fault.operation} ${fault.nth}${fault.sticky ? ' and all after it' : ''} at '${level}'`;
  try {
    const { life } = await live(before, level, [fault]);
    told.cases++;
    if (life === undefined) told.refusedToOpen++;
    else if (life.failed) told.failed++;
    else if (life.counted.rejected > 0) told.rejected++;
    else told.unharmed++;
  } catch (error) {
    const command = `SLUICE_SEED=${process.env['SLUICE_SEED']} npx vitest run test/storm/disk-faults.test.ts`;
    throw new Error(`${where}, reproduce with: ${command}\n${(error as Error).message}`, { cause: error });
  }
}

describe.each(['sync', 'interval', 'os', 'applied'] as const)('at %s', (level) => {
  test('each operation of the disk fails, once or from then on: what was promised is there, and nobody waits for ever', async () => {
    for (const before of [{ ground: FRESH, writes: [] }, await past()]) {
      const { operations, life } = await live(before, level, []);
      expect(life?.counted.rejected).toBe(0);
      const counts = new Map<Operation['name'], number>();
      for (const { name } of operations) counts.set(name, (counts.get(name) ?? 0) + 1);
      for (const [operation, count] of counts) {
        for (let nth = 0; nth < count; nth++) {
          for (const sticky of [false, true]) {
            // Each code somewhere, and where the log does most, EIO and ENOSPC everywhere.
            const other = CODES[(nth * 2 + (sticky ? 1 : 0)) % CODES.length] ?? 'EROFS';
            const codes = level === 'sync' ? new Set(['EIO', 'ENOSPC', other]) : [other];
            for (const code of codes) await check(before, level, { operation, nth, code, sticky });
          }
        }
      }
    }
  });
});

test('every outcome was seen', () => {
  expect(told.cases).toBeGreaterThan(1_000);
  for (const [outcome, times] of Object.entries(told)) expect(times, outcome).toBeGreaterThan(0);
});
