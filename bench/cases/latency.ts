import * as fs from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { open } from 'sluicedb';
import type { Case, Contestant } from '../contest.ts';
import { classicLevel } from '../drivers/classic-level.ts';
import type { KeyValueDriver } from '../drivers/key-value.ts';
import { lmdb } from '../drivers/lmdb.ts';
import { rawLoop } from '../drivers/raw-sqlite.ts';
import { latencies } from '../host.ts';
import { uniqueObjects } from '../workload.ts';

const WRITES = 2_000;
const entryOf = uniqueObjects(WRITES);

async function timed(write: (i: number) => unknown): Promise<Float64Array> {
  const us = new Float64Array(WRITES);
  for (let i = 0; i < WRITES; i++) {
    const start = performance.now();
    await write(i);
    us[i] = (performance.now() - start) * 1_000;
  }
  return us;
}

const ours: Contestant = {
  name: 'sluice sync',
  durability: 'on disk',
  async start(folder) {
    return async () => {
      const db = await open(join(folder, 'sluice.db'));
      const us = await timed((i) => db.aset(...entryOf(i)));
      await db.close();
      return latencies(us);
    };
  },
};

function peer(driver: KeyValueDriver): Contestant {
  return {
    name: driver.name,
    durability: driver.durability,
    async start(folder) {
      return async () => {
        const store = await driver.open(folder);
        const us = await timed(async (i) => {
          await store.write(entryOf, i, i + 1);
          await store.acknowledged();
        });
        await store.close();
        return latencies(us);
      };
    },
  };
}

/** A frame with one of these writes has so many bytes. */
const FRAME_BYTES = 180;

/** The machine itself: `write` and `fdatasync` of as many bytes, at the end of a file. */
function disk(name: string, write: (file: number, bytes: Buffer, position: number) => unknown): Contestant {
  return {
    name,
    durability: 'on disk',
    async start(folder) {
      return async () => {
        const file = fs.openSync(join(folder, 'bytes'), 'w');
        const bytes = Buffer.alloc(FRAME_BYTES, 'x');
        const us = await timed((i) => write(file, bytes, i * FRAME_BYTES));
        fs.closeSync(file);
        return latencies(us);
      };
    },
  };
}

export const latencyCase: Case = {
  name: 'latency',
  title: `${WRITES} writes, each awaited before the next`,
  contestants: [
    ours,
    disk('write+fdatasync', (file, bytes, position) => {
      fs.writeSync(file, bytes, 0, bytes.length, position);
      fs.fdatasyncSync(file);
    }),
    disk(
      'write+fdatasync, callbacks',
      (file, bytes, position) =>
        new Promise<void>((resolve, reject) => {
          fs.write(file, bytes, 0, bytes.length, position, (failed) => {
            if (failed) return reject(failed);
            fs.fdatasync(file, (error) => (error ? reject(error) : resolve()));
          });
        }),
    ),
    peer(lmdb('flushed')),
    peer(classicLevel(true)),
    peer(rawLoop(1)),
  ],
};
