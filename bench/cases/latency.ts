import * as fs from 'node:fs';
import { join } from 'node:path';
import type { Case, Contestant } from '../contest.ts';
import { FRAME_BYTES, writeAndSync } from '../disk.ts';
import { classicLevel } from '../drivers/classic-level.ts';
import { lmdb } from '../drivers/lmdb.ts';
import { rawLoop } from '../drivers/raw-sqlite.ts';
import { sluice } from '../drivers/sluice.ts';
import { latencies } from '../host.ts';
import { uniqueObjects } from '../workload.ts';
import { producing, timed } from './producing.ts';

const workload = uniqueObjects(2_000);

/** The machine itself, which writes and syncs as many bytes at the end of a file. */
function disk(name: string, write: (file: number, bytes: Buffer, position: number) => unknown): Contestant {
  return {
    name,
    durability: 'on disk',
    async start() {
      return async (scratch) => {
        const file = fs.openSync(join(scratch, 'bytes'), 'w');
        const bytes = Buffer.alloc(FRAME_BYTES, 'x');
        const us = new Float64Array(workload.writes);
        await timed(us, 1, (i) => write(file, bytes, i * FRAME_BYTES));
        fs.closeSync(file);
        return { writes: workload.writes, ...latencies(us) };
      };
    },
  };
}

function callbacks(file: number, bytes: Buffer, position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    fs.write(file, bytes, 0, bytes.length, position, (failed) => {
      if (failed) return reject(failed);
      fs.fdatasync(file, (error) => (error ? reject(error) : resolve()));
    });
  });
}

export const latencyCase: Case = {
  name: 'latency',
  title: '2,000 writes, each awaited before the next',
  rounds: 5,
  contestants: [
    producing(sluice('sync'), workload, 1),
    disk('write+fdatasync', writeAndSync),
    disk('write+fdatasync, callbacks', callbacks),
    ...[lmdb('flushed'), classicLevel(true), rawLoop(1)].map((driver) => producing(driver, workload, 1)),
  ],
};
