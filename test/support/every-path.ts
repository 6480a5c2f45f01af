import * as fc from 'fast-check';
import { expect } from 'vitest';

/** What one seed in a hundred leaves out, five in a row do not. */
const ROUNDS = 5;

/**
 * Checks a property, and that each rare path it counts in `tally` was hit: with the seed of the run, and with the ones after
 * it as long as a path is missing. Every round has to hold; only what chance left out gets another.
 */
export async function assertOnEveryPath<Ts>(
  property: fc.IAsyncProperty<Ts>,
  parameters: fc.Parameters<Ts>,
  tally: Readonly<Record<string, number>>,
): Promise<void> {
  const seed = fc.readConfigureGlobal().seed ?? 0;
  for (let round = 0; round < ROUNDS; round++) {
    await fc.assert(property, { ...parameters, seed: seed + round });
    if (Object.values(tally).every((count) => count > 0)) break;
  }
  console.log(JSON.stringify(tally));
  for (const [path, count] of Object.entries(tally)) expect(count, path).toBeGreaterThan(0);
}
