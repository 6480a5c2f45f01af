import { execFile } from 'node:child_process';
import { cpSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { tempDir } from '../support/temp-dir.ts';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));

interface Source {
  readonly name: string;
  readonly text: string;
}

function sources(...folders: string[]): Source[] {
  return folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => ({ name: `${folder}/${name}`, text: readFileSync(join(root, folder, name), 'utf8') })),
  );
}

/** A line of a doc comment is an example, and may print. */
const isComment = (line: string) => /^\s*(\*|\/\/|\/\*)/.test(line);

function linesWith(pattern: RegExp, found: readonly Source[], { comments }: { comments: boolean }): string[] {
  return found.flatMap(({ name, text }) =>
    text
      .split('\n')
      .flatMap((line, i) =>
        pattern.test(line) && (comments || !isComment(line)) ? [`${name}:${i + 1}: ${line.trim()}`] : [],
      ),
  );
}

test('nothing but the command line and the collector writes to the console', () => {
  const library = sources('src').filter(({ name }) => !/^src\/(cli|server)\//.test(name));
  expect(library.length).toBeGreaterThan(40);
  expect(linesWith(/\bconsole\./, library, { comments: false })).toEqual([]);
});

test('no marker of unfinished work is left', () => {
  const markers = new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX', 'HA' + 'CK'].join('|')})\\b`);
  expect(linesWith(markers, sources('src', 'test', 'bench'), { comments: true })).toEqual([]);
});

test('the type checker is never told to look away, and no test is left out', () => {
  const directives = new RegExp(`@ts-(${'ignore'}|${'expect-error'}|${'nocheck'})`);
  expect(linesWith(directives, sources('src'), { comments: true })).toEqual([]);
  expect(linesWith(/:\s*any\b|\bas any\b|<any\b/, sources('src'), { comments: false })).toEqual([]);
  const leftOut = new RegExp(`\\b(test|it|describe)\\.(${'only'}|${'skip'}|${'todo'})\\b`);
  expect(linesWith(leftOut, sources('test'), { comments: false })).toEqual([]);
});

const depcruise = join(root, 'node_modules', '.bin', 'depcruise');

test('a folder imports only from lower floors, and never in a circle', async () => {
  const { stdout } = await run(depcruise, ['--config', '.dependency-cruiser.cjs', 'src'], {
    cwd: root,
    timeout: 60_000,
  });
  expect(stdout).toMatch(/no dependency violations found/);
});

test('the lint of the floors does find what is wrong', async () => {
  const folder = tempDir();
  for (const name of ['src', '.dependency-cruiser.cjs', 'package.json', 'tsconfig.json']) {
    cpSync(join(root, name), join(folder, name), { recursive: true });
  }
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  const wrong: Record<string, string> = {
    'src/base/upwards.ts': "export * from '../db/names.ts';",
    'src/engine/disk.ts': "import * as fs from 'node:fs';\nexport const read: unknown = fs.readFileSync;",
    'src/db/store.ts': "export * from '../store/sqlite/index.ts';",
    'src/db/sqlite.ts': "import Sqlite from 'better-sqlite3';\nexport const made: unknown = Sqlite;",
    'src/flush/a.ts': "export * from './b.ts';",
    'src/flush/b.ts': "export * from './a.ts';",
  };
  for (const [name, text] of Object.entries(wrong)) writeFileSync(join(folder, name), `${text}\n`);
  const { stdout } = (await run(depcruise, ['--config', '.dependency-cruiser.cjs', 'src'], {
    cwd: folder,
    timeout: 60_000,
  }).then(
    () => ({ stdout: 'nothing found' }),
    (error: unknown) => error,
  )) as { stdout: string };
  for (const rule of ['floor-0-base', 'engine-is-pure', 'store-is-an-interface', 'one-door-to-sqlite', 'no-circles']) {
    expect(stdout).toContain(rule);
  }
});
