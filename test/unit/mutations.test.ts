import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { MUTATIONS } from '../mutations/table.ts';

const ROOT = join(import.meta.dirname, '../..');
const edits = MUTATIONS.flatMap((mutation) => mutation.edits);

test('each mutation of npm run mutations is one of the code as it is', () => {
  for (const { file, find } of edits)
    expect([find, readFileSync(join(ROOT, file), 'utf8').split(find).length]).toEqual([find, 2]);
});

/** What is called by name elsewhere, and taken out there. */
const INSIDE = [
  'src/engine/log/append-log.ts: await this.#options.fileSystem.syncDirectory(this.#options.directory);',
  'src/store/sqlite/copy/replacing.ts: fsyncSync(folder);',
];

test('each sync of a file or a folder is taken out by one of them', () => {
  const asks = /\.datasync\(\)|[.#]syncDirectory\(|\bsyncFolder\(|\bfsyncSync\(/;
  const missing: string[] = [];
  let syncs = 0;
  for (const name of readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })) {
    // The floor that the calls come down to.
    if (!name.endsWith('.ts') || name.startsWith('base/')) continue;
    for (const line of readFileSync(join(ROOT, 'src', name), 'utf8').split('\n')) {
      if (!asks.test(line) || /^ *(async #|function|\/\/|\*)/.test(line)) continue;
      syncs++;
      const isTakenOut = edits.some(({ file, find, replace }) => {
        const count = (text: string) => text.split(line.trim()).length;
        return file === join('src', name) && (count(find) > count(replace) || line.includes(find.trim()));
      });
      if (!isTakenOut) missing.push(`src/${name}: ${line.trim()}`);
    }
  }
  expect(missing).toEqual(INSIDE);
  expect(syncs).toBeGreaterThan(10);
});

test('the table in the docs is that of these mutations', () => {
  const text = readFileSync(join(ROOT, 'docs/durability.md'), 'utf8');
  const table = text.slice(text.indexOf('<!-- mutations: begin -->'), text.indexOf('<!-- mutations: end -->'));
  const rows = table.split('\n').filter((line) => line.startsWith('| '));
  expect(rows.slice(2).map((row) => row.split(' | ')[0]?.slice(2))).toEqual(MUTATIONS.map(({ without }) => without));
  expect(table).not.toContain('**nobody**');
});
