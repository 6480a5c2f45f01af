import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { median } from './summary.ts';

/** What the frame of one small write takes in the log. */
export const FRAME_BYTES = 180;

export function writeAndSync(file: number, bytes: Buffer, position: number): void {
  writeSync(file, bytes, 0, bytes.length, position);
  fdatasyncSync(file);
}

/** How long this disk takes to write and sync a frame, in microseconds. */
export function diskSyncUs(): number {
  const path = join(tmpdir(), `sluice-bench-disk-${process.pid}`);
  const file = openSync(path, 'w');
  try {
    const bytes = Buffer.alloc(FRAME_BYTES, 'x');
    const us = Array.from({ length: 500 }, (_, i) => {
      const start = performance.now();
      writeAndSync(file, bytes, i * FRAME_BYTES);
      return (performance.now() - start) * 1_000;
    });
    return median(us);
  } finally {
    closeSync(file);
    rmSync(path);
  }
}
