import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { open } from 'sluicedb';
import { expect, onTestFinished, test } from 'vitest';
import { tempDir } from '../support/temp-dir.ts';

const DIST = join(import.meta.dirname, '../../dist');

test.each(['store/sqlite/copy/copy-process.js', 'store/sqlite/examine/examine-process.js', 'server/query-child.js'])(
  '%s ends where its parent goes while it starts',
  async (entry) => {
    const folder = tempDir();
    await (await open(join(folder, 'a.db'))).close();
    const child = fork(join(DIST, entry), [join(folder, 'a.db'), folder], { execArgv: [], stdio: 'ignore' });
    onTestFinished(() => {
      child.kill('SIGKILL');
    });
    const exited = once(child, 'exit', { signal: AbortSignal.timeout(20_000) });
    child.disconnect();
    expect(await exited).toEqual([null, 'SIGKILL']);
  },
  30_000,
);
