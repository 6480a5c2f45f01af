import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pLimit from 'p-limit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { blocksIn, type CodeBlock, docComments, nameOf, outputProblem, PAGES, ROOT } from '../support/code-blocks.ts';

const run = promisify(execFile);

/** What the pages show together with the package. */
const BESIDE = ['@types', '@opentelemetry', 'arktype', 'express', 'fastify', 'kysely', 'pino', 'valibot', 'zod'];

const COMPILER = {
  strict: true,
  allowJs: true,
  checkJs: true,
  module: 'nodenext',
  target: 'es2023',
  lib: ['es2023', 'esnext.disposable'],
  types: ['node'],
  skipLibCheck: true,
  outDir: 'out',
  rootDir: '.',
};

const programs = [...docComments(), ...PAGES.flatMap(blocksIn).filter(({ language }) => /^(js|ts)$/.test(language))];
const fileOf = (program: CodeBlock): string => nameOf(program).replaceAll(/[^\w-]/g, '-');

/** Two of them could want the same port. */
const hasPort = ({ code }: CodeBlock): boolean => /port: [1-9]|listen\([1-9]/.test(code);

/** A project in which the package is installed, with the programs in it as they are. */
function makeProject(): string {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-test-'));
  for (const name of ['node_modules', 'out', 'runs']) mkdirSync(join(folder, name));
  symlinkSync(ROOT, join(folder, 'node_modules', 'sluicedb'));
  for (const name of BESIDE) symlinkSync(join(ROOT, 'node_modules', name), join(folder, 'node_modules', name));
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({ compilerOptions: COMPILER, include: ['*.ts', '*.js'] }),
  );
  for (const program of programs) {
    const name = `${fileOf(program)}.${program.language}`;
    writeFileSync(join(folder, program.flags.includes('untyped') ? 'out' : '.', name), program.code);
  }
  return folder;
}

describe('every program in README, docs and doc comments', () => {
  let folder = '';
  let compiled = '';
  const ended = new Map<CodeBlock, Promise<{ stdout: string; stderr: string }>>();

  beforeAll(async () => {
    folder = makeProject();
    const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
    await run(process.execPath, [tsc, '-p', folder]).catch(({ stdout }: { stdout: string }) => {
      compiled = stdout;
    });
    const several = pLimit(3);
    const alone = pLimit(1);
    for (const program of programs) {
      const start = () => {
        const cwd = join(folder, 'runs', fileOf(program));
        mkdirSync(cwd);
        const file = join(folder, 'out', `${fileOf(program)}.js`);
        return run(process.execPath, ['--unhandled-rejections=strict', file], { cwd, timeout: 20_000 });
      };
      const end = several(() => (hasPort(program) ? alone(start) : start()));
      end.catch(() => {
        // Its own test tells.
      });
      ended.set(program, end);
    }
  });

  afterAll(async () => {
    await Promise.allSettled(ended.values());
    rmSync(folder, { recursive: true, force: true });
  });

  test('type checks', () => {
    expect(compiled).toBe('');
  });

  test('is there to be run', () => {
    const onPages = programs.filter(({ page }) => page.endsWith('.md'));
    expect(programs.length - onPages.length).toBeGreaterThan(10);
    expect(onPages.length).toBeGreaterThan(10);
    expect(programs.filter(({ code }) => /console\.log\(.*\);? \/\/ /.test(code)).length).toBeGreaterThan(15);
    const untyped = programs.filter(({ flags }) => flags.length > 0);
    expect(untyped.filter(({ flags, language }) => language !== 'js' || `${flags}` !== 'untyped')).toEqual([]);
  });

  test.each(programs.map((program) => [nameOf(program), program] as const))(
    '%s runs as it stands, and prints what it says',
    async (_, program) => {
      const { stdout, stderr } = (await ended.get(program)) ?? { stdout: '', stderr: 'it did not start' };
      expect(stderr).toBe('');
      expect(outputProblem(program.code, stdout)).toBeUndefined();
    },
  );
});

describe('what is said to be printed', () => {
  test.each([
    ['console.log(1); // 1', '1\n', true],
    ['console.log(1); // 1', '2\n', false],
    ['console.log(1); // 1', '1\n2\n', false],
    ['console.log(1); // 1\nconsole.log(2);', '1\n2\n', true],
    ['console.log(1); // 1\nconsole.log(2);\nconsole.log(3); // 3', '1\n2\n3\n', true],
    ['console.log(1); // 1\nconsole.log(2);\nconsole.log(3); // 3', '3\n2\n1\n', false],
    ['console.log(a); // { a: 1, … }', '{\n  a: 1,\n  b: 2\n}\n', true],
    ['console.log(a); // { a: 1, … }', '{ a: 2, b: 2 }\n', false],
    ['console.log(a);', 'anything\n', true],
  ])('%s, and it is %j', (code, stdout, right) => {
    expect(outputProblem(code, stdout) === undefined).toBe(right);
  });
});
