import { execFile, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import Sqlite from 'better-sqlite3';
import { describe, expect, it } from 'vitest';
import { serve, sluice } from '../support/cli.ts';
import { eventually } from '../support/eventually.ts';
import { ask } from '../support/http.ts';
import { tempDir } from '../support/temp-dir.ts';

const run = promisify(execFile);
const hasCurl = spawnSync('curl', ['--version']).status === 0;

describe('what sluice serve says', () => {
  it.runIf(hasCurl)('the commands that it prints work when they are pasted, with a token too', async () => {
    for (const env of [{}, { SLUICE_TOKEN: 'correct-horse-battery' }]) {
      for (const flags of [[], ['--no-source']]) {
        const file = join(tempDir(), 'paste.db');
        const { stdout, url } = await serve([file, ...flags], env);
        const said = stdout();
        expect(said).toContain(url);
        expect(said).toContain(file);
        const [write = '', query = ''] = said.split('\n').filter((line) => line.trimStart().startsWith('curl'));
        const paste = async (line: string) => {
          const { stdout: text } = await run('bash', ['-c', line], { env: { ...process.env, ...env } });
          return JSON.parse(text) as { accepted?: number; rows?: unknown[] };
        };
        expect((await paste(write)).accepted).toBe(1);
        await eventually(async () => ((await paste(query)).rows?.length ?? 0) > 0, 'the query finds something');
      }
    }
  });

  it('npm start shows real data within seconds', async () => {
    const file = join(tempDir(), 'start.db');
    const { url } = await serve([file]);
    const applied = async () =>
      Number(/^sluice_writes_applied_total\{[^}]*\} (\d+)/m.exec((await ask(`${url}/metrics`)).text)?.[1]);
    await eventually(async () => (await applied()) > 0, 'writes are applied', 5_000);
    const db = new Sqlite(file, { readonly: true });
    const count = () => db.prepare('SELECT count(*) FROM cpu').pluck().get() as number;
    const [before, rows] = [await applied(), count()];
    await eventually(async () => (await applied()) > before && count() > rows, 'both rise', 5_000);
    db.close();
  });

  it('--version and --help answer, and a wrong flag is explained', async () => {
    const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8')) as {
      version: string;
    };
    expect((await sluice(['--version'])).stdout).toBe(`${version}\n`);
    for (const command of [[], ['serve'], ['ingest'], ['dlq'], ['dlq', 'list']]) {
      const { code, stdout } = await sluice([...command, '--help']);
      expect([code, stdout.startsWith('Usage: sluice')]).toEqual([0, true]);
    }
    for (const flags of [
      ['--prot', '1'],
      ['--port', 'x'],
      ['--port', '70000'],
      ['--durability', 'maybe'],
      ['--body-max-bytes', 'big'],
    ]) {
      const { code, stderr } = await sluice(['serve', ':memory:', ...flags]);
      expect([flags, code]).toEqual([flags, 1]);
      expect(stderr).not.toMatch(/\n\s+at /);
      expect(stderr).not.toBe('');
    }
  });
});
