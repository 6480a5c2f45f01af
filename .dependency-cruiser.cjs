/**
 * The house: a file imports only from its own folder and from lower floors, and never in a circle. `npm run check` holds
 * it. Floors as in docs/architecture.md.
 */
const floors = [['base'], ['store'], ['engine'], ['flush'], ['dlq'], ['metrics'], ['db'], ['cli', 'server', 'kysely']];

const upwards = floors.flatMap((folders, floor) =>
  folders.map((folder) => ({
    name: `floor-${floor}-${folder}`,
    comment: `src/${folder} may import from its own folder and from the floors below`,
    severity: 'error',
    from: { path: `^src/${folder}/` },
    to: {
      path: `^src/(index\\.ts|(${
        floors
          .slice(floor)
          .flat()
          .filter((other) => other !== folder && !(folder === 'cli' && other === 'server'))
          .join('|') || 'nothing'
      })/)`,
    },
  })),
);

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    { name: 'no-circles', severity: 'error', from: {}, to: { circular: true } },
    ...upwards,
    {
      name: 'one-door-to-sqlite',
      comment: 'better-sqlite3 is imported in one file',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/store/sqlite/connection\\.ts$' },
      to: { path: 'better-sqlite3' },
    },
    {
      name: 'store-is-an-interface',
      comment:
        'only open.ts, which wires everything, and inspect.ts and restore.ts, which work on the files, know which store there is',
      severity: 'error',
      from: { path: '^src/(engine|flush|dlq|metrics|db)/', pathNot: '^src/db/(open|inspect|restore)\\.ts$' },
      to: { path: '^src/store/sqlite/' },
    },
    {
      name: 'threads-of-the-store-are-apart',
      comment:
        'what runs on the writer thread, on the readers and in the processes of inspect and backup shares what lies beside it',
      severity: 'error',
      from: { path: '^src/store/sqlite/(writer|reader|examine|copy|dead-letters)/' },
      to: { path: '^src/store/sqlite/(writer|reader|examine|copy)/', pathNot: '^src/store/sqlite/$1/' },
    },
    {
      name: 'engine-is-pure',
      comment: 'no SQLite, no threads, no HTTP, no disk of its own in the engine, the flush and the queue',
      severity: 'error',
      from: { path: '^src/(engine|flush|dlq)/' },
      to: { path: '^(node:)?(fs|fs/promises|http|https|net|worker_threads|child_process)$' },
    },
    {
      name: 'prom-client-stays-in-metrics',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/metrics/' },
      to: { path: 'prom-client' },
    },
    {
      name: 'kysely-is-optional',
      comment: 'only its own entry needs it',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/kysely/' },
      to: { path: '(^|/)kysely(/|$)', pathNot: '^src/' },
    },
    {
      name: 'package-root-is-light',
      comment: 'the entry "." loads neither prom-client nor HTTP; stats.ts is types alone',
      severity: 'error',
      from: { path: '^src/index\\.ts$' },
      to: { path: '^src/(metrics/(?!stats\\.ts$)|server/|cli/)|prom-client|^(node:)?https?$', reachable: true },
    },
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default', 'types'] },
  },
};
