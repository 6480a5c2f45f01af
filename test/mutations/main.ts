/**
 * Takes one promise after the other out of the code and runs the tests that should miss it. A mutation that no test notices is
 * an exit code of 1: either the test is too weak, or the code not needed. Usage: npm run mutations [-- --only TEXT] [--write]
 */
import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Command } from 'commander';
import ts from 'typescript';
import { type Edit, MUTATIONS, type Mutation } from './table.ts';

const ROOT = join(import.meta.dirname, '../..');
const DOCUMENT = join(ROOT, 'docs/durability.md');
const [BEGIN, END] = ['<!-- mutations: begin -->', '<!-- mutations: end -->'];
const LIMIT_MS = 10 * 60_000;
const run = promisify(execFile);

const { only, write } = new Command('mutations')
  .option('--only <text>', 'those with this text in their description', '')
  .option('--write', 'put the table into docs/durability.md', false)
  .parse()
  .opts<{ only: string; write: boolean }>();

interface Outcome {
  readonly mutation: Mutation;
  /** The first test that failed; `undefined` if none did. */
  readonly noticedBy: string | undefined;
  readonly seconds: number;
}

interface JsonReport {
  readonly testResults: readonly {
    readonly name: string;
    readonly message: string;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly fullName: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

/** A copy of the project, whose build is changed. */
function copyProject(): string {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-mutations-'));
  for (const name of ['package.json', 'tsconfig.json', 'vitest.config.ts', 'dist', 'src', 'test', 'docs'])
    cpSync(join(ROOT, name), join(folder, name), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  return folder;
}

/** Changes the built file of a source file; returns what takes the change back. */
function apply(folder: string, file: string, edits: readonly Edit[]): () => void {
  let source = readFileSync(join(ROOT, file), 'utf8');
  for (const { find, replace } of edits) {
    if (source.split(find).length !== 2) throw new Error(`${file} has not exactly one: ${find}`);
    source = source.replace(find, () => replace);
  }
  const { config } = ts.readConfigFile(join(ROOT, 'tsconfig.json'), ts.sys.readFile);
  const { options } = ts.convertCompilerOptionsFromJson((config as { compilerOptions: object }).compilerOptions, ROOT);
  const { outputText } = ts.transpileModule(source, {
    // Of a single text the compiler cannot know that the package is one of ES modules.
    compilerOptions: { ...options, module: ts.ModuleKind.ESNext, isolatedDeclarations: false, declaration: false },
    fileName: file,
  });
  const built = join(folder, file.replace(/^src/, 'dist').replace(/\.ts$/, '.js'));
  const before = readFileSync(built);
  writeFileSync(built, outputText);
  return () => writeFileSync(built, before);
}

/** Runs tests in the copy; resolves to the first that failed. */
async function firstFailure(folder: string, tests: readonly string[]): Promise<string | undefined> {
  const report = join(folder, 'report.json');
  rmSync(report, { force: true });
  const args = [
    join(folder, 'node_modules/vitest/vitest.mjs'),
    'run',
    '--bail=1',
    '--reporter=json',
    `--outputFile=${report}`,
    ...tests,
  ];
  const green = await run(process.execPath, args, {
    cwd: folder,
    timeout: LIMIT_MS,
    killSignal: 'SIGKILL',
    maxBuffer: 1 << 28,
  }).then(
    () => true,
    () => false,
  );
  if (green) return undefined;
  if (!existsSync(report)) return 'the test run itself, which does not end';
  const { testResults } = JSON.parse(readFileSync(report, 'utf8')) as JsonReport;
  for (const { name, assertionResults, message } of testResults) {
    // What is running in another file then is cut off: it has failed too, without a reason.
    const failed = assertionResults.find(
      ({ status, failureMessages }) => status === 'failed' && failureMessages.length > 0,
    );
    const file = name.slice(folder.length + 1);
    if (failed !== undefined) {
      console.error(failed.failureMessages[0]);
      return `${file} › ${failed.fullName}`;
    }
    if (message !== '') return `${file}: ${message.split('\n')[0]}`;
  }
  return 'the test run itself';
}

async function tryOut(folder: string, mutation: Mutation): Promise<Outcome> {
  const from = performance.now();
  const files = new Set(mutation.edits.map(({ file }) => file));
  const undo = [...files].map((name) =>
    apply(
      folder,
      name,
      mutation.edits.filter(({ file }) => file === name),
    ),
  );
  try {
    // One file after the other, the one that is most likely to notice first.
    for (const test of mutation.tests) {
      const noticedBy = await firstFailure(folder, [test]);
      if (noticedBy !== undefined) return { mutation, noticedBy, seconds: (performance.now() - from) / 1_000 };
    }
    return { mutation, noticedBy: undefined, seconds: (performance.now() - from) / 1_000 };
  } finally {
    for (const back of undo) back();
  }
}

const cell = (text: string) => text.replaceAll('|', '\\|');

function tableOf(outcomes: readonly Outcome[]): string {
  const rows = outcomes.map(
    ({ mutation, noticedBy }) =>
      `| ${cell(mutation.without)} | ${cell(mutation.else)} | ${noticedBy === undefined ? '**nobody**' : `\`${cell(noticedBy)}\``} |`,
  );
  return ['| without | what comes of it | noticed first by |', '| --- | --- | --- |', ...rows].join('\n');
}

const chosen = MUTATIONS.filter(({ without }) => without.includes(only));
const folder = copyProject();
try {
  const tests = [...new Set(chosen.flatMap((mutation) => mutation.tests))];
  console.error(`${chosen.length} mutations. First the ${tests.length} files of tests on the code as it is …`);
  // Built as with a mutation, so that it is the mutation that makes a test red.
  for (const file of new Set(chosen.flatMap(({ edits }) => edits.map(({ file }) => file)))) apply(folder, file, []);
  const broken = await firstFailure(folder, tests);
  if (broken !== undefined) throw new Error(`red without any mutation: ${broken}`);
  const outcomes: Outcome[] = [];
  for (const mutation of chosen) {
    const outcome = await tryOut(folder, mutation);
    outcomes.push(outcome);
    console.error(
      `${outcomes.length}/${chosen.length} without ${mutation.without}: ${outcome.noticedBy ?? 'NOBODY NOTICED'} (${outcome.seconds.toFixed(0)} s)`,
    );
  }
  const table = tableOf(outcomes);
  console.log(table);
  if (write) {
    const text = readFileSync(DOCUMENT, 'utf8');
    const [before, rest] = text.split(BEGIN) as [string, string];
    const after = rest.slice(rest.indexOf(END));
    writeFileSync(DOCUMENT, `${before}${BEGIN}\n\n${table}\n\n${after}`);
  }
  if (outcomes.some(({ noticedBy }) => noticedBy === undefined)) process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true });
}
