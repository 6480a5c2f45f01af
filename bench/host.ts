/** The application that writes: how it takes turns with its event loop, and what it feels of the store. */
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import type { Figures } from './contest.ts';

/** How many writes the host makes before it lets its event loop turn. */
const WRITES_PER_TURN = 1_000;

/**
 * Writes `count` times, and lets the event loop turn every {@link WRITES_PER_TURN} writes, as a server that reads from sockets
 * does. `write` makes the writes from one number up to another.
 */
export async function inTurns(
  count: number,
  write: (from: number, to: number) => Promise<unknown> | undefined,
): Promise<void> {
  for (let i = 0; i < count; i += WRITES_PER_TURN) {
    await write(i, Math.min(i + WRITES_PER_TURN, count));
    await nextTurn();
  }
}

/** Longer than the resolution of the samples of the event loop. */
const SAMPLE_MS = 5;

/** Does the work, and tells how fast that was, what it has cost, and what the event loop has felt of it. */
export async function observed(writes: number, work: () => Promise<unknown>): Promise<Observed> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  await sleep(SAMPLE_MS);
  const cpu = process.cpuUsage();
  const start = performance.now();
  await work();
  const ms = performance.now() - start;
  const { user, system } = process.cpuUsage(cpu);
  // A sample is the time between two turns: even work that is one long turn has one before it and one after it.
  await sleep(SAMPLE_MS);
  delay.disable();
  return {
    start,
    perSecond: (writes / ms) * 1_000,
    felt: {
      cpuUsEach: (user + system) / writes,
      delayP99Ms: delay.percentile(99) / 1e6,
      delayMaxMs: delay.max / 1e6,
    },
  };
}

export interface Observed {
  /** When it began, by `performance.now()`. */
  readonly start: number;
  readonly perSecond: number;
  readonly felt: Figures;
}

/** How often a second, from `start` (by `performance.now()`) until now. */
export function perSecondSince(start: number, count: number): number {
  return (count / (performance.now() - start)) * 1_000;
}

/** Of the times of single operations, in microseconds. */
export function latencies(us: Float64Array): Figures {
  const sorted = us.toSorted();
  return {
    p50Us: sorted[Math.floor(sorted.length * 0.5)] as number,
    p99Us: sorted[Math.floor(sorted.length * 0.99)] as number,
  };
}
