import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CompilerState, Extractor, ExtractorConfig, ExtractorLogLevel } from '@microsoft/api-extractor';
import { beforeAll, expect, test, vi } from 'vitest';
import { tempDir } from '../support/temp-dir.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

// A compiler, on a machine that may be busy.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

interface Entry {
  readonly specifier: string;
  readonly name: string;
  readonly types: string;
}

const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  readonly exports: Readonly<Record<string, string | { readonly types: string }>>;
};
const entries = Object.entries(exports).flatMap(([path, entry]): Entry[] => {
  if (typeof entry === 'string') return [];
  const specifier = path.replace('.', 'sluicedb');
  return [{ specifier, name: specifier.replace('/', '-'), types: join(root, entry.types) }];
});

/** In TypeDoc's hands is all that is about comments. */
const SILENT = { default: { logLevel: ExtractorLogLevel.None } };

function configOf({ name, types }: Entry, folder: string): ExtractorConfig {
  return ExtractorConfig.prepare({
    configObject: {
      projectFolder: root,
      mainEntryPointFilePath: types,
      newlineKind: 'lf',
      compiler: { tsconfigFilePath: join(root, 'tsconfig.json') },
      apiReport: {
        enabled: true,
        reportFileName: name,
        reportVariants: ['public'],
        reportFolder: folder,
        reportTempFolder: folder,
      },
      docModel: { enabled: false },
      dtsRollup: { enabled: false },
      tsdocMetadata: { enabled: false },
      messages: { extractorMessageReporting: SILENT, tsdocMessageReporting: SILENT, compilerMessageReporting: SILENT },
    },
    configObjectFullPath: undefined,
    packageJsonFullPath: join(root, 'package.json'),
  });
}

let compiled: CompilerState;

beforeAll(() => {
  const [first, ...others] = entries.map((entry) => configOf(entry, root)) as [ExtractorConfig, ...ExtractorConfig[]];
  compiled = CompilerState.create(first, {
    additionalEntryPoints: others.map(({ mainEntryPointFilePath }) => mainEntryPointFilePath),
  });
});

/** The names that an entry exports, with their signatures, and what these mention that it does not export. */
function reportOf(entry: Entry): { readonly report: string; readonly mentioned: readonly string[] } {
  const folder = tempDir();
  const mentioned: string[] = [];
  const problems: string[] = [];
  Extractor.invoke(configOf(entry, folder), {
    compilerState: compiled,
    localBuild: true,
    messageCallback: (message) => {
      const { category, messageId, text } = message;
      const name = /"(\w+)"/.exec(text)?.[1];
      if (messageId === 'ae-forgotten-export' && name !== undefined) mentioned.push(name);
      if (category === 'Compiler') problems.push(text);
      message.handled = true;
    },
  });
  expect(problems).toEqual([]);
  const written = readFileSync(join(folder, `${entry.name}.public.api.md`), 'utf8');
  // Imports for what is internal are no part of the API.
  const report = written.replaceAll(/^import .*\{ (\w+) \}.*\n/gm, (line, name: string) =>
    written.split(new RegExp(`\\b${name}\\b`)).length > 2 ? line : '',
  );
  return { report, mentioned };
}

test('the entries are those that are known', () => {
  expect(entries.map(({ specifier }) => specifier)).toEqual([
    'sluicedb',
    'sluicedb/kysely',
    'sluicedb/metrics',
    'sluicedb/server',
  ]);
});

test.each(entries)('what $specifier exports is what the report in api/ says', async (entry) => {
  const { report } = reportOf(entry);
  expect(report).toMatch(/^export /m);
  await expect(report).toMatchFileSnapshot(
    join(root, 'api', `${entry.name}.api.md`),
    `the API of ${entry.specifier} has changed. If that is meant: \`npm run api\` writes the report again, and the diff goes with the change`,
  );
});

test('whatever a signature mentions can be imported', () => {
  const reports = entries.map(reportOf);
  const exported = new Set(
    [...(reports[0]?.report ?? '').matchAll(/^export (?:class|const|function|interface|type) (\w+)/gm)].map(
      ([, name]) => name,
    ),
  );
  expect(exported.size).toBeGreaterThan(100);
  expect(exported).toContain('Database');
  const missing = reports.flatMap(({ report, mentioned }) =>
    mentioned.filter((name) => !exported.has(name) && new RegExp(`\\b${name}\\b`).test(report)),
  );
  expect(missing).toEqual([]);
});
