import type { Random } from './random.ts';

/**
 * How long to wait before attempt number `attempt` (1, 2, 3 …): doubling from `firstMs` up to `maxMs`, of which a
 * random half is taken away ("equal jitter"), so that waiters who failed together do not come back together.
 */
export function backoffMs(attempt: number, firstMs: number, maxMs: number, random: Random): number {
  const full = Math.min(maxMs, firstMs * 2 ** Math.min(attempt - 1, 30));
  return full / 2 + (full / 2) * random();
}
