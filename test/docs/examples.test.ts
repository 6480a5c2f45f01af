import { execFile } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { tempDir } from '../support/temp-dir.ts';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));

interface Example {
  readonly name: string;
  readonly code: string;
  /** What the comments behind `console.log(…)` say is printed. */
  readonly output: readonly string[];
}

/** All ```ts examples in the doc comments of src/. */
function examples(): Example[] {
  const files = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.ts'),
  );
  return files.flatMap((file) => {
    const source = readFileSync(join(root, 'src', file), 'utf8');
    return [...source.matchAll(/^[ \t]*\* ```ts\n([\s\S]*?)^[ \t]*\* ```$/gm)].map(([, block = ''], i) => {
      const code = block.replaceAll(/^[ \t]*\* ?/gm, '');
      const output = [...code.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)].map(([, text = '']) => text);
      return { name: `${file.replaceAll(/[\\/]/g, '-').replace(/\.ts$/, '')}-${i + 1}`, code, output };
    });
  });
}

/** A project in which the package is installed, with the examples in it as they are. */
function project(found: readonly Example[]): string {
  const folder = tempDir();
  mkdirSync(join(folder, 'node_modules'));
  symlinkSync(root, join(folder, 'node_modules', 'sluicedb'));
  // What the pages show together with it.
  for (const name of ['@types', '@opentelemetry', 'express', 'fastify', 'pino']) {
    symlinkSync(join(root, 'node_modules', name), join(folder, 'node_modules', name));
  }
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        strict: true,
        module: 'nodenext',
        target: 'es2023',
        lib: ['es2023', 'esnext.disposable'],
        types: ['node'],
        outDir: 'out',
        rootDir: '.',
      },
      include: ['*.ts'],
    }),
  );
  for (const { name, code } of found) writeFileSync(join(folder, `${name}.ts`), code);
  return folder;
}

test('every example in a doc comment type checks, runs, and prints what it says', async () => {
  const found = examples();
  expect(found.length).toBeGreaterThanOrEqual(5);
  expect(found.filter(({ output }) => output.length > 0).length).toBeGreaterThanOrEqual(3);
  const folder = project(found);
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  await run(process.execPath, [tsc, '-p', folder]).catch((error: { stdout: string }) => {
    throw new Error(`examples do not type check:\n${error.stdout}`);
  });
  for (const { name, output } of found) {
    const { stdout, stderr } = await run(
      process.execPath,
      ['--unhandled-rejections=strict', join(folder, 'out', `${name}.js`)],
      {
        timeout: 20_000,
      },
    );
    expect(stderr, name).toBe('');
    expectOutput(stdout, output, name);
  }
});

for (const page of ['README.md', 'docs/dead-letters.md', 'docs/diagnostics.md', 'docs/hooks.md', 'docs/metrics.md']) {
  test(`every program in ${page} runs as it stands`, async () => {
    const text = readFileSync(join(root, page), 'utf8');
    const programs = [...text.matchAll(/^```js\n([\s\S]*?)^```$/gm)].map(([, code = '']) => code);
    expect(programs.length).toBeGreaterThanOrEqual(1);
    const folder = project([]);
    for (const [i, code] of programs.entries()) {
      const file = join(folder, `program-${i}.mjs`);
      writeFileSync(file, code);
      const { stderr } = await run(process.execPath, ['--unhandled-rejections=strict', file], {
        cwd: folder,
        timeout: 20_000,
      });
      expect(stderr, code).toBe('');
    }
  });
}

/** `// … text …` stands for an output that has the text in it; anything else, line by line, for itself. */
function expectOutput(stdout: string, output: readonly string[], name: string): void {
  const [first] = output;
  if (first === undefined) return;
  const part = /^… (.*) …$/.exec(first)?.[1];
  if (part !== undefined) expect(stdout, name).toContain(part);
  else expect(stdout.trimEnd().split('\n'), name).toEqual(output);
}
