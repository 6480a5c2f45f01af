import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const ROOT = join(import.meta.dirname, '../..');
const run = promisify(execFile);

/** A short one of what `npm run soak -- --minutes 10` does: that it runs, survives its own troubles, and finds nothing. */
it('a soak of a quarter of a minute loses nothing, doubles nothing and holds on to nothing', async () => {
  await run(process.execPath, [
    join(ROOT, 'node_modules/typescript/bin/tsc'),
    '-p',
    join(ROOT, 'test/tsconfig.programs.json'),
  ]);
  const seed = process.env['SLUICE_SEED'] as string;
  const args = [join(ROOT, 'build/soak/main.js'), '--minutes', '0.25', '--seed', seed];
  // One that hangs must not outlive the test.
  const ended = await run(process.execPath, args, { timeout: 220_000, killSignal: 'SIGKILL' }).then(
    ({ stdout, stderr }) => ({ code: 0, text: stderr + stdout }),
    ({ code, stdout, stderr }: { code: number | null; stdout: string; stderr: string }) => ({
      code,
      text: stderr + stdout,
    }),
  );
  console.log(ended.text);
  expect(ended.code).toBe(0);
  expect(ended.text).toContain('Nothing was lost');
}, 240_000);
