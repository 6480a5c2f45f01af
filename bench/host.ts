import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Figures } from './contest.ts';

/** How many writes the host makes before it lets its event loop turn. */
export const WRITES_PER_TURN = 1_000;

/**
 * A host that writes `count` times, and lets its event loop turn every {@link WRITES_PER_TURN} writes, as a server that reads
 * from sockets does. `write` makes the writes from one number up to another, `acknowledged` waits until all are safe.
 */
export async function host(
  count: number,
  write: (from: number, to: number) => void | Promise<void>,
  acknowledged: () => Promise<unknown> | undefined,
): Promise<{ readonly start: number; readonly figures: Figures }> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const cpu = process.cpuUsage();
  const start = performance.now();
  for (let i = 0; i < count; i += WRITES_PER_TURN) {
    await write(i, Math.min(i + WRITES_PER_TURN, count));
    await nextTurn();
  }
  await acknowledged();
  const ms = performance.now() - start;
  // The sample of a turn that was long is taken when the turn is over.
  await nextTurn();
  delay.disable();
  const { user, system } = process.cpuUsage(cpu);
  return {
    start,
    figures: {
      acknowledgedPerSecond: (count / ms) * 1_000,
      cpuUsPerWrite: (user + system) / count,
      delayP99Ms: delay.percentile(99) / 1e6,
      delayMaxMs: delay.max / 1e6,
    },
  };
}

/** Runs once so many times a second, from `start` (of `performance.now()`) until now. */
export function perSecondSince(start: number, count: number): number {
  return (count / (performance.now() - start)) * 1_000;
}

/** Times of single operations, in microseconds. */
export function latencies(us: Float64Array): Figures {
  const sorted = us.toSorted();
  return {
    p50Us: sorted[Math.floor(sorted.length * 0.5)] as number,
    p99Us: sorted[Math.floor(sorted.length * 0.99)] as number,
  };
}
