import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { open } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { HeldClock } from '../support/held-clock.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

/** A source that has given all that it ever will, and does not say so. */
async function* endless(signal: AbortSignal, lines: readonly string[] = []): AsyncGenerator<string, void> {
  yield* lines;
  await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
}

test('an import that is given up on lets the next run go, though its source never ends', async () => {
  const db = await open(join(tempDir(), 'a.db'));
  const cleanup = new AbortController();
  try {
    const importing = db.dlq.import(endless(cleanup.signal), { timeoutMs: 50 });
    await expect(importing).rejects.toMatchObject({ code: 'SLUICE_TIMEOUT' });
    expect(await db.dlq.clear('all', { timeoutMs: 5_000 })).toBe(0);
  } finally {
    cleanup.abort();
    await db.close();
  }
});

test('no timer of the queue is left when a database is closed while entries that are too old are dropped', async () => {
  const clock = new HeldClock();
  const db = await openOn(machine({ clock }), join(tempDir(), 'a.db'), {
    dlq: { overflow: 'evict-oldest', maxAgeMs: 1_000 },
  });
  clock.advance(60_000);
  await db.close();
  for (let turn = 0; turn < 10; turn++) await setImmediate();
  expect(clock.timers).toBe(0);
});
