import { open } from 'sluicedb';
import { expect, test } from 'vitest';
import { systemClock } from '../../dist/base/clock.js';
import type { Frame } from '../../dist/base/frame/index.js';
import { GroupCommit } from '../../dist/engine/group-commit.js';
import { Engine, Health } from '../../dist/engine/index.js';
import type { AppendLog } from '../../dist/engine/log/index.js';
import { SqliteStore } from '../../dist/store/sqlite/index.js';
import { UNLIMITED } from '../support/applier.ts';
import { tempDir } from '../support/temp-dir.ts';

const emit = () => undefined;
const env = () => ({ health: new Health(emit), clock: systemClock, random: () => 0, emit });

test('a full log that cannot be made smaller does not keep close from ending', async () => {
  let seals = 0;
  const log = {
    bytes: 100,
    segments: 1,
    hasOpen: false,
    hasWaiting: false,
    hasUnsynced: false,
    append: () => undefined,
    write: async () => 0,
    // A loop without end would hang the run: let go of it after a while.
    seal: async () => {
      if (++seals === 50) log.bytes = 0;
    },
    release: async () => 0,
    close: async () => undefined,
  };
  const options = {
    durability: 'interval' as const,
    syncIntervalMs: 1_000,
    logMaxBytes: 10,
    admission: {
      maxBytes: 1_000,
      maxEntries: 10,
      highWaterRatio: 0.5,
      whenFull: 'block' as const,
      maxBlockMs: 1_000,
      maxWaiting: 1,
    },
  };
  const engine = new Engine(options, log as unknown as AppendLog, 0, env());
  await engine.close();
  expect(seals).toBeLessThan(3);
});

test('close syncs what came in while a sync was in flight', async () => {
  let waiting: Frame[] = [];
  let unsynced = 0;
  let syncs = 0;
  let endSync: (() => void) | undefined;
  const log = {
    get hasWaiting() {
      return waiting.length > 0;
    },
    get hasUnsynced() {
      return unsynced > 0;
    },
    append: (frames: Frame[]) => void waiting.push(...frames),
    write: async () => {
      unsynced += waiting.length;
      waiting = [];
      return 1;
    },
    sync: async () => {
      if (++syncs === 1) await new Promise<void>((resolve) => (endSync = resolve));
      unsynced = 0;
    },
    release: async () => 0,
    close: async () => undefined,
  };
  let next: Frame[] = [];
  const source = {
    takeFrames: () => {
      const frames = next;
      next = [];
      return frames;
    },
    onLogChange: () => undefined,
  };
  const commit = new GroupCommit(
    log as unknown as AppendLog,
    source,
    { durability: 'interval', syncIntervalMs: 1 },
    0,
    env(),
  );
  const write = (seq: number) => {
    next.push({ bytes: Buffer.alloc(1), firstSeq: seq, lastSeq: seq } as Frame);
    commit.request();
  };
  write(1);
  await expect.poll(() => endSync).toBeDefined();
  write(2);
  const closed = commit.close();
  endSync?.();
  await closed;
  expect(commit.acknowledgedSeq).toBe(2);
  expect(unsynced).toBe(0);
});

test('a closed store starts no thread again', async () => {
  const path = `${tempDir()}/a.db`;
  const { limits: queueLimits, breaker } = UNLIMITED;
  const store = await SqliteStore.open({ path, owner: 'me', readers: 1, queueLimits, breaker });
  await store.close();
  await expect(store.execute('CREATE TABLE late (a)', [])).rejects.toMatchObject({ code: 'SLUICE_CLOSED' });
  await expect(store.query('SELECT 1', [], {})).rejects.toMatchObject({ code: 'SLUICE_CLOSED' });
  await expect(store.getMany('data', ['a'])).rejects.toMatchObject({ code: 'SLUICE_CLOSED' });
});

test('deleting from a closed database says so, and opens nothing', async () => {
  const db = await open(':memory:');
  db.set('a', 1);
  await db.close();
  expect(() => db.delete('a')).toThrow(expect.objectContaining({ code: 'SLUICE_CLOSED' }));
  expect(() => db.deleteMany(['a'])).toThrow(expect.objectContaining({ code: 'SLUICE_CLOSED' }));
});
