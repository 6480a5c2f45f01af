import { join } from 'node:path';
import { open } from 'sluicedb';
import { expect, test } from 'vitest';
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
